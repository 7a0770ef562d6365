//! A ring that is too small: what is lost is counted, to the packet.

use netdrop_tests::flood::Flood;
use netdrop_tests::{Lab, Outcome, Trace, wait};
use rustix::process::Signal;

/// Requires that nothing but the flood was seen, all of it, and that some events did not fit.
#[track_caller]
fn expect_all_counted(outcome: &Outcome, netns: &netdrop_tests::Netns, counted: u64) {
    outcome.expect_count("seen", outcome.number("seen"), counted);
    outcome.expect_count("netfilter-rule", outcome.cause_count("netfilter-rule"), counted);
    outcome.expect_count(netns.name(), outcome.netns_count(netns), counted);
    assert!(outcome.number("lost") > 0, "the ring was large enough");
    // Outcome has checked that the loss lines and events add up with the summary.
    assert!(!outcome.losses.is_empty());
}

#[test]
fn events_that_do_not_fit_are_counted() {
    let Some(lab) = Lab::new("ring-paused", &["nft"]) else { return };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let tracing = Trace::of(&netns).args(&["--buffer-size", "4"]).start();

    tracing.signal(Signal::STOP);
    Flood::new("127.0.0.1:9", 2000).send_from(&netns);
    let counted = wait::until_stable("the rule's counter", || netns.nft_packets("input"));
    tracing.signal(Signal::CONT);

    let outcome = tracing.stop();
    assert_eq!(counted, 2000);
    expect_all_counted(&outcome, &netns, counted);
}

#[test]
fn a_flood_beside_a_running_reader_is_counted() {
    let Some(lab) = Lab::new("ring-flood", &["nft"]) else { return };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let tracing = Trace::of(&netns).args(&["--buffer-size", "4"]).keep_events(20).start();

    Flood::new("127.0.0.1:9", 100_000).send_from(&netns);
    let counted = wait::until_stable("the rule's counter", || netns.nft_packets("input"));

    let outcome = tracing.stop();
    assert_eq!(counted, 100_000);
    expect_all_counted(&outcome, &netns, counted);
}

#[test]
fn events_of_other_causes_are_not_lost_under_a_cause_filter() {
    let Some(lab) = Lab::new("ring-cause", &["nft"]) else { return };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let tracing = Trace::of(&netns).args(&["--cause", "no-route", "-B", "4"]).start();

    tracing.signal(Signal::STOP);
    Flood::new("127.0.0.1:9", 2000).send_from(&netns);
    wait::until_counter("the rule's counter", 2000, || netns.nft_packets("input"));
    tracing.signal(Signal::CONT);

    let outcome = tracing.stop();
    assert_eq!(outcome.losses, [0; 0]);
    for name in ["lost", "seen", "undecidable"] {
        assert_eq!(outcome.number(name), 0, "{name}");
    }
    // Drops of other namespaces may be filtered at the same time.
    let refused = outcome.number("filtered") + outcome.number("missed");
    assert!(refused >= 2000, "{refused} filtered or missed");
}

/// Drops in one namespace under two counter keys, of which the map has room for the first alone.
fn two_keys_in_a_map_of_one(name: &str, args: &[&str]) -> Option<(Outcome, u64, u64)> {
    let lab = Lab::new(name, &["nft"])?;
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let tracing = Trace::of(&netns).args(&["--max-keys", "1"]).args(args).start();

    Flood::new("127.0.0.1:9", 30).send_from(&netns);
    let first = wait::until_stable("the rule's counter", || netns.nft_packets("input"));
    Flood::new("127.0.0.1:10", 40).send_from(&netns);
    let second = wait::until_stable("the closed port's counter", || netns.mib("UdpNoPorts"));
    Some((tracing.stop(), first, second))
}

#[test]
fn drops_beyond_a_full_key_map_are_counted_without_a_cause() {
    let Some((outcome, first, second)) = two_keys_in_a_map_of_one("keys-full", &[]) else { return };
    assert_eq!((first, second), (30, 40));
    outcome.expect_count("seen", outcome.number("seen"), first + second);
    outcome.expect_count("netfilter-rule", outcome.cause_count("netfilter-rule"), first);
    outcome.expect_count("overflow", outcome.number("overflow"), second);
    // Their events are complete all the same.
    let closed = outcome.events.iter().filter(|event| event["cause"]["id"] == "port-closed").count();
    outcome.expect_count("port-closed events", closed as u64, second);
}

#[test]
fn a_cause_filter_cannot_judge_drops_beyond_a_full_key_map() {
    let args = ["--cause", "port-closed"];
    let Some((outcome, first, second)) = two_keys_in_a_map_of_one("keys-full-cause", &args) else { return };
    assert_eq!((first, second), (30, 40));
    assert_eq!((outcome.number("seen"), outcome.number("overflow")), (0, 0));
    outcome.expect_count("undecidable", outcome.number("undecidable"), second);
    assert!(outcome.events.is_empty(), "{:?}", outcome.events);
}
