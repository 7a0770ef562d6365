//! Packets for a port that nobody listens on.

use netdrop_tests::link::Pair;
use netdrop_tests::reason::expect_certain;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

#[test]
fn closed_udp_port() {
    let Some(lab) = Lab::new("closed-udp", &[]) else { return };
    let pair = lab.pair();
    let tracing = Trace::of(&pair.b).start();

    let socket = pair.a.udp_socket("10.0.0.1:5001");
    let before = jiff::Timestamp::now();
    send_udp(&socket, "10.0.0.2:4242", 5, 100);
    wait::until_counter("UdpNoPorts", 5, || pair.b.mib("UdpNoPorts"));
    let after = jiff::Timestamp::now();

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "port-closed",
        class: "suspect",
        netns: &pair.b,
        count: 5,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5001,
            "dst": "10.0.0.2", "dport": 4242, "len": 128, "segments": 1,
            "tcp_flags": null, "icmp": null, "inner": null}),
    });
    assert_eq!(event["direction"], "in");
    assert_eq!(event["interface"]["name"], "eth0");
    expect_certain(event);
    // Kernel time is monotonic and was turned into wall-clock time.
    let time: jiff::Timestamp =
        event["time"].as_str().expect("time is a string").parse().expect("the contract check has parsed it");
    assert!(before <= time && time <= after, "{time} is not between {before} and {after}");
}

#[test]
fn closed_udp_port_over_ipv6() {
    let Some(lab) = Lab::new("closed-udp6", &[]) else { return };
    let pair = lab.pair_with_ipv6();
    let tracing = Trace::of(&pair.b).start();

    let socket = pair.a.udp_socket("[fd00::1]:5002");
    send_udp(&socket, "[fd00::2]:4242", 4, 100);
    wait::until_counter("Udp6NoPorts", 4, || pair.b.mib("Udp6NoPorts"));

    tracing.stop().expect(&Dropped {
        cause: "port-closed",
        class: "suspect",
        netns: &pair.b,
        count: 4,
        packet: json!({"family": "ipv6", "proto": "udp", "src": "fd00::1", "sport": 5002,
            "dst": "fd00::2", "dport": 4242, "len": 148}),
    });
}

#[test]
fn closed_tcp_port() {
    let Some(lab) = Lab::new("closed-tcp", &[]) else { return };
    refused_connections(&lab.pair(), "10.0.0.2", "ipv4");
}

#[test]
fn closed_tcp_port_over_ipv6() {
    let Some(lab) = Lab::new("closed-tcp6", &[]) else { return };
    refused_connections(&lab.pair_with_ipv6(), "[fd00::2]", "ipv6");
}

/// Connects three times from `a` to a closed port of `b` and expects three named drops.
fn refused_connections(pair: &Pair, host: &str, family: &str) {
    let tracing = Trace::of(&pair.b).start();

    for _ in 0..3 {
        pair.a.connect_refused(&format!("{host}:4343"));
    }
    // Nothing else in this namespace answers with a reset.
    wait::until_counter("TcpOutRsts", 3, || pair.b.mib("TcpOutRsts"));

    tracing.stop().expect(&Dropped {
        cause: "port-closed",
        class: "suspect",
        netns: &pair.b,
        count: 3,
        packet: json!({"family": family, "proto": "tcp", "dst": pair.b_end.ip.to_string(),
            "src": pair.a_end.ip.to_string(), "dport": 4343, "tcp_flags": "S"}),
    });
}
