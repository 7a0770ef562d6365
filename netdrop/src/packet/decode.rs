//! Ring record to [`Packet`].

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, Ethernet2HeaderSlice, IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanSlice, ip_number,
};
use netdrop_common::event::{
    CAPTURE_LEN, DropEvent, NO_OFFSET, TUPLE_ADDRESSES, TUPLE_ICMP, TUPLE_LATER_FRAGMENT, TUPLE_NO_TRANSPORT,
    TUPLE_PORTS, TUPLE_TCP, Tuple,
};

use super::{Family, Icmp, Inner, Packet, Protocol, TcpFlags, address};

/// Bytes of an ICMP header before the packet that an error is about.
const ICMP_HEADER: usize = 8;

/// VLAN tags that are followed: the kernel itself takes off two.
const MAX_TAGS: usize = 4;

/// Headers looked at behind the IPv6 header, as the kernel side does.
const MAX_EXTENSIONS: usize = 8;

pub(super) fn packet(event: &DropEvent) -> Packet {
    let tuple = &event.tuple;
    let layers = Layers::of(event);
    let family = Family::from_ethertype(layers.ethertype);
    let mut packet =
        Packet { family, segments: event.segments.max(1), vlan: layers.vlan, ..Packet::default() };
    match family {
        Some(Family::Ipv4 | Family::Ipv6) => {
            // A header of the other version is what a malformed packet has: it says nothing.
            let v4 = family == Some(Family::Ipv4);
            let read = Ip::read(layers.network).filter(|ip| ip.src.is_ipv4() == v4);
            packet.len = ip_length(event, read.as_ref());
            ip(&mut packet, tuple, read.as_ref());
        }
        Some(Family::Arp) => {
            packet.proto = Some(Protocol::Arp);
            arp(&mut packet, event, layers.network);
        }
        Some(Family::Other(_)) | None => packet.len = Some(event.l3_len).filter(|length| *length > 0),
    }
    packet
}

/// Where the network layer is, and what it is.
struct Layers<'a> {
    ethertype: u16,
    network: &'a [u8],
    vlan: Vec<u16>,
}

impl<'a> Layers<'a> {
    fn of(event: &'a DropEvent) -> Self {
        let captured = &event.bytes[..usize::from(event.caplen).min(CAPTURE_LEN)];
        let mut vlan = Vec::new();
        let mut link = None;
        if event.has_ethernet()
            && let Ok(header) = Ethernet2HeaderSlice::from_slice(captured)
        {
            let payload = &captured[header.slice().len()..];
            link = Some(untagged(header.ether_type().0, payload, &mut vlan));
        }
        let (mut ethertype, mut network) = link.unwrap_or((0, &[]));
        if event.tuple.ethertype != 0 {
            ethertype = event.tuple.ethertype;
        }
        if event.l3_offset != NO_OFFSET {
            network = captured.get(usize::from(event.l3_offset)..).unwrap_or(&[]);
        }
        if is_tag(ethertype) {
            // Before the kernel takes a tag off, the network header is set to the tag. The walk from the
            // Ethernet header has seen the same tags, where there is one.
            vlan.clear();
            (ethertype, network) = untagged(ethertype, network, &mut vlan);
        }
        if ethertype == 0 {
            ethertype = match network.first().map(|byte| byte >> 4) {
                Some(4) => 0x0800,
                Some(6) => 0x86dd,
                _ => 0,
            };
        }
        Self { ethertype, network, vlan }
    }
}

/// Follows VLAN tags; where one is cut off, what it holds stays unknown.
fn untagged<'a>(mut ethertype: u16, mut payload: &'a [u8], ids: &mut Vec<u16>) -> (u16, &'a [u8]) {
    for _ in 0..MAX_TAGS {
        if !is_tag(ethertype) {
            return (ethertype, payload);
        }
        let Ok(tag) = SingleVlanSlice::from_slice(payload) else { return (0, &[]) };
        ids.push(tag.vlan_identifier().value());
        (ethertype, payload) = (tag.ether_type().0, tag.payload_slice());
    }
    (0, &[])
}

fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// An IP header and what follows it.
struct Ip<'a> {
    src: IpAddr,
    dst: IpAddr,
    /// `None` when the chain of extension headers is cut off.
    proto: Option<Protocol>,
    header_length: u32,
    /// As the header says; 0 where it says nothing (jumbograms).
    total_length: u32,
    later_fragment: bool,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::read_v4(bytes),
            6 => Self::read_v6(bytes),
            _ => None,
        }
    }

    fn read_v4(bytes: &'a [u8]) -> Option<Self> {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let length = header.slice().len();
        let total = header.total_len();
        let later_fragment = header.fragments_offset().value() != 0;
        Some(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            proto: Some(Protocol::Ip(header.protocol().0)),
            header_length: length as u32,
            total_length: total.into(),
            later_fragment,
            payload: if later_fragment {
                &[]
            } else {
                unpadded(bytes, total.into()).get(length..).unwrap_or(&[])
            },
        })
    }

    fn read_v6(bytes: &'a [u8]) -> Option<Self> {
        let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
        let length = header.slice().len();
        let total = match header.payload_length() {
            0 => 0,
            payload => usize::from(payload) + length,
        };
        let rest = unpadded(bytes, total).get(length..).unwrap_or(&[]);
        let transport = Transport::behind(header.next_header(), rest);
        Some(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            proto: transport.proto,
            header_length: length as u32,
            total_length: total as u32,
            later_fragment: transport.later_fragment,
            payload: transport.bytes,
        })
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let [a, b, c, d, ..] = *self.payload else { return None };
        self.proto?.has_ports().then_some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    fn tcp_flags(&self) -> Option<TcpFlags> {
        let flags = *self.payload.get(13)?;
        (self.proto == Some(Protocol::TCP)).then_some(TcpFlags(flags))
    }

    fn icmp(&self) -> Option<Icmp> {
        let [kind, code, ..] = *self.payload else { return None };
        matches!(self.proto, Some(Protocol::ICMP | Protocol::ICMP6)).then_some(Icmp { kind, code })
    }

    /// The packet that an ICMP error is about.
    fn inner(&self) -> Option<Inner> {
        let errors: &[u8] = match self.proto? {
            Protocol::ICMP => &[3, 4, 5, 11, 12],
            Protocol::ICMP6 => &[1, 2, 3, 4],
            _ => return None,
        };
        if !errors.contains(self.payload.first()?) {
            return None;
        }
        let inner = Ip::read(self.payload.get(ICMP_HEADER..)?)?;
        let (sport, dport) = inner.ports().unzip();
        let family = if inner.src.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        Some(Inner { family, proto: inner.proto, src: inner.src, sport, dst: inner.dst, dport })
    }
}

/// `bytes` without what follows the packet, where its length is known and they reach that far.
fn unpadded(bytes: &[u8], total: usize) -> &[u8] {
    if total == 0 { bytes } else { bytes.get(..total).unwrap_or(bytes) }
}

/// What the extension headers of an IPv6 packet lead to.
///
/// Walked here, because etherparse 0.21 reads past the end where its iterator over these headers meets
/// a chain that is cut off, as every chain may be in captured bytes.
struct Transport<'a> {
    proto: Option<Protocol>,
    later_fragment: bool,
    bytes: &'a [u8],
}

impl<'a> Transport<'a> {
    fn behind(mut next: IpNumber, mut rest: &'a [u8]) -> Self {
        let unknown = Self { proto: None, later_fragment: false, bytes: &[] };
        for _ in 0..MAX_EXTENSIONS {
            let length;
            match next {
                ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                    let Ok(header) = Ipv6RawExtHeaderSlice::from_slice(rest) else { return unknown };
                    (next, length) = (header.next_header(), header.slice().len());
                }
                ip_number::IPV6_FRAG => {
                    let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(rest) else { return unknown };
                    (next, length) = (header.next_header(), header.slice().len());
                    if header.fragment_offset().value() != 0 {
                        return Self { proto: Some(Protocol::Ip(next.0)), later_fragment: true, bytes: &[] };
                    }
                }
                ip_number::AUTH => {
                    let Ok(header) = IpAuthHeaderSlice::from_slice(rest) else { return unknown };
                    (next, length) = (header.next_header(), header.slice().len());
                }
                _ => return Self { proto: Some(Protocol::Ip(next.0)), later_fragment: false, bytes: rest },
            }
            rest = rest.get(length..).unwrap_or(&[]);
        }
        unknown
    }
}

/// Fills the fields of an IP packet. The kernel side saw headers that may lie beyond the captured bytes,
/// and it counted and filtered by what it saw: where it has read something, that counts.
fn ip(packet: &mut Packet, tuple: &Tuple, read: Option<&Ip<'_>>) {
    if tuple.have & TUPLE_ADDRESSES != 0 {
        let v4 = packet.family == Some(Family::Ipv4);
        packet.src = Some(address(&tuple.saddr, !v4));
        packet.dst = Some(address(&tuple.daddr, !v4));
        packet.proto = if tuple.have & TUPLE_NO_TRANSPORT == 0 {
            Some(Protocol::Ip(tuple.proto))
        } else {
            read.and_then(|ip| ip.proto)
        };
    } else {
        packet.src = read.map(|ip| ip.src);
        packet.dst = read.map(|ip| ip.dst);
        packet.proto = read.and_then(|ip| ip.proto);
    }
    packet.later_fragment =
        tuple.have & TUPLE_LATER_FRAGMENT != 0 || read.is_some_and(|ip| ip.later_fragment);
    if packet.later_fragment {
        return;
    }
    // What was captured is the same packet's, unless the two disagree about what it is.
    let read = read.filter(|ip| ip.proto == packet.proto);
    (packet.sport, packet.dport) = if tuple.have & TUPLE_PORTS != 0 {
        (Some(tuple.sport), Some(tuple.dport))
    } else {
        read.and_then(Ip::ports).unzip()
    };
    packet.tcp_flags = if tuple.have & TUPLE_TCP != 0 {
        Some(TcpFlags(tuple.tcp_flags))
    } else {
        read.and_then(Ip::tcp_flags)
    };
    packet.icmp = if tuple.have & TUPLE_ICMP != 0 {
        Some(Icmp { kind: tuple.icmp_type, code: tuple.icmp_code })
    } else {
        read.and_then(Ip::icmp)
    };
    packet.inner = read.and_then(Ip::inner);
}

/// Length by the IP header, which leaves out padding; by the skb where the header cannot be right: a
/// GSO packet's may stand for one segment or, beyond 64 KB, say 0.
fn ip_length(event: &DropEvent, read: Option<&Ip<'_>>) -> Option<u32> {
    let skb = Some(event.l3_len).filter(|length| *length > 0);
    let told = read.map(|ip| (ip.header_length, ip.total_length));
    match (told, skb) {
        (Some((header, total)), None) if total >= header => Some(total),
        (Some((header, total)), Some(skb)) if total >= header && total <= skb && event.segments <= 1 => {
            Some(total)
        }
        _ => skb,
    }
}

fn arp(packet: &mut Packet, event: &DropEvent, bytes: &[u8]) {
    packet.len = Some(event.l3_len).filter(|length| *length > 0);
    let tuple = &event.tuple;
    if let Ok(arp) = ArpPacketSlice::from_slice(bytes) {
        let own = arp.slice().len() as u32;
        packet.len = Some(packet.len.map_or(own, |length| length.min(own)));
        let protocol_address =
            |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
        packet.src = protocol_address(arp.sender_protocol_addr());
        packet.dst = protocol_address(arp.target_protocol_addr());
    }
    if tuple.have & TUPLE_ADDRESSES != 0 {
        packet.src = Some(address(&tuple.saddr, false));
        packet.dst = Some(address(&tuple.daddr, false));
    }
}
