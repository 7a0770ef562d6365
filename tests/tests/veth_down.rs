//! A veth whose other end goes down.

use netdrop_tests::family::at;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_certain, lacks_some};
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Trace};
use serde_json::json;

/// Datagrams that this end could not pass on: it counts the same before and after it has noticed.
#[track_caller]
fn not_sent(pair: &Pair) -> u64 {
    pair.a.tx_dropped("eth0")
}

#[test]
fn before_and_after_this_end_has_noticed() {
    for (name, family) in [("veth-down", Family::Ipv4), ("veth-down6", Family::Ipv6)] {
        const EACH: u64 = 5;
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        let tracing = Trace::of(&pair.a).start();
        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5450));
        let target = at(pair.b_end.ip, 5451);

        pair.b.run("ip link set eth0 down");
        // Mostly before: how long it takes is up to the kernel.
        send_udp(&socket, &target, EACH, 64);
        pair.a.await_loss_of_carrier("eth0");
        send_udp(&socket, &target, EACH, 64);
        // 5.10 does not count what noop drops.
        let counted = not_sent(&pair);
        assert!(counted == 2 * EACH || counted == 0 && lacks_some(), "{counted} of {}", 2 * EACH);

        let outcome = tracing.stop();
        outcome.expect(&Dropped {
            cause: "interface-down",
            class: "suspect",
            netns: &pair.a,
            count: 2 * EACH,
            packet: json!({"family": family.name(), "proto": "udp", "src": pair.a_end.ip.to_string(),
                "sport": 5450, "dst": pair.b_end.ip.to_string(), "dport": 5451,
                "len": family.header_len() + 8 + 64}),
        });
        for event in &outcome.events {
            expect_certain(event);
            assert_eq!(event["interface"]["name"], "eth0", "{event}");
        }
        let last = outcome.events.last().expect("there are events");
        assert_eq!(last["evidence"]["qdisc"]["kind"], "noop", "{last}");
        assert_eq!(last["evidence"]["qdisc"]["device"], "eth0", "{last}");
    }
}
