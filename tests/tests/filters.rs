//! Filters: each is judged in the kernel, so that a flood it refuses never reaches the ring.

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder};
use netdrop_tests::damage::{IPV4_LEN, UDP_CHECKSUM, with_wrong_checksum};
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_stated, lacks_all};
use netdrop_tests::{Lab, Netns, Outcome, Trace, Tracing, wait};
use rustix::process::Signal;

/// Packets that a filter must refuse. The smallest ring holds far fewer records.
const FLOOD: usize = 500;

/// A ring of one page.
const TINY_RING: [&str; 2] = ["--buffer-size", "4"];

/// Runs `send` while netdrop is stopped, so that whatever reaches the ring stays in it.
fn while_paused(tracing: &Tracing, send: impl FnOnce()) {
    tracing.signal(Signal::STOP);
    send();
    tracing.signal(Signal::CONT);
}

/// Requires that of a flood and `wanted` packets only these were seen, and that none was lost.
#[track_caller]
fn expect_only(outcome: &Outcome, wanted: usize) {
    outcome.expect_count("seen", outcome.number("seen"), wanted as u64);
    outcome.expect_count("shown", outcome.number("shown"), wanted as u64);
    assert_eq!(outcome.number("lost"), 0, "the flood reached the ring");
    // Other tests' drops may be filtered at the same time.
    let refused = outcome.number("filtered") + outcome.number("missed");
    assert!(refused >= FLOOD as u64, "{refused} filtered or missed");
}

/// Sends 500 times a frame that `args` refuse, then the `wanted` ones, to a host that drops everything.
#[track_caller]
fn flood_through(pair: &Pair, args: &[&str], unwanted: &Vec<u8>, wanted: &[Vec<u8>]) -> Outcome {
    pair.b.nft_drop("input", "meta l4proto { tcp, udp, icmp }");
    let tracing = Trace::of(&pair.b).args(&TINY_RING).args(args).start();
    while_paused(&tracing, || {
        pair.a.send_frames("eth0", std::iter::repeat_n(unwanted, FLOOD).chain(wanted));
        let sent = (FLOOD + wanted.len()) as u64;
        wait::until_counter("the rule's counter", sent, || pair.b.nft_packets("input"));
    });
    let outcome = tracing.stop();
    expect_only(&outcome, wanted.len());
    outcome
}

/// The values of one packet field, in the order of the events.
fn packet_field(outcome: &Outcome, field: &str) -> Vec<serde_json::Value> {
    outcome.events.iter().map(|event| event["packet"][field].clone()).collect()
}

#[test]
fn port() {
    let Some(lab) = Lab::new("filter-port", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let wanted = [(7001, 1), (1, 7001), (7105, 1), (1, 7100), (7110, 1)];
    let wanted = wanted.map(|(sport, dport)| hop.udp(64, sport, dport, &[]));
    let unwanted = hop.udp(64, 7111, 7002, &[]);
    let outcome = flood_through(&pair, &["--port", "7001,7100-7110"], &unwanted, &wanted);
    assert_eq!(packet_field(&outcome, "sport"), [7001, 1, 7105, 1, 7110]);
    assert_eq!(packet_field(&outcome, "dport"), [1, 7001, 1, 7100, 1]);
}

#[test]
fn source_port() {
    let Some(lab) = Lab::new("filter-sport", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let wanted = [hop.udp(64, 7001, 7002, &[]), hop.syn(7001, 7003)];
    let outcome = flood_through(&pair, &["--src-port", "7001"], &hop.udp(64, 7002, 7001, &[]), &wanted);
    assert_eq!(packet_field(&outcome, "dport"), [7002, 7003]);
}

#[test]
fn destination_port() {
    let Some(lab) = Lab::new("filter-dport", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let wanted = [hop.udp(64, 7002, 7001, &[]), hop.syn(7003, 7001)];
    let outcome = flood_through(&pair, &["--dst-port", "7001"], &hop.udp(64, 7001, 7002, &[]), &wanted);
    assert_eq!(packet_field(&outcome, "sport"), [7002, 7003]);
}

#[test]
fn host() {
    let Some(lab) = Lab::new("filter-host", &["nft"]) else { return };
    let pair = lab.pair();
    pair.b.run("ip addr add 10.9.0.2/32 dev lo");
    let hop = Hop::between(pair.a_end, pair.b_end);
    let to_us = hop.with_dst("10.9.0.2");
    let from_far = hop.with_src("10.9.255.1");
    let wanted = [to_us.udp(64, 7001, 1, &[]), from_far.udp(64, 7002, 1, &[])];
    let unwanted = hop.with_src("10.8.255.255").udp(64, 7003, 1, &[]);
    let outcome = flood_through(&pair, &["--host", "10.9.0.0/16"], &unwanted, &wanted);
    assert_eq!(packet_field(&outcome, "sport"), [7001, 7002]);
}

#[test]
fn source_and_destination_host() {
    for (flag, wanted_sport) in [("--src", 7001), ("--dst", 7002)] {
        let Some(lab) = Lab::new(&format!("filter{flag}"), &["nft"]) else { return };
        let pair = lab.pair();
        pair.b.run("ip addr add 10.9.0.2/32 dev lo");
        let hop = Hop::between(pair.a_end, pair.b_end);
        // Each is what the other flag looks for: an address on the wrong side must not match.
        let from = hop.with_src("10.9.0.1").udp(64, 7001, 1, &[]);
        let to = hop.with_dst("10.9.0.2").udp(64, 7002, 1, &[]);
        let (wanted, unwanted) = if flag == "--src" { (from, to) } else { (to, from) };
        let outcome = flood_through(&pair, &[flag, "10.9.0.0/30"], &unwanted, &[wanted]);
        assert_eq!(packet_field(&outcome, "sport"), [wanted_sport]);
    }
}

#[test]
fn protocol() {
    let Some(lab) = Lab::new("filter-proto", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let outcome = flood_through(&pair, &["--proto", "tcp"], &hop.udp(64, 1, 2, &[]), &[hop.syn(7001, 1)]);
    assert_eq!(packet_field(&outcome, "proto"), ["tcp"]);
}

#[test]
fn protocol_by_number() {
    let Some(lab) = Lab::new("filter-proto17", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let outcome = flood_through(&pair, &["--proto", "17"], &hop.syn(1, 2), &[hop.udp(64, 7001, 1, &[])]);
    assert_eq!(packet_field(&outcome, "proto"), ["udp"]);
}

#[test]
fn family() {
    let Some(lab) = Lab::new("filter-family", &["nft"]) else { return };
    let pair = lab.pair_with_ipv6();
    pair.b.run("ip addr add 10.0.0.2/24 dev eth0");
    let six = Hop::between(pair.a_end, pair.b_end);
    let four = six.with_src("10.0.0.1").with_dst("10.0.0.2");
    let wanted = [four.udp(64, 7001, 1, &[])];
    let outcome = flood_through(&pair, &["--family", "ip"], &six.udp(64, 7002, 1, &[]), &wanted);
    assert_eq!(packet_field(&outcome, "family"), ["ipv4"]);
}

#[test]
fn interface() {
    let Some(lab) = Lab::new("filter-interface", &["nft"]) else { return };
    let pair = lab.pair();
    let (a_end, b_end) = lab.wire((&pair.a, "eth1", "10.5.0.1/24"), (&pair.b, "eth1", "10.5.0.2/24"));
    let (near, far) = (Hop::between(pair.a_end, pair.b_end), Hop::between(a_end, b_end));
    pair.b.nft_drop("input", "meta l4proto udp");
    let tracing = Trace::of(&pair.b).args(&TINY_RING).args(&["--interface", "eth1"]).start();
    while_paused(&tracing, || {
        pair.a.send_frames("eth0", std::iter::repeat_n(&near.udp(64, 7002, 1, &[]), FLOOD));
        pair.a.send_frames("eth1", [&far.udp(64, 7001, 1, &[])]);
        wait::until_counter("the rule's counter", FLOOD as u64 + 1, || pair.b.nft_packets("input"));
    });
    let outcome = tracing.stop();
    expect_only(&outcome, 1);
    assert_eq!(outcome.events[0]["interface"]["name"], "eth1");
}

#[test]
fn netns_in_each_spelling() {
    let Some(lab) = Lab::new("filter-netns", &["nft", "sleep"]) else { return };
    let (wanted, other) = (lab.netns("wanted"), lab.netns("other"));
    for netns in [&wanted, &other] {
        netns.nft_drop("input", "udp dport 9");
    }
    let inside = netdrop_tests::binary::Killed::start(&mut wanted.command("sleep 1000"));
    let path = wanted.path().to_string_lossy().into_owned();
    let spellings =
        [wanted.name().to_owned(), wanted.inode().to_string(), path, format!("pid:{}", inside.id())];
    // `ip netns exec` enters the namespace some time after it was started.
    let entered = format!("/proc/{}/ns/net", inside.id());
    wait::until("the process is inside", || {
        use std::os::unix::fs::MetadataExt;
        let inode = std::fs::metadata(&entered).map_err(|error| error.to_string())?.ino();
        if inode == wanted.inode() { Ok(()) } else { Err(format!("it is in {inode}")) }
    });
    for (round, spelling) in (1..).zip(&spellings) {
        let tracing = Trace::everywhere().args(&TINY_RING).args(&["--netns", spelling]).start();
        while_paused(&tracing, || {
            send_to_loopback(&other, FLOOD as u64);
            send_to_loopback(&wanted, 2);
            let counted = || (wanted.nft_packets("input"), other.nft_packets("input"));
            assert_eq!(counted(), (2 * round, FLOOD as u64 * round));
        });
        let outcome = tracing.stop();
        expect_only(&outcome, 2);
        assert_eq!(outcome.netns_count(&wanted), 2, "--netns {spelling}");
    }
}

/// Sends datagrams over `lo`, where they are dropped before the call returns.
fn send_to_loopback(netns: &Netns, count: u64) {
    let socket = netns.udp_socket("127.0.0.1:0");
    netdrop_tests::traffic::send_udp(&socket, "127.0.0.1:9", count, 8);
}

/// Sends 500 datagrams to a closed port and one that is damaged, through a filter that takes only this.
fn only_the_damaged_one(name: &str, args: &[&str]) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let damaged = with_wrong_checksum(hop.udp(64, 7001, 1, &[]), IPV4_LEN + UDP_CHECKSUM);
    let tracing = Trace::of(&pair.b).args(&TINY_RING).args(args).start();
    while_paused(&tracing, || {
        let flood = hop.udp(64, 7002, 1, &[]);
        pair.a.send_frames("eth0", std::iter::repeat_n(&flood, FLOOD).chain([&damaged]));
        wait::until_counter("UdpNoPorts", FLOOD as u64, || pair.b.mib("UdpNoPorts"));
        wait::until_counter("UdpInCsumErrors", 1, || pair.b.mib("UdpInCsumErrors"));
    });
    let outcome = tracing.stop();
    expect_only(&outcome, 1);
    assert_eq!(packet_field(&outcome, "sport"), [7001]);
    expect_stated(&outcome.events[0], "UDP_CSUM");
}

#[test]
fn reason() {
    if lacks_all("filter-reason") {
        return;
    }
    only_the_damaged_one("filter-reason", &["--reason", "UDP_CSUM"]);
}

#[test]
fn reasons_as_a_list() {
    if lacks_all("filter-reasons") {
        return;
    }
    only_the_damaged_one("filter-reasons", &["--reason", "TCP_CSUM,UDP_CSUM"]);
}

#[test]
fn reason_negated() {
    if lacks_all("filter-not-reason") {
        return;
    }
    only_the_damaged_one("filter-not-reason", &["--reason", "!NO_SOCKET"]);
}

#[test]
fn location() {
    let Some(lab) = Lab::new("filter-location", &[]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let tracing = Trace::of(&pair.b).args(&TINY_RING).args(&["--location", "tcp_v4_rcv"]).start();
    while_paused(&tracing, || {
        let flood = hop.udp(64, 7002, 1, &[]);
        pair.a.send_frames("eth0", std::iter::repeat_n(&flood, FLOOD).chain([&hop.syn(7001, 1)]));
        wait::until_counter("UdpNoPorts", FLOOD as u64, || pair.b.mib("UdpNoPorts"));
        wait::until_counter("TcpOutRsts", 1, || pair.b.mib("TcpOutRsts"));
    });
    let outcome = tracing.stop();
    expect_only(&outcome, 1);
    assert_eq!(outcome.events[0]["location"]["symbol"], "tcp_v4_rcv");
}

#[test]
fn cause_is_judged_on_the_key() {
    let Some(lab) = Lab::new("filter-cause", &[]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let damaged = with_wrong_checksum(hop.udp(64, 7001, 1, &[]), IPV4_LEN + UDP_CHECKSUM);
    let tracing = Trace::of(&pair.b).args(&["--cause", "checksum-error"]).start();
    let flood = hop.udp(64, 7002, 1, &[]);
    pair.a.send_frames("eth0", std::iter::repeat_n(&flood, FLOOD).chain([&damaged]));
    wait::until_counter("UdpNoPorts", FLOOD as u64, || pair.b.mib("UdpNoPorts"));
    wait::until_counter("UdpInCsumErrors", 1, || pair.b.mib("UdpInCsumErrors"));
    let outcome = tracing.stop();
    expect_only(&outcome, 1);
    assert_eq!(outcome.cause_count("checksum-error"), 1);
    assert_eq!(outcome.cause_count("port-closed"), 0);
}

#[test]
fn several_filters_must_all_match() {
    let Some(lab) = Lab::new("filter-several", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let wanted = [hop.syn(7001, 7002)];
    // Right port, wrong protocol.
    let unwanted = hop.udp(64, 7001, 7002, &[]);
    flood_through(&pair, &["--port", "7001", "--proto", "tcp", "--src", "10.0.0.1"], &unwanted, &wanted);
}

#[test]
fn later_fragments_are_undecidable_under_a_port_filter() {
    let Some(lab) = Lab::new("undecidable", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    // Before defragmentation, which this namespace has no reason to do that early.
    pair.b.nft_drop("prerouting", "meta protocol ip");
    let mut header = Ipv4Header::new(8, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2])
        .expect("eight bytes fit a packet");
    header.fragment_offset = IpFragOffset::try_new(100).expect("a 13-bit offset");
    header.identification = 77;
    let mut fragment = Vec::new();
    PacketBuilder::ethernet2(hop.macs.0, hop.macs.1)
        .ip(IpHeaders::Ipv4(header, Default::default()))
        .write(&mut fragment, IpNumber::UDP, &[0; 8])
        .expect("a fragment fits a vector");
    let wanted = hop.udp(64, 7001, 1, &[]);
    let tracing = Trace::of(&pair.b).args(&["--port", "7001"]).start();

    pair.a.send_frames("eth0", std::iter::repeat_n(&fragment, 20).chain([&wanted]));
    wait::until_counter("the rule's counter", 21, || pair.b.nft_packets("prerouting"));

    let outcome = tracing.stop();
    outcome.expect_count("seen", outcome.number("seen"), 1);
    let undecidable = outcome.number("undecidable") + outcome.number("missed");
    assert!(undecidable >= 20, "{undecidable} undecidable or missed");
}

#[test]
fn a_protocol_without_ports_is_filtered_under_a_port_filter() {
    let Some(lab) = Lab::new("no-ports", &["nft"]) else { return };
    let pair = lab.pair();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let mut echo = Vec::new();
    hop.ip(64).icmpv4_echo_request(7001, 7001).write(&mut echo, &[]).expect("an echo fits a vector");
    flood_through(&pair, &["--port", "7001"], &echo, &[hop.udp(64, 7001, 1, &[])]);
}
