//! Field case F11: a rule in a container's INPUT and OUTPUT that drops three packets in ten at random, found there by
//! looking at counters of iptables inside the container.

use netdrop_tests::firewall::{ruleset, unread};
use netdrop_tests::reason::lacks_evidence;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Netns, Trace, lab, wait};
use serde_json::{Value, json};

/// Datagrams each way: so many that the rule never drops all or none.
const SENT: u64 = 200;

/// Packets that a container's rule in a chain has dropped, by its own counter.
#[track_caller]
fn dropped(container: &Netns, program: &str, chain: &str) -> u64 {
    let listed = container.run(&format!("{program} -w -nvxL {chain} 1"));
    listed.split_whitespace().next().and_then(|packets| packets.parse().ok()).expect("a rule has a counter")
}

/// The field case with the rules of `program`; `rule` is what the rule's text holds.
#[track_caller]
fn three_in_ten(name: &str, program: &str, tool: &str, rule: &str) {
    let Some(lab) = Lab::new(name, &["nft", program]) else { return };
    let pair = lab.pair();
    let container = &pair.b;
    for chain in ["INPUT", "OUTPUT"] {
        let add = format!("{program} -w -A {chain} -m statistic --mode random --probability 0.3 -j DROP");
        if let Err(refused) = container.try_run_with_input(&add, "") {
            return lab::skip_for_kernel(name, "the statistic match", &refused);
        }
    }
    // Nobody answers by ICMP, which the rules would drop as well.
    let _listeners = [container.udp_socket("10.0.0.2:9000"), pair.a.udp_socket("10.0.0.1:9000")];
    let before = ruleset(container);

    let tracing = Trace::of(container).start();
    send_udp(&pair.a.udp_socket("10.0.0.1:5100"), "10.0.0.2:9000", SENT, 64);
    let answered = send_udp(&container.udp_socket("10.0.0.2:5100"), "10.0.0.1:9000", SENT, 64);
    let [input, output] = ["INPUT", "OUTPUT"]
        .map(|chain| wait::until_stable("the rule's counter", || dropped(container, program, chain)));
    let outcome = tracing.stop();

    assert!(0 < input && input < SENT && 0 < output && output < SENT, "{input} and {output} of {SENT}");
    assert_eq!(answered.refused, output, "the container is told what OUTPUT drops");
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: container,
        count: input + output,
        packet: json!({"proto": "udp"}),
    });
    for (hook, chain, count) in [("input", "INPUT", input), ("output", "OUTPUT", output)] {
        let direction = if hook == "input" { "in" } else { "out" };
        let mut events = outcome.events_of("netfilter-rule", container);
        events.retain(|event| event["direction"] == direction);
        outcome.expect_count(&format!("drops in {chain}"), events.len() as u64, count);
        for event in events.iter().filter(|event| !lacks_evidence(event, "netfilter") && !unread(event)) {
            let netfilter = &event["evidence"]["netfilter"];
            let told = ["family", "hook", "table", "chain", "tool"].map(|field| &netfilter[field]);
            assert_eq!(told, ["ip", hook, "filter", chain, tool], "{event}");
            assert_eq!(
                (&netfilter["verdict"], &netfilter["rule_count"]),
                (&json!("drop"), &json!(1)),
                "{event}"
            );
            let text = netfilter["rules"][0].as_str().unwrap_or_default();
            assert!(text.contains(rule), "{rule} in {event}");
        }
    }
    assert_eq!(before.text, ruleset(container).text, "the ruleset is what it was");
}

#[test]
fn statistic_of_iptables_legacy() {
    let rule = "-m statistic --mode random --probability 0.29999999981 -j DROP";
    three_in_ten("f11-legacy", "iptables-legacy", "iptables-legacy", rule);
}

#[test]
fn statistic_of_iptables_nft() {
    // nft says it in its own words, or names the match where it was built without libxtables.
    three_in_ten("f11-nft", "iptables-nft", "iptables-nft", "counter drop # handle");
}

#[test]
fn the_rule_whose_counter_moved_is_the_one() {
    let Some(lab) = Lab::new("f11-counters", &["nft", "iptables-legacy"]) else { return };
    let pair = lab.pair();
    let container = &pair.b;
    // Nothing of a packet tells these apart: marks are not looked at. Their counters do.
    for mark in ["0x1", "0x2", "0x0"] {
        let add = format!("iptables-legacy -w -A INPUT -m mark --mark {mark} -j DROP");
        if let Err(refused) = container.try_run_with_input(&add, "") {
            return lab::skip_for_kernel("f11-counters", "the mark match", &refused);
        }
    }
    let tracing = Trace::of(container).start();
    send_udp(&pair.a.udp_socket("10.0.0.1:5100"), "10.0.0.2:9000", 5, 64);
    wait::until_counter("packets that rules dropped", 5, || ruleset(container).dropped());
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: container,
        count: 5,
        packet: json!({"proto": "udp", "dport": 9000}),
    });
    // The first reading comes after the first drop.
    if !lacks_evidence(event, "netfilter") && !unread(event) {
        let rules = &event["evidence"]["netfilter"]["rules"];
        assert_eq!(*rules, json!(["-A INPUT -m mark --mark 0x0 -j DROP"]), "{event}");
    }
    assert!(outcome.events.iter().all(|event| event["evidence"]["netfilter"]["candidates"] == Value::Null));
}
