//! Drops that are normal housekeeping: hidden unless asked for, counted always.

use netdrop_tests::frame::Hop;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

/// Sends eight frames with somebody else's hardware address; runs netdrop with `args`.
fn frames_for_another_host(
    name: &str,
    args: &[&str],
    check: impl FnOnce(netdrop_tests::Outcome, &Dropped<'_>),
) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let pair = lab.pair();
    let mut hop = Hop::between(pair.a_end, pair.b_end);
    hop.macs.1 = [0x02, 0, 0, 0, 0, 0x99];
    let tracing = Trace::of(&pair.b).args(args).start();

    pair.a.send_frames("eth0", [&hop.udp(64, 5600, 5601, &[0; 64]); 8]);
    let count = || pair.b.link_counter("eth0", "/stats64/rx/otherhost_dropped");
    match count() {
        Some(_) => wait::until_counter("otherhost_dropped", 8, || count().unwrap_or_default()),
        // Before 5.19 the kernel has no such counter: all that is known is that the frames arrived.
        None => wait::until_counter("rx packets", 8, || {
            pair.b.link_counter("eth0", "/stats64/rx/packets").expect("every device counts packets")
        }),
    }

    let dropped = Dropped {
        cause: "not-for-this-host",
        class: "benign",
        netns: &pair.b,
        count: 8,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5600,
            "dst": "10.0.0.2", "dport": 5601, "len": 92}),
    };
    check(tracing.stop(), &dropped);
}

#[test]
fn hidden_by_default_but_counted() {
    frames_for_another_host("benign-hidden", &[], |outcome, dropped| {
        assert_eq!(outcome.events_of(dropped.cause, dropped.netns).len(), 0);
        outcome.expect_count("hidden", outcome.number("hidden"), dropped.count);
        outcome.expect_count(dropped.cause, outcome.cause_count(dropped.cause), dropped.count);
    });
}

#[test]
fn shown_by_all() {
    frames_for_another_host("benign-shown", &["--all"], |outcome, dropped| {
        outcome.expect(dropped);
        assert_eq!(outcome.number("hidden"), 0);
    });
}
