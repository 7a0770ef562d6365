//! Packets with unusual headers, and what an event tells of them.

use std::io::Write;
use std::os::unix::net::UnixStream;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, UdpHeader, VlanId,
};
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, lab, wait};
use serde_json::{Value, json};

/// Sends a frame three times to a host that drops it as early as a firewall can; returns the first event.
#[track_caller]
fn drop_early(pair: &Pair, frame: &Vec<u8>, packet: Value) -> Value {
    let family = if pair.a_end.ip.is_ipv4() { "ip" } else { "ip6" };
    pair.b.nft_drop("prerouting", &format!("{family} saddr {}", pair.a_end.ip));
    let tracing = Trace::of(&pair.b).start();
    pair.a.send_frames("eth0", [frame; 3]);
    wait::until_counter("the rule's counter", 3, || pair.b.nft_packets("prerouting"));
    let outcome = tracing.stop();
    let dropped = Dropped { cause: "netfilter-rule", class: "harmful", netns: &pair.b, count: 3, packet };
    outcome.expect(&dropped).clone()
}

/// A UDP datagram from port 5800 to 5801 behind `ip`.
fn udp_behind(hop: &Hop, ip: IpHeaders) -> Vec<u8> {
    let mut frame = Vec::new();
    hop.ethernet().ip(ip).udp(5800, 5801).write(&mut frame, &[0; 32]).expect("a datagram fits a vector");
    frame
}

#[test]
fn ipv4_options() {
    let Some(lab) = Lab::new("options", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let mut header =
        Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).expect("an empty payload fits");
    // Seven no-operations and the end of the list: the transport header starts 8 bytes later.
    header.options = Ipv4Options::from([1, 1, 1, 1, 1, 1, 1, 0]);
    let frame = udp_behind(&hop, IpHeaders::Ipv4(header, Default::default()));
    let packet = json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5800,
        "dst": "10.0.0.2", "dport": 5801, "len": 28 + 8 + 32});
    drop_early(&pair, &frame, packet);
}

#[test]
fn first_ipv4_fragment_has_ports_and_a_later_one_has_none() {
    for (offset, ports) in [(0, true), (64, false)] {
        let Some(lab) = Lab::new("fragment", &["nft"]) else { return };
        let pair = lab.pair();
        let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2])
            .expect("an empty payload fits");
        header.more_fragments = true;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("a 13-bit offset");
        let frame =
            udp_behind(&Hop::between(pair.a_end, pair.b_end), IpHeaders::Ipv4(header, Default::default()));
        let (sport, dport) = if ports { (json!(5800), json!(5801)) } else { (Value::Null, Value::Null) };
        let packet = json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": sport,
            "dst": "10.0.0.2", "dport": dport});
        drop_early(&pair, &frame, packet);
    }
}

#[test]
fn ipv6_extension_headers() {
    let Some(lab) = Lab::new("extensions", &["nft"]) else { return };
    let pair = lab.pair_with_ipv6();
    let hop = Hop::between(pair.a_end, pair.b_end);
    // PadN over the whole of each header; next-header fields are filled in when the packet is written.
    let padding = |next| Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0]).expect("six bytes of options");
    let extensions = Ipv6Extensions {
        hop_by_hop_options: Some(padding(IpNumber::IPV6_DESTINATION_OPTIONS)),
        destination_options: Some(padding(IpNumber::IPV6_FRAGMENTATION_HEADER)),
        // An atomic fragment: a whole packet with a fragment header.
        fragment: Some(Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::ZERO, false, 7)),
        ..Default::default()
    };
    let header = Ipv6Header {
        next_header: IpNumber::IPV6_HEADER_HOP_BY_HOP,
        hop_limit: 64,
        source: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        destination: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        ..Default::default()
    };
    let frame = udp_behind(&hop, IpHeaders::Ipv6(header, extensions));
    let packet = json!({"family": "ipv6", "proto": "udp", "src": "fd00::1", "sport": 5800,
        "dst": "fd00::2", "dport": 5801, "len": 40 + 24 + 8 + 32});
    drop_early(&pair, &frame, packet);
}

#[test]
fn tcp_flags_as_tcpdump_spells_them() {
    let Some(lab) = Lab::new("tcp-flags", &["nft"]) else { return };
    let pair = lab.pair();
    let mut frame = Vec::new();
    Hop::between(pair.a_end, pair.b_end)
        .ip(64)
        .tcp(5800, 5801, 1, 1000)
        .psh()
        .fin()
        .ack(1)
        .write(&mut frame, b"end")
        .expect("a segment fits a vector");
    let packet = json!({"proto": "tcp", "sport": 5800, "dport": 5801, "tcp_flags": "FP.", "len": 43});
    drop_early(&pair, &frame, packet);
}

#[test]
fn vlan_tag_of_no_device() {
    let Some(lab) = Lab::new("vlan", &[]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let mut frame = Vec::new();
    hop.ethernet()
        .single_vlan(VlanId::try_new(77).expect("a 12-bit id"))
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5800, 5801)
        .write(&mut frame, &[0; 32])
        .expect("a datagram fits a vector");
    let tracing = Trace::of(&pair.b).args(&["--all"]).start();
    pair.a.send_frames("eth0", [&frame; 3]);
    // No device has this VLAN: the stack takes the frame for somebody else's.
    let events = tracing.await_events("the tagged frames", 3, |event| event["packet"]["sport"] == 5800);
    tracing.stop();
    for event in events {
        assert_eq!(event["cause"]["id"], "not-for-this-host", "{event}");
        assert_eq!(event["packet"]["family"], "ipv4", "{event}");
        assert_eq!(event["packet"]["dst"], "10.0.0.2", "{event}");
        assert_eq!(event["packet"]["dport"], 5801, "{event}");
        assert_eq!(event["packet"]["len"], 60, "{event}");
    }
}

#[test]
fn arp() {
    let Some(lab) = Lab::new("arp", &["nft"]) else { return };
    let pair = lab.pair();
    let script = "table arp ndt {
        chain input {
            type filter hook input priority 0;
            arp operation request counter drop
        }
    }";
    if let Err(refused) = pair.b.try_nft(script) {
        return lab::skip_for_kernel("arp", "nft arp family", &refused);
    }
    let question = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: pair.a_end.mac,
        sender_ipv4: [10, 0, 0, 1],
        target_mac: [0; 6],
        target_ipv4: [10, 0, 0, 2],
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(pair.a_end.mac, [0xff; 6])
        .arp(question.into())
        .write(&mut frame)
        .expect("a question fits a vector");
    let tracing = Trace::of(&pair.b).start();
    pair.a.send_frames("eth0", [&frame; 3]);
    let is_arp = |event: &Value| event["packet"]["proto"] == "arp";
    let event = tracing.await_events("the questions", 3, is_arp).remove(0);
    let outcome = tracing.stop();
    assert_eq!(outcome.cause_count("netfilter-rule"), 3);
    assert_eq!(event["packet"]["src"], "10.0.0.1", "{event}");
    assert_eq!(event["packet"]["dst"], "10.0.0.2", "{event}");
    assert_eq!(event["packet"]["sport"], Value::Null, "{event}");
}

#[test]
fn icmp_error_and_the_packet_inside() {
    for args in [&[][..], &["--port", "5802"], &["--dst-port", "5803"], &["--proto", "icmp"]] {
        let Some(lab) = Lab::new("icmp-inner", &["nft"]) else { return };
        let pair = lab.pair();
        pair.a.nft_drop("input", "icmp type destination-unreachable");
        let tracing = Trace::of(&pair.a).args(args).start();
        let socket = pair.a.udp_socket("10.0.0.1:5802");
        send_udp(&socket, "10.0.0.2:5803", 2, 16);
        wait::until_counter("the rule's counter", 2, || pair.a.nft_packets("input"));
        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "netfilter-rule",
            class: "harmful",
            netns: &pair.a,
            count: 2,
            packet: json!({"family": "ipv4", "proto": "icmp", "src": "10.0.0.2", "dst": "10.0.0.1",
                "sport": null, "dport": null, "tcp_flags": null}),
        });
        assert_eq!(event["packet"]["icmp"], json!({"type": 3, "code": 3}), "{event}");
        let inner = &event["packet"]["inner"];
        for (field, value) in [
            ("proto", json!("udp")),
            ("src", json!("10.0.0.1")),
            ("sport", json!(5802)),
            ("dst", json!("10.0.0.2")),
            ("dport", json!(5803)),
        ] {
            assert_eq!(inner[field], value, "inner.{field} in {event}");
        }
    }
}

#[test]
fn an_icmp_error_about_another_port_is_filtered() {
    let Some(lab) = Lab::new("icmp-other", &["nft"]) else { return };
    let pair = lab.pair();
    pair.a.nft_drop("input", "icmp type destination-unreachable");
    let tracing = Trace::of(&pair.a).args(&["--port", "5899"]).start();
    let socket = pair.a.udp_socket("10.0.0.1:5802");
    send_udp(&socket, "10.0.0.2:5803", 2, 16);
    wait::until_counter("the rule's counter", 2, || pair.a.nft_packets("input"));
    let outcome = tracing.stop();
    assert_eq!(outcome.number("seen"), 0);
    assert!(outcome.number("filtered") + outcome.number("missed") >= 2);
}

#[test]
fn a_header_cut_off_is_shown_with_what_is_there() {
    let Some(lab) = Lab::new("cut-off", &[]) else { return };
    let pair = lab.pair();
    // An IPv4 header that promises 60 bytes of header and has 20.
    let mut frame = Hop::between(pair.a_end, pair.b_end).udp(64, 5800, 5801, &[]);
    frame.truncate(14 + IPV4_HEADER + UdpHeader::LEN);
    frame[14] = 0x4f;
    let tracing = Trace::of(&pair.b).start();
    pair.a.send_frames("eth0", [&frame; 3]);
    wait::until_counter("IpInHdrErrors", 3, || pair.b.mib("IpInHdrErrors"));
    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "malformed-header",
        class: "suspect",
        netns: &pair.b,
        count: 3,
        packet: json!({"sport": null, "dport": null, "tcp_flags": null}),
    });
}

/// Bytes of an IPv4 header without options.
const IPV4_HEADER: usize = 20;

#[test]
fn unread_data_of_a_unix_socket_is_no_packet() {
    let Some(lab) = Lab::new("unix", &[]) else { return };
    let netns = lab.netns("only");
    let tracing = Trace::of(&netns).args(&["--all"]).start();
    let filtering = Trace::of(&netns).args(&["--port", "9"]).start();
    // The first two begin as IPv4 and IPv6 do; text must not be taken for addresses either.
    let payloads = [[0x45; 60].as_slice(), &[0x60; 60], b"hello world", b"@@@@", &[b'@'; 80]];
    netns.enter(|| {
        for payload in payloads {
            let (mut writer, reader) = UnixStream::pair().expect("a pair of sockets");
            writer.write_all(payload).expect("write to a socket");
            drop((reader, writer));
        }
    });
    let freed = |event: &Value| event["location"]["symbol"] == "unix_release_sock";
    for event in tracing.await_events("the unread data", payloads.len(), freed) {
        for field in ["family", "proto", "src", "sport", "dst", "dport", "icmp", "tcp_flags", "inner"] {
            assert_eq!(event["packet"][field], Value::Null, "{field} in {event}");
        }
        assert_eq!(event["direction"], Value::Null, "{event}");
    }
    tracing.stop();
    let outcome = filtering.stop();
    assert_eq!(outcome.number("seen"), 0);
    assert_eq!(outcome.number("undecidable"), 0);
    let refused = outcome.number("filtered") + outcome.number("missed");
    assert!(refused >= payloads.len() as u64, "{refused} filtered or missed");
}

/// Sends a frame three times to a host that drops it early, to a trace that shows it and to one under
/// `--port 9`, which must not be able to tell; returns the first event of the former.
#[track_caller]
fn undecidable_under_a_port_filter(pair: &Pair, frame: &Vec<u8>) -> Value {
    let family = if pair.a_end.ip.is_ipv4() { "ip" } else { "ip6" };
    pair.b.nft_drop("prerouting", &format!("{family} saddr {}", pair.a_end.ip));
    let tracing = Trace::of(&pair.b).start();
    let filtering = Trace::of(&pair.b).args(&["--port", "9"]).start();
    pair.a.send_frames("eth0", [frame; 3]);
    wait::until_counter("the rule's counter", 3, || pair.b.nft_packets("prerouting"));
    let outcome = filtering.stop();
    assert_eq!(outcome.number("seen"), 0);
    let undecidable = outcome.number("undecidable") + outcome.number("missed");
    assert!(undecidable >= 3, "{undecidable} undecidable or missed");
    let outcome = tracing.stop();
    let dropped = Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &pair.b,
        count: 3,
        packet: json!({"src": pair.a_end.ip.to_string(), "dst": pair.b_end.ip.to_string()}),
    };
    outcome.expect(&dropped).clone()
}

/// An IPv6 packet whose first header is destination options, with these bytes behind the IPv6 header.
fn destination_options(pair: &Pair, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber::IPV6_DESTINATION_OPTIONS,
        hop_limit: 64,
        source: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        destination: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        ..Default::default()
    };
    [&pair.b_end.mac[..], &pair.a_end.mac, &[0x86, 0xdd], &header.to_bytes(), payload].concat()
}

#[test]
fn too_long_a_chain_of_ipv6_extension_headers_is_undecidable() {
    for chain in [9, 12] {
        let Some(lab) = Lab::new("chain", &["nft"]) else { return };
        let pair = lab.pair_with_ipv6();
        // Each header is PadN and names the next one: destination options (60), at last UDP (17).
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(chain);
        payload[(chain - 1) * 8] = 17;
        payload.extend(UdpHeader::without_ipv4_checksum(5800, 5801, 0).expect("no payload").to_bytes());
        let event = undecidable_under_a_port_filter(&pair, &destination_options(&pair, &payload));
        // The second look at the headers may have gone further than the first.
        let proto = &event["packet"]["proto"];
        assert!(proto.is_null() || proto == "udp", "{event}");
    }
}

#[test]
fn a_cut_off_chain_of_ipv6_extension_headers_is_undecidable() {
    for payload in [&[][..], &[60, 0], &[17, 0, 1, 4, 0, 0, 0, 0][..], &[60, 0, 1, 4, 0, 0, 0, 0, 17]] {
        let Some(lab) = Lab::new("cut-chain", &["nft"]) else { return };
        let pair = lab.pair_with_ipv6();
        let event = undecidable_under_a_port_filter(&pair, &destination_options(&pair, payload));
        // A whole header that names UDP, of which nothing follows.
        let whole = payload.first() == Some(&17);
        assert_eq!(event["packet"]["proto"], if whole { json!("udp") } else { Value::Null }, "{event}");
        assert_eq!(event["packet"]["sport"], Value::Null, "{event}");
    }
}

#[test]
fn icmp_that_cannot_be_read_is_undecidable_under_a_port_filter() {
    for (offset, len) in [(100, 8), (0, 1)] {
        let Some(lab) = Lab::new("short-icmp", &["nft"]) else { return };
        let pair = lab.pair();
        let mut header = Ipv4Header::new(len, 64, IpNumber::ICMP, [10, 0, 0, 1], [10, 0, 0, 2])
            .expect("a few bytes fit a packet");
        header.fragment_offset = IpFragOffset::try_new(offset).expect("a 13-bit offset");
        let mut frame = Vec::new();
        Hop::between(pair.a_end, pair.b_end)
            .ethernet()
            .ip(IpHeaders::Ipv4(header, Default::default()))
            .write(&mut frame, IpNumber::ICMP, &[3; 8][..len.into()])
            .expect("a packet fits a vector");
        let event = undecidable_under_a_port_filter(&pair, &frame);
        assert_eq!(event["packet"]["proto"], "icmp", "{event}");
        assert_eq!(event["packet"]["icmp"], Value::Null, "{event}");
    }
}
