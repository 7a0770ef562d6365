//! The catalogue against its contract.

use std::sync::LazyLock;

use netdrop_common::facts::{Facts, Gather, Network, QdiscKind, TcpClass, Transport, VethPeer};

use crate::output::style::Page;

use super::catalogue::Catalogue;
use super::rule::{canonical_reason, overlap};
use super::*;

mod kernel;
mod key;
mod network;
mod scenarios;
mod sockets;
mod verdicts;

/// Cause ids that users may rely on.
const CONTRACT: &str = "conntrack-insert-clash, conntrack-insert-failed, conntrack-table-full, conntrack-invalid, \
    nat-port-exhausted, udp-receive-buffer-full, tcp-receive-buffer-full, socket-backlog-full, \
    protocol-memory-exhausted, send-buffer-full, neighbour-table-full, neighbour-unresolved, \
    neighbour-queue-full, tcp-accept-queue-full, tcp-syn-queue-full, source-port-exhausted, \
    listen-port-conflict, tcp-timestamp-rejected, tcp-out-of-window, tcp-invalid-flags, qdisc-netem-loss, \
    qdisc-overlimit, qdisc-other, netfilter-rule, tc-filter-drop, xdp-drop, cgroup-bpf-drop, \
    socket-filter-drop, security-policy-drop, mtu-exceeded, no-route, reverse-path-filter, martian-address, \
    ttl-expired, port-closed, cpu-backlog-full, nic-ring-overflow, checksum-error, malformed-header, \
    fragment-reassembly, interface-down, bridge-drop, tunnel-drop, xfrm-policy-drop, no-memory, \
    tcp-authentication, not-for-this-host, protocol-unhandled, duplicate-data, connection-teardown, \
    queue-purge, unknown";

fn builtin() -> &'static Catalogue {
    static BUILTIN: LazyLock<Catalogue> =
        LazyLock::new(|| Catalogue::builtin().unwrap_or_else(|error| panic!("{error}")));
    &BUILTIN
}

/// Every reason name from 5.17 to 7.2.
fn reasons() -> impl Iterator<Item = &'static str> {
    include_str!("testdata/reasons.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn drop_at<'a>(reason: impl Into<Option<&'a str>>, symbol: &'a str, facts: Facts) -> Drop<'a> {
    Drop { reason: reason.into(), symbol: Some(symbol), module: None, facts }
}

#[test]
fn has_every_cause_of_the_contract() {
    let catalogue = builtin();
    for id in CONTRACT.split(", ").map(str::trim) {
        assert!(catalogue.get(id).is_some(), "cause `{id}` is missing");
    }
}

#[test]
fn entries_are_complete() {
    for cause in builtin().causes() {
        let id = &cause.id;
        assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "id `{id}`");
        assert!(cause.title.chars().count() <= 40, "{id}: the title does not fit its column");
        for (key, empty) in [
            ("recognised", cause.recognised.trim().is_empty()),
            ("counters", cause.counters.is_empty()),
            ("confirm", cause.confirm.is_empty()),
            ("fix", cause.fix.is_empty()),
            ("cost", cause.cost.trim().is_empty()),
            ("references", cause.references.is_empty()),
        ] {
            assert!(!empty, "{id}: `{key}` is empty");
        }
    }
}

#[test]
fn causes_of_a_layer_stand_together() {
    let catalogue = builtin();
    let mut layers: Vec<&str> = catalogue.causes().map(|cause| cause.layer.as_str()).collect();
    layers.dedup();
    let mut unique = layers.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(layers.len(), unique.len(), "a layer is listed twice: {layers:?}");
}

#[test]
fn no_two_rules_tie() {
    let catalogue = builtin();
    let atoms = catalogue.atoms();
    for (index, a) in atoms.iter().enumerate() {
        for b in &atoms[index + 1..] {
            let same = a.cause == b.cause && a.rule == b.rule;
            if same || a.specificity != b.specificity {
                continue;
            }
            let (rule_a, rule_b) = (catalogue.rule(a), catalogue.rule(b));
            assert!(
                !overlap((&a.reason, a.location.as_ref(), rule_a), (&b.reason, b.location.as_ref(), rule_b)),
                "two rules are equally specific for the same drop; give one a location or a fact more:\n\
                 {}: {rule_a:?}\n{}: {rule_b:?}",
                catalogue.cause(a).id,
                catalogue.cause(b).id,
            );
        }
    }
}

#[test]
fn no_rule_is_always_overruled() {
    // A rule that loses for every one of its own atoms does nothing: try each with the facts it asks for.
    let catalogue = builtin();
    for cause in catalogue.causes() {
        for rule in &cause.rules {
            let wins = rule.atoms().any(|(reason, location)| {
                let reason = reason.to_string();
                let reason = reason.trim_end_matches('*').to_owned();
                let symbol = location.map(|location| location.to_string().trim_end_matches('*').to_owned());
                let drop = Drop {
                    reason: (reason != "absent").then_some(reason.as_str()),
                    symbol: symbol.as_deref(),
                    module: None,
                    facts: example_facts(rule),
                };
                std::ptr::eq(catalogue.classify(&drop).cause, cause)
            });
            assert!(wins, "{}: never decides: {rule:?}", cause.id);
        }
    }
}

/// Facts that a rule asks for.
fn example_facts(rule: &Rule) -> Facts {
    use super::fact::Fact;
    rule.facts.iter().fold(Facts::default(), |facts, test| {
        let value = test.values[0];
        match test.fact {
            Fact::Network => facts.with_network(Network::from_code(value)),
            Fact::Transport => facts.with_transport(Transport::from_code(value)),
            Fact::TcpClass => facts.with_tcp_class(TcpClass::from_code(value)),
            Fact::PacketType => facts.with_packet_type(value),
            Fact::LastHop => facts.with_last_hop(value == 1),
            Fact::SocketState => facts.with_socket_state(value),
            Fact::RouteError => facts.with_route_error(value),
            Fact::QdiscKind => facts.with_qdisc_kind(QdiscKind::from_code(value)),
            Fact::QdiscAtLimit => facts.with_qdisc_at_limit(value == 1),
            Fact::ReceiveBufferFull => facts.with_receive_buffer_full(value == 1),
            Fact::VethPeer => facts.with_veth_peer(VethPeer::from_code(value)),
            Fact::Listen => facts.with_listen(value),
            Fact::Conntrack => facts.with_conntrack(value),
            Fact::TcpDiscard => facts.with_tcp_discard(value),
        }
    })
}

#[test]
fn facts_survive_the_counter_key() {
    // A value that does not fit its bits in the key could never be matched.
    let catalogue = builtin();
    for atom in catalogue.atoms() {
        let rule = catalogue.rule(atom);
        assert!(rule.facts_match(example_facts(rule)), "{}: {rule:?}", catalogue.cause(atom).id);
    }
}

#[test]
fn every_fact_a_rule_needs_is_gathered() {
    let catalogue = builtin();
    for atom in catalogue.atoms() {
        let reason = atom.reason.to_string();
        let reason = reason.trim_end_matches('*');
        let gathered = catalogue.gather((reason != "absent").then_some(reason));
        let unstated = matches!(reason, "absent" | "NOT_SPECIFIED");
        let by_place = if unstated { Gather::CONNTRACK } else { Gather::NONE };
        let gathered = gathered.union(by_place);
        let needed = catalogue.rule(atom).gather();
        assert!(gathered.contains(needed), "{}: {:?}", catalogue.cause(atom).id, atom.reason);
    }
}

#[test]
fn reasons_that_need_no_facts_gather_none() {
    let catalogue = builtin();
    for reason in ["SOCKET_RCVBUFF", "IP_RPFILTER", "NO_SUCH_REASON", "TCP_CSUM"] {
        assert_eq!(catalogue.gather(Some(reason)), Gather::default(), "{reason}");
    }
    assert_eq!(catalogue.gather(Some("NETFILTER_DROP")), Gather::CONNTRACK);
    assert_eq!(catalogue.gather(Some("NO_SOCKET")), Gather::PACKET.union(Gather::LISTEN));
    assert_eq!(catalogue.gather(Some("QDISC_DROP")), Gather::QDISC);
    assert_eq!(catalogue.gather(Some("SKB_DROP_REASON_QDISC_DROP")), Gather::QDISC);
    assert!(Gather::ALL.contains(catalogue.gather(Some("NOT_SPECIFIED"))));
    assert!(catalogue.gather(None).contains(Gather::PACKET.union(Gather::ROUTE).union(Gather::QDISC)));
}

#[test]
fn every_reason_has_a_cause() {
    let catalogue = builtin();
    for reason in reasons().filter(|reason| *reason != "NOT_SPECIFIED") {
        let drop = Drop { reason: Some(reason), symbol: None, module: None, facts: Facts::default() };
        let verdict = catalogue.classify(&drop);
        assert_ne!(verdict.cause.id, "unknown", "the reason {reason} has no rule that needs nothing else");
    }
}

#[test]
fn unmapped_reasons_are_unknown_even_at_known_places() {
    let catalogue = builtin();
    let verdict = catalogue.classify(&drop_at("BRAND_NEW", "ip_error", Facts::default()));
    assert_eq!((verdict.cause.id.as_str(), verdict.class), ("unknown", Class::Suspect));
    assert_eq!(verdict.why, "BRAND_NEW at ip_error: no rule for this");
}

#[test]
fn reasons_are_recognised_however_spelt() {
    for (given, canonical) in [
        ("SKB_DROP_REASON_NO_SOCKET", "NO_SOCKET"),
        ("NO_SOCKET", "NO_SOCKET"),
        ("openvswitch:OVS_DROP_METER", "openvswitch:METER"),
        ("qdisc:QDISC_DROP_OVERLIMIT", "qdisc:OVERLIMIT"),
        ("mac80211_unusable:___RX_DROP_U_DUP", "mac80211_unusable:DUP"),
        ("mac80211_unusable:RX_DROP_U_DUP", "mac80211_unusable:DUP"),
        ("openvswitch:METER", "openvswitch:METER"),
        ("subsys#9:3", "subsys#9:3"),
    ] {
        assert_eq!(canonical_reason(given), canonical);
    }
}

#[test]
fn suggestions_are_near() {
    let catalogue = builtin();
    assert_eq!(catalogue.suggest("udp-recieve-buffer-full").first(), Some(&"udp-receive-buffer-full"));
    assert_eq!(catalogue.suggest("noroute").first(), Some(&"no-route"));
    assert_eq!(catalogue.suggest_any("SOCKET_RCVBUF").first(), Some(&"SOCKET_RCVBUFF"));
    assert!(catalogue.suggest("xyzzy").is_empty());
}

#[test]
fn errors_name_file_cause_and_key() {
    let entry = |rule: &str| {
        format!(
            "[[cause]]\nid = \"unknown\"\ntitle = \"t\"\nlayer = \"l\"\nclass = \"suspect\"\nmeaning = \"m\"\n\
             fix = []\n{rule}"
        )
    };
    let error = |text: &str| Catalogue::from_files(&[("x.toml", text)]).unwrap_err().to_string();
    for (rule, parts) in [
        ("colour = 1", &["netdrop/causes/x.toml", "cause `unknown`", "colour"][..]),
        ("evidence = [\"sockets\"]", &["cause `unknown`", "evidence", "sockets"]),
        ("[[cause.rule]]\nreason = [\"nosocket\"]", &["x.toml", "`unknown`", "rule[0].reason", "nosocket"]),
        ("[[cause.rule]]\nreason = [\"*\"]", &["rule[0].reason"]),
        ("[[cause.rule]]\nlocation = [\"ip_rcv.isra.0\"]", &["rule[0].location", "suffix"]),
        ("[[cause.rule]]\nreason = [\"A\"]\nfacts = { colour = \"red\" }", &["facts.colour", "tcp_class"]),
        (
            "[[cause.rule]]\nreason = [\"A\"]\nfacts = { tcp_class = \"sin\" }",
            &["facts.tcp_class", "sin", "syn-ack"],
        ),
        ("[[cause.rule]]\nreason = [\"A\"]\nfacts = { last_hop = 1 }", &["facts.last_hop", "integer"]),
        ("[[cause.rule]]\nreason = []", &["rule[0].reason", "empty"]),
        ("[[cause.rule]]\nclass = \"benign\"", &["rule[0].reason", "needs"]),
        ("[[cause.rule]]\nreason = [\"A\"]\nclass = \"bad\"", &["cause `unknown`", "bad"]),
        ("confirm = [{ scope = \"netns\" }]", &["`unknown`", "confirm[0]"]),
    ] {
        let message = error(&entry(rule));
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
    let twice = format!("{}\n{}", entry(""), entry(""));
    assert!(error(&twice).contains("earlier"));
    assert!(error(&entry("").replace("unknown", "other")).contains("missing"));
}

#[test]
fn text_is_clean() {
    let catalogue = builtin();
    for cause in catalogue.causes() {
        for width in [40, 60, 80, 100] {
            let mut out = Vec::new();
            Page { columns: Some(width), colour: false }.cause(&mut out, cause).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains('\u{1b}'), "{}: colour without a terminal", cause.id);
            assert!(text.lines().all(|line| line == line.trim_end()), "{}: trailing blanks", cause.id);
        }
    }
}
