//! Packets that a router cannot or will not pass on.

use netdrop_tests::frame::Hop;
use netdrop_tests::reason::expect_certain;
use netdrop_tests::{Dropped, Family, Lab, Trace, wait};
use serde_json::json;

#[test]
fn ttl_expired() {
    for (name, family, counter) in
        [("ttl", Family::Ipv4, "IpInHdrErrors"), ("ttl6", Family::Ipv6, "Ip6InHdrErrors")]
    {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let routed = lab.routed_of(family);
        let tracing = Trace::of(&routed.r).start();

        let mut hop = Hop::between(routed.a_end, routed.left);
        hop.dst = routed.b_end.ip;
        routed.a.send_frames("eth0", [&hop.udp(1, 5202, 5203, &[0; 64]); 6]);
        wait::until_counter(counter, 6, || routed.r.mib(counter));

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "ttl-expired",
            class: "suspect",
            netns: &routed.r,
            count: 6,
            packet: json!({"family": family.name(), "proto": "udp", "src": routed.a_end.ip.to_string(),
                "sport": 5202, "dst": routed.b_end.ip.to_string(), "dport": 5203,
                "len": family.header_len() + 8 + 64}),
        });
        expect_certain(event);
    }
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
