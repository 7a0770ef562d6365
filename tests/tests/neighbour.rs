//! Packets for a neighbour that does not answer.

use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, hidden, wait};
use serde_json::json;

/// Sends three datagrams to nobody; returns how many of the drops netdrop does not know of.
fn neighbour_that_does_not_answer() -> Option<u64> {
    let lab = Lab::new("neighbour", &[])?;
    let pair = lab.pair();
    // One question and a short wait for the answer, instead of three seconds.
    pair.a.sysctl("net/ipv4/neigh/eth0/mcast_solicit", "1");
    pair.a.sysctl("net/ipv4/neigh/eth0/retrans_time_ms", "100");
    let tracing = Trace::of(&pair.a).start();

    let socket = pair.a.udp_socket("10.0.0.1:5500");
    send_udp(&socket, "10.0.0.77:5501", 3, 64);
    // The host tells itself that the other one is unreachable, once per packet.
    wait::until_counter("IcmpOutDestUnreachs", 3, || pair.a.mib("IcmpOutDestUnreachs"));

    let outcome = tracing.stop();
    let missing = outcome.shortfall("seen", outcome.cause_count("neighbour-unresolved"), 3);
    if missing == 0 {
        let event = outcome.expect(&Dropped {
            cause: "neighbour-unresolved",
            class: "harmful",
            netns: &pair.a,
            count: 3,
            packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5500,
                "dst": "10.0.0.77", "dport": 5501, "len": 92}),
        });
        assert_eq!(event["interface"]["name"], "eth0");
    }
    Some(missing)
}

#[test]
fn neighbour_unresolved() {
    // The drops happen in a timer, which interrupts whatever runs.
    hidden::repeat_while_short("neighbour", neighbour_that_does_not_answer);
}
