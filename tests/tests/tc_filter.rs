//! Packets that a tc filter drops, on the way in and on the way out.

use netdrop_tests::frame::Hop;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::tc::Side;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, lab, wait};
use serde_json::json;

/// Packets of each run.
const PACKETS: u64 = 5;

/// Sends frames of IPv4 and of IPv6 through a filter that drops them, and expects reason and direction.
#[track_caller]
fn frames_through(side: Side, reason: &str, direction: &str) {
    for (protocol, family, src, dst) in
        [("ip", "ipv4", "10.0.0.1", "10.0.0.2"), ("ipv6", "ipv6", "fd00::1", "fd00::2")]
    {
        let name = format!("tc-{direction}-{family}");
        let Some(lab) = Lab::new(&name, &["tc"]) else { return };
        // No host here speaks IPv6: the filter sees nothing that the scenario did not send.
        let pair = lab.pair();
        let filtering = if side == Side::Ingress { &pair.b } else { &pair.a };
        if let Err(refused) = filtering.tc_drop("eth0", side, protocol) {
            return lab::skip_for_kernel(&name, "classic BPF filter of tc", &refused);
        }
        let frame =
            Hop::between(pair.a_end, pair.b_end).with_src(src).with_dst(dst).udp(64, 5420, 5421, &[0; 64]);
        let tracing = Trace::of(filtering).start();

        pair.a.send_frames("eth0", [&frame; PACKETS as usize]);
        wait::until_counter("drops of clsact", PACKETS, || filtering.qdisc_drops("eth0"));

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "tc-filter-drop",
            class: "harmful",
            netns: filtering,
            count: PACKETS,
            packet: json!({"family": family, "proto": "udp", "src": src, "sport": 5420, "dst": dst, "dport": 5421}),
        });
        expect_reason(event, reason);
        assert_eq!(event["interface"]["name"], "eth0", "{event}");
        assert_eq!(event["direction"], direction, "{event}");
    }
}

#[test]
fn ingress() {
    frames_through(Side::Ingress, "TC_INGRESS", "in");
}

#[test]
fn egress() {
    frames_through(Side::Egress, "TC_EGRESS", "out");
}

#[test]
fn the_sender_of_what_egress_drops_is_not_told() {
    let Some(lab) = Lab::new("tc-sender", &["tc"]) else { return };
    let pair = lab.pair();
    if let Err(refused) = pair.a.tc_drop("eth0", Side::Egress, "ip") {
        return lab::skip_for_kernel("tc-sender", "classic BPF filter of tc", &refused);
    }
    let tracing = Trace::of(&pair.a).start();

    let sent = send_udp(&pair.a.udp_socket("10.0.0.1:5420"), "10.0.0.2:5421", PACKETS, 64);
    assert_eq!((sent.accepted, sent.refused), (PACKETS, 0));
    wait::until_counter("drops of clsact", PACKETS, || pair.a.qdisc_drops("eth0"));
    // What the catalogue says of the counters.
    for counter in ["IpOutDiscards", "UdpSndbufErrors"] {
        assert_eq!(pair.a.mib(counter), PACKETS, "{counter}");
    }

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "tc-filter-drop",
        class: "harmful",
        netns: &pair.a,
        count: PACKETS,
        packet: json!({"src": "10.0.0.1", "sport": 5420, "dst": "10.0.0.2", "dport": 5421, "len": 92}),
    });
}

#[test]
fn forwarded_packets_at_egress() {
    let Some(lab) = Lab::new("tc-router", &["tc"]) else { return };
    let routed = lab.routed();
    if let Err(refused) = routed.r.tc_drop("right", Side::Egress, "ip") {
        return lab::skip_for_kernel("tc-router", "classic BPF filter of tc", &refused);
    }
    let tracing = Trace::of(&routed.r).start();

    send_udp(&routed.a.udp_socket("10.1.0.2:5422"), "10.2.0.2:5423", PACKETS, 64);
    wait::until_counter("drops of clsact", PACKETS, || routed.r.qdisc_drops("right"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "tc-filter-drop",
        class: "harmful",
        netns: &routed.r,
        count: PACKETS,
        packet: json!({"src": "10.1.0.2", "sport": 5422, "dst": "10.2.0.2", "dport": 5423, "len": 92}),
    });
    assert_eq!(event["direction"], "forward", "{event}");
    assert_eq!(event["interface"]["name"], "right", "{event}");
}
