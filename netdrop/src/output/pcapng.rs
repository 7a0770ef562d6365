//! pcapng, the format of Wireshark and tshark
//! (<https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>): each dropped packet, with a comment
//! that says why it was dropped.
//!
//! Written here, because four kinds of blocks are less code than a dependency: of the crates that write
//! comments, pcap-file's released version is from 2023 and its successor unreleased, and both want owned copies
//! of all that is written.

use std::collections::HashMap;

use bytes::{BufMut as _, BytesMut};
use netdrop_common::event::CAPTURE_LEN;

use super::Sink;
use crate::{
    attribute::{netns::NetnsId, untrusted::printable},
    capture::{Capture, Link},
    event::{Direction, Event},
    refusal::Refusal,
    summary::Summary,
    totals::Totals,
};

#[cfg(test)]
mod tests;

/// Link types (<https://www.tcpdump.org/linktypes.html>).
mod linktype {
    pub(super) const ETHERNET: u16 = 1;
    pub(super) const RAW: u16 = 101;
    pub(super) const LINUX_SLL: u16 = 113;
}

/// Block types.
mod block {
    pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
    pub(super) const INTERFACE_STATISTICS: u32 = 5;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

/// Option codes; each kind of block has its own from 2 on.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const SHB_HARDWARE: u16 = 2;
    pub(super) const SHB_OS: u16 = 3;
    pub(super) const SHB_USERAPPL: u16 = 4;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const EPB_FLAGS: u16 = 2;
    pub(super) const ISB_USRDELIV: u16 = 8;
}

/// Length of the header that stands for the missing link-layer header of [`Link::Network`].
const COOKED_LEN: u32 = 16;

/// The same for all interfaces: tcpdump reads no file in which it differs.
const SNAPLEN: u32 = CAPTURE_LEN as u32 + COOKED_LEN;

/// Nanoseconds, as a power of ten.
const TSRESOL: u8 = 9;

/// Namespace, index of the device (0: none), and link type.
type Place = (Option<NetnsId>, u32, u16);

/// The pcapng sink.
#[derive(Debug, Default)]
pub struct Pcapng {
    /// `Linux 6.18.44`.
    os: String,
    /// `x86_64`.
    hardware: String,
    /// Numbers by place, and there by name: a device can be renamed, and its index given to another one.
    interfaces: HashMap<Place, Vec<(Option<String>, u32)>>,
    /// Packets of each interface, and the time of the last one.
    written: Vec<(u64, u64)>,
    without_bytes: u64,
    complete: bool,
}

impl Pcapng {
    /// For captures on this system and machine.
    #[must_use]
    pub fn new(os: String, hardware: String) -> Self {
        Self { os, hardware, ..Self::default() }
    }

    /// Drops that were shown but are not in the capture, because they have no packet bytes: known once the run
    /// has come to its summary.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        if self.complete { self.without_bytes } else { 0 }
    }

    /// Number of the interface of an event, which is described before its first packet.
    fn interface(&mut self, out: &mut BytesMut, event: &Event, linktype: u16) -> u32 {
        let device = event.interface.as_ref();
        let name = device.and_then(|device| device.name.as_deref());
        let key = (event.netns, device.map_or(0, |device| device.index), linktype);
        let known = self.interfaces.get(&key).into_iter().flatten();
        if let Some((_, number)) = known.into_iter().find(|(known, _)| known.as_deref() == name) {
            return *number;
        }
        let shown = device.map(|device| match name {
            Some(name) => printable(name),
            None => format!("if#{}", device.index),
        });
        let netns = match (event.netns, &event.attribution.netns_name) {
            (Some(id), Some(name)) => format!("netns {} (inode {})", printable(name), id.inode),
            (Some(id), None) => format!("netns with inode {}", id.inode),
            (None, _) => "netns not known".to_owned(),
        };
        let description = match &event.attribution.container {
            Some(container) => format!("{netns}, container {}", printable(container.label())),
            None => netns,
        };
        let number = self.describe(out, linktype, shown.as_deref(), &description);
        self.interfaces.entry(key).or_default().push((name.map(str::to_owned), number));
        number
    }

    /// Describes the next interface and returns its number.
    fn describe(&mut self, out: &mut BytesMut, linktype: u16, name: Option<&str>, description: &str) -> u32 {
        block(out, block::INTERFACE_DESCRIPTION, |out| {
            out.put_u16_ne(linktype);
            out.put_u16_ne(0);
            out.put_u32_ne(SNAPLEN);
            if let Some(name) = name {
                text_option(out, option::IF_NAME, name);
            }
            text_option(out, option::IF_DESCRIPTION, description);
            put_option(out, option::IF_TSRESOL, &[TSRESOL]);
            end_of_options(out);
        });
        self.written.push((0, 0));
        self.written.len() as u32 - 1
    }
}

impl Sink for Pcapng {
    fn begin(&mut self, out: &mut BytesMut) {
        /// Tells readers the byte order.
        const MAGIC: u32 = 0x1a2b_3c4d;
        /// The section ends where the file does.
        const LENGTH_NOT_KNOWN: u64 = u64::MAX;
        block(out, block::SECTION_HEADER, |out| {
            out.put_u32_ne(MAGIC);
            out.put_u16_ne(1);
            out.put_u16_ne(0);
            out.put_u64_ne(LENGTH_NOT_KNOWN);
            text_option(out, option::COMMENT, "Dropped packets only; the comment of each says why.");
            text_option(out, option::SHB_HARDWARE, &self.hardware);
            text_option(out, option::SHB_OS, &self.os);
            text_option(out, option::SHB_USERAPPL, concat!("netdrop ", env!("CARGO_PKG_VERSION")));
            end_of_options(out);
        });
    }

    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        let Some(capture) = &event.capture else {
            self.without_bytes += 1;
            return;
        };
        let (linktype, cooked) = match capture.link {
            Link::Ethernet => (linktype::ETHERNET, None),
            Link::Ip => (linktype::RAW, None),
            Link::Network(ethertype) => (linktype::LINUX_SLL, Some(ethertype)),
        };
        let interface = self.interface(out, event, linktype);
        let time = u64::try_from(event.time.as_nanosecond()).unwrap_or(0);
        self.written[interface as usize].0 += 1;
        self.written[interface as usize].1 = time;
        let bytes = capture.bytes();
        let added = if cooked.is_some() { COOKED_LEN } else { 0 };
        block(out, block::ENHANCED_PACKET, |out| {
            out.put_u32_ne(interface);
            put_time(out, time);
            out.put_u32_ne(bytes.len() as u32 + added);
            out.put_u32_ne(capture.original.saturating_add(added));
            if let Some(ethertype) = cooked {
                put_cooked_header(out, capture.packet_type, ethertype);
            }
            put_padded(out, bytes);
            text_option(out, option::COMMENT, &comment(event));
            if let Some(stack) = &event.stack {
                text_option(out, option::COMMENT, &format!("stack:\n{}", stack.join("\n")));
            }
            put_option(out, option::EPB_FLAGS, &flags(event.direction, capture).to_ne_bytes());
            end_of_options(out);
        });
    }

    // There is no packet.
    fn refusal(&mut self, _out: &mut BytesMut, _refusal: &Refusal) {}

    fn loss(&mut self, _out: &mut BytesMut, _lost: u64) -> bool {
        false
    }

    fn summary(&mut self, out: &mut BytesMut, summary: &Summary) {
        self.complete = true;
        if self.written.is_empty() {
            // Readers want an interface, and the sums need one to stand at.
            self.describe(out, linktype::ETHERNET, None, "no packet was captured");
        }
        let sums = sums(&summary.totals, self.without_bytes);
        for (interface, (packets, last)) in (0..).zip(&self.written) {
            block(out, block::INTERFACE_STATISTICS, |out| {
                out.put_u32_ne(interface);
                put_time(out, *last);
                if interface == 0 {
                    text_option(out, option::COMMENT, &sums);
                }
                put_option(out, option::ISB_USRDELIV, &packets.to_ne_bytes());
                end_of_options(out);
            });
        }
    }
}

/// What netdrop knows of a drop, as `key=value` words; what it does not know is left out.
fn comment(event: &Event) -> String {
    let judged = &event.judged;
    let mut comment = format!(
        "cause={} class={} confidence={}",
        judged.cause,
        judged.class.as_str(),
        judged.confidence.as_str()
    );
    let mut word = |key: &str, value: &str| {
        let quote = if value.contains(' ') { "\"" } else { "" };
        comment.push_str(&format!(" {key}={quote}{value}{quote}"));
    };
    if let Some(reason) = judged.reason.qualified() {
        word("reason", &reason);
    }
    match &judged.location.symbol {
        Some(symbol) => word("location", symbol),
        None => word("location", &format!("{:#x}", judged.location.address)),
    }
    if let Some(module) = &judged.location.module {
        word("module", module);
    }
    if let Some(name) = &event.attribution.netns_name {
        word("netns", &printable(name));
    }
    if let Some(netns) = event.netns {
        word("inode", &netns.inode.to_string());
    }
    if let Some(container) = &event.attribution.container {
        word("container", &printable(container.label()));
    }
    if let Some(direction) = event.direction {
        word("direction", direction.as_str());
    }
    comment
}

/// The sums of a run, as `key=value` words.
fn sums(totals: &Totals, without_bytes: u64) -> String {
    let Totals { total, seen, shown, hidden, lost, counted_only, filtered, undecidable, missed, .. } = totals;
    format!(
        "total={total} seen={seen} shown={shown} hidden={hidden} lost={lost} counted_only={counted_only} \
         filtered={filtered} undecidable={undecidable} missed={missed} without_bytes={without_bytes}"
    )
}

/// Direction (bits 0 and 1) and, of what arrived, who it was for (bits 2 to 4).
fn flags(direction: Option<Direction>, capture: &Capture) -> u32 {
    const INBOUND: u32 = 1;
    const OUTBOUND: u32 = 2;
    match direction {
        Some(Direction::In) => INBOUND | (reception(capture.packet_type) << 2),
        Some(Direction::Out) => OUTBOUND,
        // Neither says what it was at the interface.
        Some(Direction::Forward) | None => 0,
    }
}

/// `skb->pkt_type` in pcapng's numbers; 0 where there is none for it.
fn reception(packet_type: u8) -> u32 {
    const UNICAST: u32 = 1;
    const MULTICAST: u32 = 2;
    const BROADCAST: u32 = 3;
    const PROMISCUOUS: u32 = 4;
    match packet_type {
        0 => UNICAST,
        1 => BROADCAST,
        2 => MULTICAST,
        3 => PROMISCUOUS,
        _ => 0,
    }
}

/// The header of LINKTYPE_LINUX_SLL, in network order: packet type, hardware type, no address, ethertype.
fn put_cooked_header(out: &mut BytesMut, packet_type: u8, ethertype: u16) {
    /// "Void type, nothing is known" (include/uapi/linux/if_arp.h).
    const ARPHRD_VOID: u16 = 0xffff;
    /// What comes after 4, packets the kernel loops back to itself, the format does not know: they are to us.
    const PACKET_OUTGOING: u8 = 4;
    out.put_u16(if packet_type > PACKET_OUTGOING { 0 } else { packet_type.into() });
    out.put_u16(ARPHRD_VOID);
    out.put_bytes(0, 2 + 8);
    out.put_u16(ethertype);
}

/// A block: type and length, what `body` puts, the length again.
fn block(out: &mut BytesMut, kind: u32, body: impl FnOnce(&mut BytesMut)) {
    /// Type, and the length before and after.
    const FRAME: usize = 12;
    let start = out.len();
    out.put_u32_ne(kind);
    out.put_u32_ne(0);
    body(out);
    let length = (out.len() - start - 8 + FRAME) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_ne_bytes());
    out.put_u32_ne(length);
}

/// Nanoseconds since 1970 as two halves, the high one first in either byte order.
fn put_time(out: &mut BytesMut, time: u64) {
    out.put_u32_ne((time >> 32) as u32);
    out.put_u32_ne(time as u32);
}

/// Bytes, up to the next multiple of four.
fn put_padded(out: &mut BytesMut, bytes: &[u8]) {
    out.put_slice(bytes);
    out.put_bytes(0, bytes.len().next_multiple_of(4) - bytes.len());
}

fn put_option(out: &mut BytesMut, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u16_ne(code);
    out.put_u16_ne(length);
    put_padded(out, &value[..length.into()]);
}

/// A string; of one that is too long for an option the beginning.
fn text_option(out: &mut BytesMut, code: u16, text: &str) {
    let most = text.floor_char_boundary(usize::from(u16::MAX));
    put_option(out, code, &text.as_bytes()[..most]);
}

fn end_of_options(out: &mut BytesMut) {
    put_option(out, option::END, &[]);
}
