//! Packets that a full queue of a device refuses.

use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, lab, wait};
use serde_json::json;

#[test]
fn tbf_over_its_limit() {
    let Some(lab) = Lab::new("tbf", &["tc"]) else { return };
    let pair = lab.pair();
    let tbf = "tc qdisc add dev eth0 root tbf rate 64kbit burst 1600 limit 3000";
    let added = pair.a.command(tbf).output().expect("start tc");
    if !added.status.success() {
        return lab::skip_for_kernel("tbf", "tbf qdisc", &String::from_utf8_lossy(&added.stderr));
    }
    let tracing = Trace::of(&pair.a).start();

    let socket = pair.a.udp_socket("10.0.0.1:5400");
    send_udp(&socket, "10.0.0.2:5401", 60, 1000);
    let dropped = pair.a.qdisc_drops("eth0");
    assert!(dropped < 60, "the first packet always passes");

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "qdisc-overlimit",
        class: "harmful",
        netns: &pair.a,
        count: dropped,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5400,
            "dst": "10.0.0.2", "dport": 5401, "len": 1028}),
    });
    assert_eq!(event["interface"]["name"], "eth0");
    assert_eq!(event["direction"], "out");
    wait::until_stable("tbf's drops after the trace", || pair.a.qdisc_drops("eth0"));
    assert_eq!(pair.a.qdisc_drops("eth0"), dropped, "packets were still on their way");
}

#[test]
fn a_full_queue_of_a_router_drops_forwarded_packets_and_its_own() {
    let Some(lab) = Lab::new("tbf-router", &["tc"]) else { return };
    let routed = lab.routed();
    let tbf = "tc qdisc add dev right root tbf rate 64kbit burst 1600 limit 3000";
    let added = routed.r.command(tbf).output().expect("start tc");
    if !added.status.success() {
        return lab::skip_for_kernel("tbf-router", "tbf qdisc", &String::from_utf8_lossy(&added.stderr));
    }
    // The port is open: no ICMP error comes back through the router.
    let _open = routed.b.udp_socket("10.2.0.2:5401");
    let tracing = Trace::of(&routed.r).start();

    send_udp(&routed.a.udp_socket("10.1.0.2:5402"), "10.2.0.2:5401", 60, 1000);
    wait::until_counter("IpForwDatagrams", 60, || routed.r.mib("IpForwDatagrams"));
    let forwarded = wait::until_stable("tbf's drops", || routed.r.qdisc_drops("right"));
    send_udp(&routed.r.udp_socket("10.2.0.1:5403"), "10.2.0.2:5401", 60, 1000);
    let own = routed.r.qdisc_drops("right") - forwarded;
    assert!(own > 0, "the queue was not full");

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "qdisc-overlimit",
        class: "harmful",
        netns: &routed.r,
        count: forwarded + own,
        packet: json!({"proto": "udp", "dst": "10.2.0.2", "dport": 5401}),
    });
    for (sport, count, direction) in [(5402, forwarded, "forward"), (5403, own, "out")] {
        let events = outcome.events.iter().filter(|event| event["packet"]["sport"] == sport);
        outcome.expect_count(direction, events.clone().count() as u64, count);
        for event in events {
            assert_eq!(event["direction"], direction, "{event}");
            assert_eq!(event["interface"]["name"], "right", "{event}");
        }
    }
}
