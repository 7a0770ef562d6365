//! Captures read back with a parser that is not ours.

use std::{mem::offset_of, rc::Rc, sync::Arc};

use jiff::Timestamp;
use netdrop_common::event::{DropEvent, HAVE_DEVICE, HAVE_MAC, NO_OFFSET};
use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, InterfaceStatisticsBlock, Linktype, OptionCode,
    PcapBlockOwned, PcapNGOption, PcapNGSlice, SectionHeaderBlock, traits::PcapNGPacketBlock as _,
};
use proptest::prelude::*;

use super::*;
use crate::{
    attribute::{Attribution, Container, Evidence},
    cause::{Class, Confidence},
    event::Known,
    evidence::Found,
    judge::{Judged, Location},
    kernel::reasons::Reason,
    packet::Packet,
};

/// 2026-11-20T12:00:00.123456789Z.
const TIME: i128 = 1_795_176_000_123_456_789;

/// A datagram of 61 captured bytes and 1028 on the wire, from the IP header on.
fn record() -> DropEvent {
    let mut record = crate::decode::decode(&[0; size_of::<DropEvent>()]).unwrap().event;
    record.key.netns_inode = 4_026_532_281;
    record.key.netns_cookie = 17;
    record.have = HAVE_DEVICE;
    record.ifname[..4].copy_from_slice(b"eth0");
    (record.ifindex, record.iif) = (3, 3);
    record.tuple.ethertype = 0x0800;
    (record.caplen, record.l3_len) = (61, 1028);
    record.bytes[..61].fill(0x45);
    record
}

fn with_ethernet(mut record: DropEvent) -> DropEvent {
    (record.have, record.l3_offset) = (record.have | HAVE_MAC, 14);
    record
}

fn judged() -> Judged {
    Judged {
        cause: "udp-receive-buffer-full".into(),
        title: "UDP receive buffer full".into(),
        class: Class::Harmful,
        confidence: Confidence::Observed,
        why: "SOCKET_RCVBUFF at udp_queue_rcv_one_skb".into(),
        evidence: Vec::new(),
        reason: Reason {
            code: Some(6),
            subsystem: Some("core".into()),
            name: Some("SOCKET_RCVBUFF".into()),
            known: true,
        },
        location: Location {
            symbol: Some("udp_queue_rcv_one_skb".into()),
            offset: Some(1079),
            module: None,
            address: 0xffff_ffff_8100_0000,
        },
    }
}

fn event(record: &DropEvent) -> Event {
    event_of(record, judged(), Attribution::default())
}

fn event_of(record: &DropEvent, judged: Judged, attribution: Attribution) -> Event {
    let time = Timestamp::from_nanosecond(TIME).unwrap();
    let known = Known {
        time,
        judged: Rc::new(judged),
        attribution,
        input: None,
        found: Found::default(),
        packet: Packet::from_event(record),
        stack: None,
    };
    Event::new(record, known)
}

fn container() -> Attribution {
    let container = Container {
        runtime: "docker",
        id: "49b4".repeat(16),
        name: Some("nginx".into()),
        image: None,
        evidence: Evidence::Netns,
    };
    Attribution { netns_name: Some("web".into()), container: Some(Arc::new(container)) }
}

fn summary() -> Summary {
    let totals = Totals { total: 9, seen: 7, shown: 4, lost: 3, missed: 2, ..Totals::default() };
    Summary {
        totals,
        rows: Vec::new(),
        show_benign: false,
        kernel: String::new(),
        hooks: String::new(),
        resolved_clashes: None,
        harm: None,
    }
}

/// A capture taken apart.
#[derive(Default)]
struct Read<'a> {
    sections: Vec<SectionHeaderBlock<'a>>,
    interfaces: Vec<InterfaceDescriptionBlock<'a>>,
    packets: Vec<EnhancedPacketBlock<'a>>,
    statistics: Vec<InterfaceStatisticsBlock<'a>>,
}

impl<'a> Read<'a> {
    fn from(capture: &'a [u8]) -> Self {
        let mut read = Self::default();
        for block in PcapNGSlice::from_slice(capture).unwrap() {
            match block.unwrap() {
                PcapBlockOwned::NG(Block::SectionHeader(block)) => read.sections.push(block),
                PcapBlockOwned::NG(Block::InterfaceDescription(block)) => read.interfaces.push(block),
                PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                    assert!((block.if_id as usize) < read.interfaces.len(), "described before used");
                    read.packets.push(block);
                }
                PcapBlockOwned::NG(Block::InterfaceStatistics(block)) => read.statistics.push(block),
                _ => panic!("no such block is written"),
            }
        }
        read
    }

    fn comment(&self, packet: usize) -> &str {
        comment_of(&self.packets[packet].options)
    }

    /// Name, description and link type.
    fn interface(&self, number: usize) -> (Option<&str>, &str, Linktype) {
        let interface = &self.interfaces[number];
        let description = interface.if_description().unwrap().unwrap();
        (interface.if_name().map(Result::unwrap), description, interface.linktype)
    }
}

fn comment_of<'a>(options: &'a [PcapNGOption<'_>]) -> &'a str {
    options.iter().find(|option| option.code == OptionCode::Comment).unwrap().as_str().unwrap()
}

/// A run of these events.
fn capture(events: &[Event]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut pcapng = Pcapng::new("Linux 6.18.44".into(), "x86_64".into());
    pcapng.begin(&mut out);
    for event in events {
        pcapng.event(&mut out, event);
    }
    pcapng.summary(&mut out, &summary());
    out
}

#[test]
fn a_packet_reads_back() {
    let record = with_ethernet(record());
    let bytes = capture(&[event_of(&record, judged(), container())]);
    let read = Read::from(&bytes);

    let section = &read.sections[0];
    assert_eq!(section.shb_os().unwrap().unwrap(), "Linux 6.18.44");
    assert_eq!(section.shb_hardware().unwrap().unwrap(), "x86_64");
    assert_eq!(section.shb_userappl().unwrap().unwrap(), concat!("netdrop ", env!("CARGO_PKG_VERSION")));

    let description = "netns web (inode 4026532281), container nginx";
    assert_eq!(read.interface(0), (Some("eth0"), description, Linktype::ETHERNET));
    assert_eq!(read.interfaces[0].ts_resolution(), Some(1_000_000_000));

    let packet = &read.packets[0];
    assert_eq!(packet.packet_data(), &record.bytes[..61]);
    assert_eq!((packet.caplen, packet.origlen), (61, 1028 + 14));
    assert_eq!((u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low)) as i128, TIME);
    // Inbound, unicast.
    assert_eq!(packet.options[1].as_bytes().unwrap(), 0b101_u32.to_ne_bytes());
    assert_eq!(
        read.comment(0),
        "cause=udp-receive-buffer-full class=harmful confidence=observed reason=SOCKET_RCVBUFF \
         location=udp_queue_rcv_one_skb netns=web inode=4026532281 container=nginx direction=in"
    );
}

#[test]
fn each_namespace_device_and_link_type_is_an_interface() {
    let ethernet = with_ethernet(record());
    let mut elsewhere = ethernet;
    elsewhere.key.netns_inode += 1;
    let mut other_device = ethernet;
    (other_device.ifindex, other_device.ifname[3]) = (4, b'1');
    let mut no_device = record();
    (no_device.have, no_device.iif) = (0, 0);
    let events = [ethernet, record(), elsewhere, other_device, ethernet, no_device].map(|r| event(&r));
    let bytes = capture(&events);
    let read = Read::from(&bytes);

    let used: Vec<u32> = read.packets.iter().map(|packet| packet.if_id).collect();
    assert_eq!(used, [0, 1, 2, 3, 0, 4]);
    let here = "netns with inode 4026532281";
    assert_eq!(read.interface(0), (Some("eth0"), here, Linktype::ETHERNET));
    assert_eq!(read.interface(1), (Some("eth0"), here, Linktype::RAW));
    assert_eq!(read.interface(2), (Some("eth0"), "netns with inode 4026532282", Linktype::ETHERNET));
    assert_eq!(read.interface(3), (Some("eth1"), here, Linktype::ETHERNET));
    assert_eq!(read.interface(4), (None, here, Linktype::RAW));
    // tcpdump wants them all the same.
    assert!(read.interfaces.iter().all(|interface| interface.snaplen == SNAPLEN));
}

#[test]
fn arp_without_ethernet_header_gets_a_cooked_one() {
    let mut arp = record();
    arp.tuple.ethertype = 0x0806;
    (arp.bytes[0], arp.caplen, arp.l3_len, arp.packet_type) = (0, 28, 28, 4);
    let bytes = capture(&[event(&arp)]);
    let read = Read::from(&bytes);
    assert_eq!(read.interface(0).2, Linktype::LINUX_SLL);
    let packet = &read.packets[0];
    assert_eq!((packet.caplen, packet.origlen), (44, 44));
    let (cooked, network) = packet.packet_data().split_at(16);
    assert_eq!(cooked, [0, 4, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x06]);
    assert_eq!(network, &arp.bytes[..28]);
}

#[test]
fn what_is_not_known_is_left_out_of_the_comment() {
    let mut nowhere = record();
    (nowhere.key.netns_inode, nowhere.have, nowhere.iif) = (0, 0, 0);
    let mut judged = judged();
    judged.reason = Reason { code: None, subsystem: None, name: None, known: false };
    judged.location.symbol = None;
    let bytes = capture(&[event_of(&nowhere, judged, Attribution::default())]);
    let read = Read::from(&bytes);
    assert_eq!(
        read.comment(0),
        "cause=udp-receive-buffer-full class=harmful confidence=observed location=0xffffffff81000000"
    );
    assert_eq!(read.interface(0).1, "netns not known");
}

#[test]
fn a_stack_is_a_comment_of_its_own() {
    let mut event = event(&record());
    event.stack = Some(vec!["udp_queue_rcv_one_skb+0x437".into(), "udp_rcv+0x1a".into()]);
    let bytes = capture(&[event]);
    let read = Read::from(&bytes);
    let stack = read.packets[0].options[1].as_str().unwrap();
    assert_eq!(stack, "stack:\nudp_queue_rcv_one_skb+0x437\nudp_rcv+0x1a");
    assert!(read.comment(0).starts_with("cause="), "{}", read.comment(0));
}

#[test]
fn a_renamed_device_is_another_interface() {
    let before = with_ethernet(record());
    let mut after = before;
    after.ifname[..4].copy_from_slice(b"wan0");
    let bytes = capture(&[before, after, before].map(|record| event(&record)));
    let read = Read::from(&bytes);
    assert_eq!(read.interfaces.len(), 2);
    assert_eq!((read.interface(0).0, read.interface(1).0), (Some("eth0"), Some("wan0")));
    assert_eq!(read.packets.iter().map(|packet| packet.if_id).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn names_are_quoted_and_cannot_steer_a_terminal() {
    let mut record = record();
    record.ifname[..4].copy_from_slice(b"a\x1bc\0");
    let attribution = Attribution { netns_name: Some("my \x1b[31mnet".into()), container: None };
    let mut judged = judged();
    judged.location.module = Some("vxlan".into());
    let bytes = capture(&[event_of(&record, judged, attribution)]);
    let read = Read::from(&bytes);
    assert_eq!(read.interface(0).0, Some("a\\u{1b}c"));
    let comment = read.comment(0);
    assert!(comment.contains(" module=vxlan netns=\"my \\u{1b}[31mnet\" "), "{comment}");
}

#[test]
fn drops_without_bytes_are_counted() {
    let mut empty = record();
    (empty.caplen, empty.l3_offset) = (0, NO_OFFSET);
    let mut out = BytesMut::new();
    let mut pcapng = Pcapng::new(String::new(), String::new());
    pcapng.begin(&mut out);
    pcapng.event(&mut out, &event(&record()));
    pcapng.event(&mut out, &event(&empty));
    assert_eq!(pcapng.left_out(), 0, "nothing is said before the end");
    pcapng.summary(&mut out, &summary());
    assert_eq!(pcapng.left_out(), 1);

    let read = Read::from(&out);
    assert_eq!(read.packets.len(), 1);
    assert_eq!(read.statistics[0].isb_usrdeliv(), Some(Ok(1)));
    let sums = comment_of(&read.statistics[0].options);
    assert!(sums.contains("total=9 seen=7 shown=4 hidden=0 lost=3"), "{sums}");
    assert!(sums.ends_with("missed=2 without_bytes=1"), "{sums}");
}

#[test]
fn a_run_without_drops_is_a_capture_too() {
    let bytes = capture(&[]);
    let read = Read::from(&bytes);
    assert_eq!((read.interfaces.len(), read.packets.len(), read.statistics.len()), (1, 0, 1));
}

#[test]
fn too_long_a_text_is_cut_between_characters() {
    let mut out = BytesMut::new();
    text_option(&mut out, option::COMMENT, &"ä".repeat(40_000));
    assert_eq!(u16::from_ne_bytes([out[2], out[3]]), u16::MAX - 1);
    assert_eq!(out.len() % 4, 0);
}

proptest! {
    #[test]
    fn any_record_makes_whole_blocks(records in prop::collection::vec(
        (prop::collection::vec(any::<u8>(), size_of::<DropEvent>()), 0..=CAPTURE_LEN as u16, 0..40_u16), 1..4,
    )) {
        let records = records.iter().map(|(bytes, caplen, l3_offset)| {
            let mut bytes = bytes.clone();
            bytes[offset_of!(DropEvent, caplen)..][..2].copy_from_slice(&caplen.to_ne_bytes());
            DropEvent { l3_offset: *l3_offset, ..crate::decode::decode(&bytes).unwrap().event }
        });
        let events: Vec<Event> = records.map(|record| event(&record)).collect();
        let bytes = capture(&events);
        let read = Read::from(&bytes);
        for packet in &read.packets {
            prop_assert!(packet.caplen <= packet.origlen);
            prop_assert!(packet.caplen <= SNAPLEN);
        }
        let known = events.iter().filter(|event| event.capture.is_some()).count();
        prop_assert_eq!(read.packets.len(), known);
    }
}
