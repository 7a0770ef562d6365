//! Packets for a port that nobody listens on.

use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

#[test]
fn closed_udp_port() {
    let Some(lab) = Lab::new("closed-udp", &[]) else { return };
    let pair = lab.pair();
    let tracing = Trace::of(&pair.b).start();

    let socket = pair.a.udp_socket("10.0.0.1:5001");
    send_udp(&socket, "10.0.0.2:4242", 5, 100);
    wait::until_counter("UdpNoPorts", 5, || pair.b.mib("UdpNoPorts"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "port-closed",
        class: "suspect",
        netns: &pair.b,
        count: pair.b.mib("UdpNoPorts"),
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5001,
            "dst": "10.0.0.2", "dport": 4242, "len": 128, "segments": 1,
            "tcp_flags": null, "icmp": null, "inner": null}),
    });
    assert_eq!(event["direction"], "in");
    assert_eq!(event["interface"]["name"], "eth0");
}
