//! Which rule dropped a packet: table, chain and rule of every tool, from the namespace's own ruleset.

use netdrop_tests::family::at;
use netdrop_tests::firewall::{ruleset, unread, without_legacy_tables};
use netdrop_tests::link::Routed;
use netdrop_tests::reason::lacks_evidence;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Outcome, Trace, lab, wait};
use serde_json::{Value, json};

/// Source port of all datagrams here.
const FROM: u16 = 5100;

/// Datagrams to each port.
const FEW: u64 = 3;

/// A hook of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Ingress,
    Egress,
}

use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Prerouting => "prerouting",
            Input => "input",
            Forward => "forward",
            Output => "output",
            Postrouting => "postrouting",
            Ingress => "ingress",
            Egress => "egress",
        }
    }

    fn upper(self) -> String {
        self.name().to_uppercase()
    }

    /// Sends datagrams to a port so that they come by the hook.
    fn send(self, routed: &Routed, port: u16) {
        let (sender, from, to) = match self {
            Prerouting | Input | Ingress => (&routed.a, routed.a_end.ip, routed.left.ip),
            Forward | Postrouting | Egress => (&routed.a, routed.a_end.ip, routed.b_end.ip),
            Output => (&routed.r, routed.right.ip, routed.b_end.ip),
        };
        send_udp(&sender.udp_socket(&at(from, FROM)), &at(to, port), FEW, 64);
    }
}

/// What one of the router's rules is expected to be called.
struct Named {
    hook: Hook,
    port: u16,
    /// Fields of `evidence.netfilter`.
    fields: Value,
    /// What the text of its only rule holds; nothing where there is none or more than one.
    rule: Option<String>,
}

/// Sends to each port, and requires that every drop is told as expected and that the ruleset is what it was.
#[track_caller]
fn expect_named(routed: &Routed, all: &[Named]) -> Outcome {
    let before = ruleset(&routed.r);
    let tracing = Trace::of(&routed.r).start();
    for named in all {
        named.hook.send(routed, named.port);
    }
    let total = all.len() as u64 * FEW;
    wait::until_counter("packets that rules dropped", total, || ruleset(&routed.r).dropped());
    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: total,
        packet: json!({"proto": "udp", "sport": FROM}),
    });
    for named in all {
        let mut events = outcome.events_of("netfilter-rule", &routed.r);
        events.retain(|event| event["packet"]["dport"] == named.port);
        outcome.expect_count(&format!("{:?}, port {}", named.hook, named.port), events.len() as u64, FEW);
        for event in events {
            expect_evidence(event, named);
        }
    }
    assert_eq!(before.text, ruleset(&routed.r).text, "the ruleset is what it was");
    outcome
}

#[track_caller]
fn expect_evidence(event: &Value, named: &Named) {
    if lacks_evidence(event, "netfilter") || unread(event) {
        return;
    }
    let netfilter = &event["evidence"]["netfilter"];
    assert_eq!(netfilter["hook"], named.hook.name(), "{event}");
    // Where a function hook saw the table, that is certain.
    let sure = if netfilter["by"] == "hook" { "observed" } else { "inferred" };
    assert_eq!(netfilter["confidence"], sure, "{event}");
    for (field, value) in named.fields.as_object().into_iter().flatten() {
        assert_eq!(&netfilter[field], value, "{field} in {event}");
    }
    if let Some(rule) = &named.rule {
        let rules = netfilter["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(
            rules.len() == 1 && rules[0].as_str().is_some_and(|text| text.contains(rule)),
            "{rule} in {event}"
        );
    }
}

/// A rule of x_tables for each table and hook that can drop.
#[track_caller]
fn xtables(name: &str, family: Family, nft: bool, tables: &[(&str, &[Hook])]) {
    let program = match (family, nft) {
        (Family::Ipv4, false) => "iptables-legacy",
        (Family::Ipv4, true) => "iptables-nft",
        (Family::Ipv6, false) => "ip6tables-legacy",
        (Family::Ipv6, true) => "ip6tables-nft",
    };
    let Some(lab) = Lab::new(name, &["nft", program]) else { return };
    let routed = lab.routed_of(family);
    let mut all = Vec::new();
    let places = tables.iter().flat_map(|(table, hooks)| hooks.iter().map(move |hook| (*table, *hook)));
    for ((table, hook), port) in places.zip(5200..) {
        let rule = format!("-A {} -p udp -m udp --dport {port} -j DROP", hook.upper());
        if let Err(refused) = routed.r.try_run_with_input(&format!("{program} -w -t {table} {rule}"), "") {
            lab::skip_for_kernel(name, &format!("{table} of {program}"), &refused);
            continue;
        }
        let tool = if nft { "iptables-nft" } else { "iptables-legacy" };
        all.push(Named {
            hook,
            port,
            fields: json!({"family": family.pick("ip", "ip6"), "table_family": family.pick("ip", "ip6"),
                "table": table, "chain": hook.upper(), "base_chain": null, "verdict": "drop", "tool": tool,
                "owner": null, "candidates": null, "rule_count": 1}),
            rule: Some(if nft { format!("udp dport {port} counter drop # handle") } else { rule }),
        });
    }
    if !all.is_empty() {
        expect_named(&routed, &all);
    }
}

/// Tables of x_tables with their hooks. That of nat sees the first packet of a connection alone, and accepts no DROP.
const TABLES: [(&str, &[Hook]); 3] = [
    ("raw", &[Prerouting, Output]),
    ("mangle", &[Prerouting, Input, Forward, Output, Postrouting]),
    ("filter", &[Input, Forward, Output]),
];

#[test]
fn tables_of_iptables_legacy() {
    xtables("rule-legacy", Family::Ipv4, false, &TABLES);
}

#[test]
fn tables_of_ip6tables_legacy() {
    xtables("rule-legacy6", Family::Ipv6, false, &TABLES);
}

#[test]
fn security_table_of_iptables_legacy() {
    xtables("rule-security", Family::Ipv4, false, &[("security", &[Input, Forward, Output])]);
}

#[test]
fn tables_of_iptables_nft() {
    xtables("rule-ipt-nft", Family::Ipv4, true, &TABLES);
}

#[test]
fn tables_of_ip6tables_nft() {
    xtables("rule-ip6t-nft", Family::Ipv6, true, &TABLES);
}

/// A table of nft for each hook, and what its rule is expected to be called.
#[track_caller]
fn nft(name: &str, table_family: &str, family: Family, hooks: &[Hook]) {
    let Some(lab) = Lab::new(name, &["nft"]) else { return };
    let routed = lab.routed_of(family);
    let mut all = Vec::new();
    for (hook, port) in hooks.iter().copied().zip(5200..) {
        let device = match hook {
            Ingress => "device left",
            Egress => "device right",
            _ => "",
        };
        let (table, hook_name) = (format!("t{port}"), hook.name());
        let script = format!(
            "table {table_family} {table} {{
                chain c{port} {{
                    type filter hook {hook_name} {device} priority 0; policy accept;
                    udp dport {port} counter drop
                }}
            }}"
        );
        if let Err(refused) = routed.r.try_nft(&script) {
            lab::skip_for_kernel(name, &format!("{hook_name} of {table_family}"), &refused);
            continue;
        }
        let of_hook = if device.is_empty() { family.pick("ip", "ip6") } else { "netdev" };
        all.push(Named {
            hook,
            port,
            fields: json!({"family": of_hook, "table_family": table_family, "table": table,
                "chain": format!("c{port}"), "base_chain": null, "verdict": "drop", "tool": "nft", "rule_count": 1}),
            rule: Some(format!("udp dport {port} counter drop # handle")),
        });
    }
    if !all.is_empty() {
        expect_named(&routed, &all);
    }
}

const IP_HOOKS: [Hook; 5] = [Prerouting, Input, Forward, Output, Postrouting];

#[test]
fn nft_ip() {
    nft("rule-nft-ip", "ip", Family::Ipv4, &IP_HOOKS);
}

#[test]
fn nft_ip6() {
    nft("rule-nft-ip6", "ip6", Family::Ipv6, &IP_HOOKS);
}

#[test]
fn nft_inet() {
    nft("rule-nft-inet", "inet", Family::Ipv4, &IP_HOOKS);
    nft("rule-nft-inet6", "inet", Family::Ipv6, &IP_HOOKS);
}

#[test]
fn nft_netdev() {
    nft("rule-nft-netdev", "netdev", Family::Ipv4, &[Ingress, Egress]);
}

#[test]
fn nft_ingress_of_inet() {
    nft("rule-nft-ingress", "inet", Family::Ipv4, &[Ingress]);
}

/// A rule of one script, for port `port` in INPUT.
fn in_input(port: u16, fields: Value, rule: Option<&str>) -> Named {
    Named { hook: Input, port, fields, rule: rule.map(str::to_owned) }
}

#[test]
fn chains_that_are_jumped_to_and_verdict_maps() {
    let Some(lab) = Lab::new("rule-jump", &["nft"]) else { return };
    let routed = lab.routed();
    routed.r.nft(
        "table inet t {
            map ports { type inet_service : verdict; elements = { 5203 : drop, 5204 : jump inner } }
            chain inner { counter drop; }
            chain second { udp dport 5201 counter drop; }
            chain third { udp dport 5202 counter drop; }
            chain input {
                type filter hook input priority 0; policy accept;
                udp dport 5201 jump second
                udp dport 5202 goto third
                meta l4proto udp counter jump by_map
            }
            chain by_map {
                udp dport { 5203, 5205 } counter comment \"seen\"
                udp dport vmap @ports
                udp dport vmap { 5205 : drop, 5206 : accept }
            }
        }",
    );
    let jumped = |chain| json!({"table": "t", "chain": chain, "base_chain": "input", "verdict": "drop", "rule_count": 1});
    let before = ruleset(&routed.r);
    let tracing = Trace::of(&routed.r).start();
    for port in 5201..=5205 {
        Input.send(&routed, port);
    }
    wait::until_counter("packets that came to the maps", 2 * FEW, || {
        routed
            .r
            .run("nft list chain inet t by_map")
            .split("packets ")
            .nth(1)
            .and_then(first_number)
            .unwrap_or(0)
    });
    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: 5 * FEW,
        packet: json!({"proto": "udp", "sport": FROM}),
    });
    for named in [
        in_input(5201, jumped("second"), Some("udp dport 5201 counter drop")),
        in_input(5202, jumped("third"), Some("udp dport 5202 counter drop")),
        in_input(5203, jumped("by_map"), Some("vmap @ports")),
        in_input(5204, jumped("inner"), Some("counter drop")),
        in_input(5205, jumped("by_map"), Some("5205 : drop")),
    ] {
        let mut events = outcome.events_of("netfilter-rule", &routed.r);
        events.retain(|event| event["packet"]["dport"] == named.port);
        outcome.expect_count(&format!("port {}", named.port), events.len() as u64, FEW);
        events.iter().for_each(|event| expect_evidence(event, &named));
    }
    assert_eq!(before.text, ruleset(&routed.r).text, "the ruleset is what it was");
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[test]
fn rules_that_reject_say_so_also_where_nobody_was_told() {
    for (family, table) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        let name = format!("rule-reject-{table}");
        let legacy = family.pick("iptables-legacy", "ip6tables-legacy");
        let Some(lab) = Lab::new(&name, &["nft", legacy]) else { return };
        let routed = lab.routed_of(family);
        let script = format!(
            "table {table} t {{
                chain c {{
                    type filter hook input priority 0; policy accept;
                    udp dport 5201 counter reject
                    meta l4proto udp udp dport 5202 counter reject with icmpx type admin-prohibited
                }}
            }}"
        );
        let script =
            if table == "ip" { script.replace("icmpx", "icmp") } else { script.replace("icmpx", "icmpv6") };
        if let Err(refused) = routed.r.try_nft(&script) {
            lab::skip_for_kernel(&name, "nft reject", &refused);
            continue;
        }
        let rejects = format!("{legacy} -w -A INPUT -p udp --dport 5203 -j REJECT");
        if let Err(refused) = routed.r.try_run_with_input(&rejects, "") {
            lab::skip_for_kernel(&name, "REJECT", &refused);
            continue;
        }
        let fields =
            |tool, table| json!({"verdict": "reject", "tool": tool, "table": table, "rule_count": 1});
        expect_named(
            &routed,
            &[
                in_input(5201, fields("nft", "t"), Some("udp dport 5201 counter reject")),
                in_input(5202, fields("nft", "t"), Some("udp dport 5202 counter reject")),
                in_input(5203, fields("iptables-legacy", "filter"), Some("--dport 5203 -j REJECT")),
            ],
        );
    }
}

#[test]
fn rules_that_cannot_be_told_apart_are_all_named() {
    let Some(lab) = Lab::new("rule-two", &["nft"]) else { return };
    let routed = lab.routed();
    // Neither counts, and either may decide first or not at all.
    routed.r.nft(
        "table inet one { chain c { type filter hook input priority 0; policy accept; numgen random mod 2 < 1 drop; }; }
         table inet two { chain c { type filter hook input priority 1; policy accept; udp dport 5201 drop; }; }",
    );
    let tracing = Trace::of(&routed.r).start();
    Input.send(&routed, 5201);
    wait::until_counter("packets for this host", FEW, || routed.r.mib("IpInReceives"));
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: FEW,
        packet: json!({"dport": 5201}),
    });
    if lacks_evidence(event, "netfilter") || unread(event) {
        return;
    }
    let netfilter = &event["evidence"]["netfilter"];
    if netfilter["by"] == "hook" {
        // Their tables can.
        assert_eq!(netfilter["rule_count"], 1, "{event}");
        return;
    }
    assert_eq!((&netfilter["table"], &netfilter["rules"]), (&Value::Null, &Value::Null), "{event}");
    assert_eq!((&netfilter["chain"], &netfilter["rule_count"]), (&json!("c"), &json!(2)), "{event}");
    assert_eq!(netfilter["verdict"], "drop", "{event}");
    let tables: Vec<_> =
        netfilter["candidates"].as_array().into_iter().flatten().map(|known| &known["table"]).collect();
    assert_eq!(tables, ["one", "two"], "{event}");
}

#[test]
fn policies_of_chains() {
    let Some(lab) = Lab::new("rule-policy", &["nft", "iptables-legacy"]) else { return };
    let routed = lab.routed();
    routed.r.nft(
        "table inet t {
            chain c {
                type filter hook input priority 0; policy drop;
                udp dport 5202 accept
            }
        }",
    );
    if let Err(refused) = routed.r.try_run_with_input("iptables-legacy -w -P OUTPUT DROP", "") {
        return lab::skip_for_kernel("rule-policy", "the filter table", &refused);
    }
    let tracing = Trace::of(&routed.r).start();
    Input.send(&routed, 5201);
    Output.send(&routed, 5201);
    wait::until_counter("packets that the policy dropped", FEW, || ruleset(&routed.r).policies);
    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: 2 * FEW,
        packet: json!({"dport": 5201}),
    });
    for event in &outcome.events {
        if lacks_evidence(event, "netfilter") || unread(event) {
            continue;
        }
        let netfilter = &event["evidence"]["netfilter"];
        let told = (&netfilter["table"], &netfilter["chain"], &netfilter["rules"][0]);
        match netfilter["hook"].as_str() {
            Some("input") => assert_eq!(told, (&json!("t"), &json!("c"), &json!("policy drop")), "{event}"),
            Some("output") => {
                assert_eq!(told, (&json!("filter"), &json!("OUTPUT"), &json!("-P OUTPUT DROP")), "{event}");
            }
            _ => panic!("another hook: {event}"),
        }
    }
}

#[test]
fn nft_bridge() {
    let Some(lab) = Lab::new("rule-bridge", &["nft", "bridge"]) else { return };
    let bridged = lab.bridged();
    let (through, to_it) = (("10.0.0.1", "10.0.0.2"), ("10.0.0.1", "10.0.0.3"));
    let hooks = [
        (Prerouting, through, 5201),
        (Input, to_it, 5202),
        (Forward, through, 5203),
        (Output, ("10.0.0.3", "10.0.0.2"), 5204),
        (Postrouting, through, 5205),
    ];
    for (hook, _, port) in hooks {
        let script = format!(
            "table bridge t{port} {{
                chain c {{
                    type filter hook {} priority 0; policy accept;
                    udp dport {port} counter drop
                }}
            }}",
            hook.name()
        );
        if let Err(refused) = bridged.s.try_nft(&script) {
            return lab::skip_for_kernel("rule-bridge", "nft bridge family", &refused);
        }
    }
    let tracing = Trace::of(&bridged.s).start();
    for (_, (from, to), port) in hooks {
        let sender = if from == "10.0.0.1" { &bridged.a } else { &bridged.s };
        send_udp(&sender.udp_socket(&format!("{from}:{FROM}")), &format!("{to}:{port}"), FEW, 64);
    }
    let total = hooks.len() as u64 * FEW;
    wait::until_counter("packets that rules dropped", total, || ruleset(&bridged.s).dropped());
    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &bridged.s,
        count: total,
        packet: json!({"family": "ipv4", "proto": "udp", "sport": FROM}),
    });
    for event in outcome.events.iter().filter(|event| !lacks_evidence(event, "netfilter") && !unread(event)) {
        let port = event["packet"]["dport"].clone();
        let hook = hooks.iter().find(|(_, _, known)| port == *known).map(|(hook, ..)| *hook);
        let fields = json!({"family": "bridge", "table_family": "bridge", "table": format!("t{port}"), "chain": "c",
            "verdict": "drop", "tool": "nft", "rule_count": 1});
        let rule = Some(format!("udp dport {port} counter drop # handle"));
        let hook = hook.unwrap_or_else(|| panic!("another port: {event}"));
        expect_evidence(event, &Named { hook, port: 0, fields, rule });
    }
}

#[test]
fn looking_for_rules_makes_no_tables() {
    let Some(lab) = Lab::new("rule-looking", &["nft"]) else { return };
    let routed = lab.routed();
    if !without_legacy_tables(&routed.r) {
        return lab::say_skip("rule-looking", "new namespaces have tables of iptables-legacy here");
    }
    routed.r.nft_drop("input", "udp dport 5201");
    let listed = routed.r.run("nft -as list ruleset");
    let tracing = Trace::of(&routed.r).start();
    Input.send(&routed, 5201);
    wait::until_counter("the rule's counter", FEW, || routed.r.nft_packets("input"));
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: FEW,
        packet: json!({"dport": 5201}),
    });
    if !lacks_evidence(event, "netfilter") && !unread(event) {
        assert_eq!(event["evidence"]["netfilter"]["table"], "ndt", "{event}");
    }
    assert!(without_legacy_tables(&routed.r), "looking made a table");
    assert_eq!(listed, routed.r.run("nft -as list ruleset"));
}
