//! Packets that were damaged on their way.

use netdrop_tests::damage::{ICMP_CHECKSUM, IPV4_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, with_wrong_checksum};
use netdrop_tests::frame::Hop;
use netdrop_tests::{Dropped, Family, Lab, Trace, wait};
use serde_json::{Value, json};

/// Sends a frame seven times whose checksum at `offset` is wrong, waits for `counter` and expects the drops
/// to be named.
#[track_caller]
fn damaged(
    name: &str,
    family: Family,
    counter: &str,
    frame: impl Fn(&Hop) -> Vec<u8>,
    offset: usize,
    mut packet: Value,
) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let pair = lab.pair_of(family);
    let frame = with_wrong_checksum(frame(&Hop::between(pair.a_end, pair.b_end)), offset);
    let tracing = Trace::of(&pair.b).start();

    pair.a.send_frames("eth0", [&frame; 7]);
    wait::until_counter(counter, 7, || pair.b.mib(counter));

    let outcome = tracing.stop();
    packet["family"] = family.name().into();
    packet["src"] = pair.a_end.ip.to_string().into();
    packet["dst"] = pair.b_end.ip.to_string().into();
    let event = outcome.expect(&Dropped {
        cause: "checksum-error",
        class: "harmful",
        netns: &pair.b,
        count: 7,
        packet,
    });
    assert_eq!(event["interface"]["name"], "eth0");
    assert_eq!(outcome.number("shown"), 7, "other drops");
}

#[test]
fn ipv4_header() {
    let frame = |hop: &Hop| hop.udp(64, 5300, 5301, &[0; 64]);
    let packet = json!({"proto": "udp", "sport": 5300, "dport": 5301, "len": 92});
    damaged("csum-ip", Family::Ipv4, "IpExtInCsumErrors", frame, IPV4_CHECKSUM, packet);
}

#[test]
fn udp() {
    for (name, family, counter) in
        [("csum-udp", Family::Ipv4, "UdpInCsumErrors"), ("csum-udp6", Family::Ipv6, "Udp6InCsumErrors")]
    {
        let frame = |hop: &Hop| hop.udp(64, 5302, 5303, &[0; 64]);
        let ip = family.header_len();
        let packet = json!({"proto": "udp", "sport": 5302, "dport": 5303, "len": ip + 8 + 64});
        damaged(name, family, counter, frame, ip + UDP_CHECKSUM, packet);
    }
}

#[test]
fn tcp() {
    // One counter for both families.
    for (name, family) in [("csum-tcp", Family::Ipv4), ("csum-tcp6", Family::Ipv6)] {
        let frame = |hop: &Hop| hop.syn(5304, 5305);
        let ip = family.header_len();
        let packet = json!({"proto": "tcp", "sport": 5304, "dport": 5305, "tcp_flags": "S", "len": ip + 20});
        damaged(name, family, "TcpInCsumErrors", frame, ip + TCP_CHECKSUM, packet);
    }
}

#[test]
fn icmp() {
    for (name, family, counter) in
        [("csum-icmp", Family::Ipv4, "IcmpInCsumErrors"), ("csum-icmp6", Family::Ipv6, "Icmp6InCsumErrors")]
    {
        let echo = |hop: &Hop| {
            let mut frame = Vec::new();
            let written = match family {
                Family::Ipv4 => hop.ip(64).icmpv4_echo_request(7, 1).write(&mut frame, &[0; 56]),
                Family::Ipv6 => hop.ip(64).icmpv6_echo_request(7, 1).write(&mut frame, &[0; 56]),
            };
            written.expect("a message fits a vector");
            frame
        };
        let ip = family.header_len();
        let packet = json!({"proto": family.pick("icmp", "icmp6"), "len": ip + 8 + 56});
        damaged(name, family, counter, echo, ip + ICMP_CHECKSUM, packet);
    }
}
