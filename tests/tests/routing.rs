//! Packets that a router cannot or will not pass on.

use netdrop_tests::frame::Hop;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

#[test]
fn ttl_expired() {
    let Some(lab) = Lab::new("ttl", &[]) else { return };
    let routed = lab.routed();
    let tracing = Trace::of(&routed.r).start();

    let socket = routed.a.udp_socket("10.1.0.2:5202");
    socket.set_ttl(1).expect("set the TTL");
    send_udp(&socket, "10.2.0.2:5203", 6, 64);
    wait::until_counter("IpInHdrErrors", 6, || routed.r.mib("IpInHdrErrors"));

    tracing.stop().expect(&Dropped {
        cause: "ttl-expired",
        class: "suspect",
        netns: &routed.r,
        count: 6,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.1.0.2", "sport": 5202,
            "dst": "10.2.0.2", "dport": 5203, "len": 92}),
    });
}

#[test]
fn reverse_path_filter() {
    let Some(lab) = Lab::new("rp-filter", &[]) else { return };
    let routed = lab.routed();
    routed.r.sysctl("net/ipv4/conf/left/rp_filter", "1");
    let tracing = Trace::of(&routed.r).start();

    // An address of the right side comes in from the left.
    let stray = Hop::between(routed.a_end, routed.left).with_src("10.2.0.99").with_dst("10.2.0.2");
    let frame = stray.udp(64, 5204, 5205, &[0; 64]);
    routed.a.send_frames("eth0", [&frame; 6]);
    wait::until_counter("rp_filter's counter", 6, || routed.r.mib("TcpExtIPReversePathFilter"));

    tracing.stop().expect(&Dropped {
        cause: "reverse-path-filter",
        class: "harmful",
        netns: &routed.r,
        count: 6,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.2.0.99", "sport": 5204,
            "dst": "10.2.0.2", "dport": 5205, "len": 92}),
    });
}
