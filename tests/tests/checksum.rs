//! Packets that were damaged on their way.

use netdrop_tests::frame::{Hop, spoil_ipv4_checksum, spoil_tcp_checksum, spoil_udp_checksum};
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::{Value, json};

/// Sends a damaged frame seven times, waits for `counter` and expects the drops to be named.
fn expect_checksum_drops(name: &str, counter: &str, frame: impl Fn(&Hop) -> Vec<u8>, packet: Value) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let pair = lab.pair();
    let frame = frame(&Hop::between(pair.a_end, pair.b_end));
    let tracing = Trace::of(&pair.b).start();

    pair.a.send_frames("eth0", [&frame; 7]);
    wait::until_counter(counter, 7, || pair.b.mib(counter));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "checksum-error",
        class: "harmful",
        netns: &pair.b,
        count: 7,
        packet,
    });
    assert_eq!(event["interface"]["name"], "eth0");
}

#[test]
fn ipv4_header() {
    let damaged = |hop: &Hop| {
        let mut frame = hop.udp(64, 5300, 5301, &[0; 64]);
        spoil_ipv4_checksum(&mut frame);
        frame
    };
    let packet = json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5300,
        "dst": "10.0.0.2", "dport": 5301, "len": 92});
    expect_checksum_drops("csum-ip", "IpExtInCsumErrors", damaged, packet);
}

#[test]
fn udp() {
    let damaged = |hop: &Hop| {
        let mut frame = hop.udp(64, 5302, 5303, &[0; 64]);
        spoil_udp_checksum(&mut frame);
        frame
    };
    let packet = json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5302,
        "dst": "10.0.0.2", "dport": 5303, "len": 92});
    expect_checksum_drops("csum-udp", "UdpInCsumErrors", damaged, packet);
}

#[test]
fn tcp() {
    let damaged = |hop: &Hop| {
        let mut frame = hop.syn(5304, 5305);
        spoil_tcp_checksum(&mut frame);
        frame
    };
    let packet = json!({"family": "ipv4", "proto": "tcp", "src": "10.0.0.1", "sport": 5304,
        "dst": "10.0.0.2", "dport": 5305, "tcp_flags": "S", "len": 40});
    expect_checksum_drops("csum-tcp", "TcpInCsumErrors", damaged, packet);
}
