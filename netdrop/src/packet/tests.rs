//! Decoding of recorded frames, whole, cut off and made up.

use netdrop_common::event::{
    CAPTURE_LEN, DropEvent, HAVE_MAC, NO_OFFSET, TUPLE_ADDRESSES, TUPLE_ICMP, TUPLE_LATER_FRAGMENT,
    TUPLE_PORTS, TUPLE_TCP, Tuple,
};
use proptest::prelude::{Strategy, any};
use serde_json::json;

use super::*;

// Frames as Linux sent them over a veth pair, at most the first 128 bytes.
const ARP_REQUEST: &str =
    "ffffffffffff8a0e61b8a783080600010800060400018a0e61b8a7830a0900010000000000000a090002";
const UDP4: &str =
    "cad734e503b88a0e61b8a783080045000021fd8b40004011292c0a0900010a09000213882328000d143368656c6c6f";
const PORT_UNREACHABLE4: &str = "8a0e61b8a783cad734e503b8080045c0003d422a0000400123c20a0900020a09000103036e3a0000000045000021fd8b40004011292c0a0900010a09000213882328000d143368656c6c6f";
const UDP4_OPTIONS: &str = "cad734e503b88a0e61b8a783080047000027fdb94000401114df0a0900010a090002010707080a09000113882329000b14316f7074";
const PORT_UNREACHABLE4_OPTIONS: &str = "8a0e61b8a783cad734e503b8080047c0004b42340000400108990a0900020a0900010707080a090001000303ce9e0000000047000027fdb94000401114df0a0900010a090002010707080a09000113882329000b14316f7074";
const FRAGMENT4_FIRST: &str = "cad734e503b88a0e61b8a7830800450005dcfdc72000401143350a0900010a0900021388232a0bc0bbc57878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878";
const FRAGMENT4_LATER: &str = "cad734e503b88a0e61b8a7830800450005dcfdc720b94011427c0a0900010a09000278787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878";
const PORT_UNREACHABLE6: &str = "8a0e61b8a783cad734e503b886dd6002fa53003e3a40fd090000000000000000000000000002fd0900000000000000000000000000010104684700000000600dbbb6000e1140fd090000000000000000000000000001fd09000000000000000000000000000213882328000efa3568656c6c6f36";
const HOP_BY_HOP6: &str = "cad734e503b88a0e61b8a78386dd60027ad200130040fd090000000000000000000000000001fd090000000000000000000000000002110001040000000013882329000bf6a0686f70";
const FRAGMENT6_FIRST: &str = "cad734e503b88a0e61b8a78386dd600a030405b02c40fd090000000000000000000000000001fd09000000000000000000000000000211000001a35ff1051388232a0bc0f3e179797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979";
const FRAGMENT6_LATER: &str = "cad734e503b88a0e61b8a78386dd600a030405b02c40fd090000000000000000000000000001fd090000000000000000000000000002110005a9a35ff105797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979";
const SYN4: &str = "cad734e503b88a0e61b8a78308004500003c52be40004006d3e90a0900010a09000298820050f185d7ef00000000a002faf014430000020405b40402080acccd0b2b000000000103030a";
const RST4: &str = "8a0e61b8a783cad734e503b808004500002800004000400626bc0a0900020a0900010050988200000000f185d7f05014000039730000";
const SYN6: &str = "cad734e503b88a0e61b8a78386dd6004b7c500280640fd090000000000000000000000000001fd090000000000000000000000000002900c00501b264aec00000000a002fd20fa440000020405a00402080a084c0471000000000103030a";

const ALL: [&str; 14] = [
    ARP_REQUEST,
    UDP4,
    PORT_UNREACHABLE4,
    UDP4_OPTIONS,
    PORT_UNREACHABLE4_OPTIONS,
    FRAGMENT4_FIRST,
    FRAGMENT4_LATER,
    PORT_UNREACHABLE6,
    HOP_BY_HOP6,
    FRAGMENT6_FIRST,
    FRAGMENT6_LATER,
    SYN4,
    RST4,
    SYN6,
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A record of these bytes in which the kernel side has read nothing.
fn record(frame: &[u8], have: u16, l3_offset: u16) -> DropEvent {
    let mut bytes = [0; CAPTURE_LEN];
    let caplen = frame.len().min(CAPTURE_LEN);
    bytes[..caplen].copy_from_slice(&frame[..caplen]);
    let l3_len = if l3_offset == NO_OFFSET { 0 } else { frame.len().saturating_sub(l3_offset.into()) as u32 };
    let blank = crate::decode::decode(&[0; size_of::<DropEvent>()]).unwrap().event;
    DropEvent { l3_len, segments: 1, caplen: caplen as u16, l3_offset, have, bytes, ..blank }
}

fn ethernet(hex: &str) -> DropEvent {
    record(&bytes(hex), HAVE_MAC, 14)
}

fn text(event: &DropEvent) -> String {
    Packet::from_event(event).to_string()
}

#[test]
fn recorded_frames_read_as_text() {
    for (frame, line) in [
        (ARP_REQUEST, "arp 10.9.0.1 > 10.9.0.2"),
        (UDP4, "udp 10.9.0.1:5000 > 10.9.0.2:9000"),
        (UDP4_OPTIONS, "udp 10.9.0.1:5000 > 10.9.0.2:9001"),
        (FRAGMENT4_FIRST, "udp 10.9.0.1:5000 > 10.9.0.2:9002"),
        (FRAGMENT4_LATER, "udp 10.9.0.1 > 10.9.0.2 (later fragment)"),
        (HOP_BY_HOP6, "udp [fd09::1]:5000 > [fd09::2]:9001"),
        (FRAGMENT6_FIRST, "udp [fd09::1]:5000 > [fd09::2]:9002"),
        (FRAGMENT6_LATER, "udp fd09::1 > fd09::2 (later fragment)"),
        (SYN4, "tcp 10.9.0.1:39042 > 10.9.0.2:80 [S]"),
        (RST4, "tcp 10.9.0.2:80 > 10.9.0.1:39042 [R.]"),
        (SYN6, "tcp [fd09::1]:36876 > [fd09::2]:80 [S]"),
        (
            PORT_UNREACHABLE4,
            "icmp 10.9.0.2 > 10.9.0.1 unreachable/port (3/3) for udp 10.9.0.1:5000 > 10.9.0.2:9000",
        ),
        (
            PORT_UNREACHABLE4_OPTIONS,
            "icmp 10.9.0.2 > 10.9.0.1 unreachable/port (3/3) for udp 10.9.0.1:5000 > 10.9.0.2:9001",
        ),
        (
            PORT_UNREACHABLE6,
            "icmp6 fd09::2 > fd09::1 unreachable/port (1/4) for udp [fd09::1]:5000 > [fd09::2]:9000",
        ),
    ] {
        assert_eq!(text(&ethernet(frame)), line);
        // The same without a MAC header, and with nothing but one.
        assert_eq!(
            text(&record(&bytes(frame)[14..], 0, 0)),
            if line.starts_with("arp") { "unreadable packet" } else { line }
        );
        assert_eq!(text(&record(&bytes(frame), HAVE_MAC, NO_OFFSET)), line);
    }
}

#[test]
fn json_has_the_published_shape() {
    let to_json = |event: &DropEvent| serde_json::to_value(Packet::from_event(event)).unwrap();
    assert_eq!(
        to_json(&ethernet(PORT_UNREACHABLE4)),
        json!({
            "family": "ipv4", "proto": "icmp", "src": "10.9.0.2", "sport": null, "dst": "10.9.0.1", "dport": null,
            "len": 61, "segments": 1, "tcp_flags": null, "icmp": {"type": 3, "code": 3},
            "inner": {"family": "ipv4", "proto": "udp", "src": "10.9.0.1", "sport": 5000, "dst": "10.9.0.2", "dport": 9000},
        })
    );
    assert_eq!(
        to_json(&ethernet(SYN6)),
        json!({
            "family": "ipv6", "proto": "tcp", "src": "fd09::1", "sport": 36876, "dst": "fd09::2", "dport": 80,
            "len": 80, "segments": 1, "tcp_flags": "S", "icmp": null, "inner": null,
        })
    );
    assert_eq!(
        to_json(&ethernet(ARP_REQUEST)),
        json!({
            "family": "arp", "proto": "arp", "src": "10.9.0.1", "sport": null, "dst": "10.9.0.2", "dport": null,
            "len": 28, "segments": 1, "tcp_flags": null, "icmp": null, "inner": null,
        })
    );
    let lldp = record(&bytes("0180c200000e8a0e61b8a78388cc02070400"), HAVE_MAC, 14);
    assert_eq!(to_json(&lldp)["family"], "0x88cc");
    assert_eq!(to_json(&lldp)["proto"], json!(null));
    assert_eq!(serde_json::to_value(Protocol::Ip(99)).unwrap(), "99");
}

#[test]
fn what_the_kernel_side_read_counts() {
    let mut event = ethernet(UDP4);
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[192, 0, 2, 1]);
    event.tuple = Tuple {
        saddr: address,
        ethertype: 0x0800,
        sport: 1,
        dport: 2,
        proto: 6,
        tcp_flags: 0x18,
        have: TUPLE_ADDRESSES | TUPLE_PORTS | TUPLE_TCP,
        ..Tuple::default()
    };
    assert_eq!(text(&event), "tcp 192.0.2.1:1 > 0.0.0.0:2 [P.]");
    // Headers that it read beyond the captured bytes.
    event.caplen = 0;
    event.l3_offset = NO_OFFSET;
    assert_eq!(text(&event), "tcp 192.0.2.1:1 > 0.0.0.0:2 [P.]");
    event.tuple.proto = 1;
    event.tuple.icmp_type = 8;
    event.tuple.have = TUPLE_ADDRESSES | TUPLE_ICMP;
    assert_eq!(text(&event), "icmp 192.0.2.1 > 0.0.0.0 echo-request (8/0)");
    event.tuple.have = TUPLE_ADDRESSES | TUPLE_LATER_FRAGMENT;
    assert_eq!(text(&event), "icmp 192.0.2.1 > 0.0.0.0 (later fragment)");
}

#[test]
fn vlan_tags_are_read_wherever_they_stand() {
    let mut frame = bytes(SYN4);
    // 802.1ad 7 around 802.1Q 100, priority 3.
    frame.splice(12..12, [0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x60, 0x64]);
    let line = "tcp 10.9.0.1:39042 > 10.9.0.2:80 [S] vlan 7 vlan 100";
    assert_eq!(text(&record(&frame, HAVE_MAC, 22)), line);
    assert_eq!(text(&record(&frame, HAVE_MAC, NO_OFFSET)), line);
    // The network header still at the tag, as early on the receive path.
    let mut early = record(&frame, HAVE_MAC, 14);
    early.tuple.ethertype = 0x88a8;
    assert_eq!(text(&early), line);
    // A tag that is cut off hides what it holds.
    assert_eq!(text(&record(&frame[..16], HAVE_MAC, NO_OFFSET)), "unreadable packet");
}

#[test]
fn an_outer_ip_header_is_no_ethernet_header() {
    // A tunnel without link layer: 129.0.0.100, which Ethernet would read as a tag, where the type stands.
    let outer = bytes("4500005040004000400400008100006481000065");
    let frame = [&outer, &bytes(SYN4)[14..]].concat();
    assert_eq!(text(&record(&frame, HAVE_MAC, 20)), "tcp 10.9.0.1:39042 > 10.9.0.2:80 [S]");
}

#[test]
fn the_length_is_the_packets_without_padding() {
    let length = |event: &DropEvent| Packet::from_event(event).len;
    let mut padded = bytes(RST4);
    padded.resize(60, 0);
    assert_eq!(length(&record(&padded, HAVE_MAC, 14)), Some(40));
    let mut arp = bytes(ARP_REQUEST);
    arp.resize(60, 0);
    assert_eq!(length(&record(&arp, HAVE_MAC, 14)), Some(28));
    // A GSO packet: the header's length may be one segment's.
    let mut gso = ethernet(SYN4);
    gso.segments = 45;
    gso.l3_len = 65_160;
    assert_eq!(length(&gso), Some(65_160));
    // A header that says more than there is, or nothing.
    let mut cut = ethernet(SYN4);
    cut.l3_len = 30;
    assert_eq!(length(&cut), Some(30));
    let mut jumbo = ethernet(SYN6);
    (jumbo.bytes[18], jumbo.bytes[19]) = (0, 0);
    jumbo.l3_len = 100_000;
    assert_eq!(length(&jumbo), Some(100_000));
    assert_eq!(length(&record(&bytes(SYN4), HAVE_MAC, NO_OFFSET)), Some(60));
    assert_eq!(length(&record(&[], 0, NO_OFFSET)), None);
}

#[test]
fn tcp_flags_are_spelt_as_tcpdump_does() {
    for (flags, text) in [
        (0x02, "S"),
        (0x12, "S."),
        (0x04, "R"),
        (0x14, "R."),
        (0x11, "F."),
        (0x18, "P."),
        (0x10, "."),
        (0, "none"),
        (0xc2, "SEW"),
        (0x29, "FPU"),
    ] {
        assert_eq!(TcpFlags(flags).to_string(), text);
    }
}

#[test]
fn unknown_things_are_shown_by_number() {
    let mut event = ethernet(UDP4);
    event.bytes[23] = 253;
    assert_eq!(text(&event), "proto 253 10.9.0.1 > 10.9.0.2");
    assert_eq!(text(&record(&bytes("0180c200000e8a0e61b8a78388cc02070400"), HAVE_MAC, 14)), "0x88cc");
    assert_eq!(text(&record(&[], 0, NO_OFFSET)), "unreadable packet");
    let mut icmp = ethernet(PORT_UNREACHABLE4);
    icmp.bytes[34] = 99;
    assert_eq!(text(&icmp), "icmp 10.9.0.2 > 10.9.0.1 (99/3)");
    // An IPv6 header where the ethertype promises IPv4.
    let mut wrong = ethernet(SYN6);
    (wrong.bytes[12], wrong.bytes[13]) = (0x08, 0x00);
    assert_eq!(text(&wrong), "ipv4");
}

/// A field of a cut-off packet is unknown or right, never something else.
#[test]
fn truncation_loses_fields_but_changes_none() {
    fn partial<T: PartialEq + fmt::Debug>(cut: Option<T>, whole: Option<T>, what: &str) {
        assert!(cut.is_none() || cut == whole, "{what}: {cut:?} instead of {whole:?}");
    }
    for frame in ALL {
        let whole = Packet::from_event(&ethernet(frame));
        let frame = bytes(frame);
        for caplen in 0..=frame.len() {
            for l3_offset in [14, NO_OFFSET] {
                let cut = Packet::from_event(&record(&frame[..caplen], HAVE_MAC, l3_offset));
                let what = format!("{caplen} bytes of {whole}");
                partial(cut.family, whole.family, &what);
                partial(cut.proto, whole.proto, &what);
                partial(cut.src, whole.src, &what);
                partial(cut.sport, whole.sport, &what);
                partial(cut.dst, whole.dst, &what);
                partial(cut.dport, whole.dport, &what);
                partial(cut.tcp_flags, whole.tcp_flags, &what);
                partial(cut.icmp, whole.icmp, &what);
                if let (Some(cut), Some(whole)) = (cut.inner, whole.inner) {
                    assert_eq!(
                        (cut.family, cut.src, cut.dst),
                        (whole.family, whole.src, whole.dst),
                        "{what}"
                    );
                    partial(cut.proto, whole.proto, &what);
                    partial(cut.sport, whole.sport, &what);
                    partial(cut.dport, whole.dport, &what);
                } else {
                    partial(cut.inner, whole.inner, &what);
                }
            }
        }
    }
}

/// A chain of extension headers that ends in the middle of one, with the captured bytes.
#[test]
fn a_cut_off_extension_chain_is_not_followed() {
    let mut frame = bytes(HOP_BY_HOP6);
    // The hop-by-hop header leads to a destination options header longer than all that is there.
    frame[54] = 60;
    frame.truncate(62);
    frame.extend([17, 255]);
    assert_eq!(text(&record(&frame, HAVE_MAC, 14)), "ipv6 fd09::1 > fd09::2");
    // A later fragment's data is no header, whatever number stands before it.
    let mut fragment = bytes(FRAGMENT6_LATER);
    fragment[54] = 60;
    assert_eq!(text(&record(&fragment, HAVE_MAC, 14)), "proto 60 fd09::1 > fd09::2 (later fragment)");
}

fn tuples() -> impl Strategy<Value = Tuple> {
    let ethertype = proptest::sample::select(vec![0, 0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc]);
    (any::<[u8; 16]>(), ethertype, any::<u8>(), any::<u8>()).prop_map(|(saddr, ethertype, proto, have)| {
        Tuple { saddr, ethertype, proto, have, ..Tuple::default() }
    })
}

proptest::proptest! {
    #[test]
    fn any_record_is_survived(
        frame in proptest::collection::vec(any::<u8>(), 0..=CAPTURE_LEN),
        tuple in tuples(),
        caplen: u16,
        l3_offset in proptest::prop_oneof![0u16..130, any::<u16>()],
        l3_len: u32,
        segments: u16,
        have: u16,
    ) {
        let event = DropEvent { tuple, caplen, l3_len, segments, ..record(&frame, have, l3_offset) };
        let packet = Packet::from_event(&event);
        let _ = packet.to_string();
        serde_json::to_string(&packet).unwrap();
    }

    #[test]
    fn recorded_frames_with_damage_are_survived(
        frame in proptest::sample::select(ALL.to_vec()),
        damage in proptest::collection::vec((0usize..CAPTURE_LEN, any::<u8>()), 1..6),
        caplen in 0usize..=CAPTURE_LEN,
    ) {
        let mut frame = bytes(frame);
        for (at, value) in damage {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(caplen);
        for (have, l3_offset) in [(HAVE_MAC, 14), (HAVE_MAC, NO_OFFSET), (0, 14)] {
            let packet = Packet::from_event(&record(&frame, have, l3_offset));
            let _ = packet.to_string();
            serde_json::to_string(&packet).unwrap();
        }
    }
}
