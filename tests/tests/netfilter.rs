//! Packets that a firewall rule drops or rejects: each family, hook and tool.

use std::net::IpAddr;

use netdrop_tests::family::at;
use netdrop_tests::firewall::{Hook, Rule, To, Tool, Verdict, unread};
use netdrop_tests::link::Routed;
use netdrop_tests::reason::{expect_certain, expect_stated, lacks_evidence};
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Netns, Outcome, Trace, lab, wait};
use serde_json::{Value, json};

/// Source port of all datagrams here.
const FROM: u16 = 5100;

/// Datagrams to a rule that drops all.
const FEW: u64 = 5;

/// Datagrams to a rule that drops half: so many that a fair coin never shows one side only.
const MANY: u64 = 200;

/// How a packet passes the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// To the router.
    In,
    /// Through it.
    Through,
    /// From it.
    Out,
}

impl Path {
    /// As netdrop's `direction` spells it, for a packet on this path that is dropped at `hook`.
    fn direction(self, hook: Hook) -> &'static str {
        match (self, hook) {
            // Not routed yet.
            (_, Hook::Prerouting | Hook::Ingress(_)) | (Self::In, _) => "in",
            (Self::Through, _) => "forward",
            (Self::Out, _) => "out",
        }
    }

    /// Who receives.
    fn receiver(self, routed: &Routed) -> &Netns {
        match self {
            Self::In => &routed.r,
            Self::Through | Self::Out => &routed.b,
        }
    }

    /// Who sends, from which address, to which.
    fn ends(self, routed: &Routed) -> (&Netns, IpAddr, IpAddr) {
        let (a, left, right, b) = (routed.a_end.ip, routed.left.ip, routed.right.ip, routed.b_end.ip);
        match self {
            Self::In => (&routed.a, a, left),
            Self::Through => (&routed.a, a, b),
            Self::Out => (&routed.r, right, b),
        }
    }
}

/// The hooks of the IP layer, each with the ways that lead there.
const IP_HOOKS: [(Hook, Path); 7] = [
    (Hook::Prerouting, Path::In),
    (Hook::Prerouting, Path::Through),
    (Hook::Input, Path::In),
    (Hook::Forward, Path::Through),
    (Hook::Output, Path::Out),
    (Hook::Postrouting, Path::Through),
    (Hook::Postrouting, Path::Out),
];

/// A rule that has done its work.
struct Provoked {
    hook: Hook,
    path: Path,
    /// Destination port: no two rules have the same.
    port: u16,
    src: String,
    dst: String,
    dropped: u64,
}

/// Puts a rule of `tool` at each of `hooks` in turn, sends datagrams there, and expects exactly those that it
/// counted.
#[track_caller]
fn each_hook(name: &str, tool: Tool, family: Family, verdict: Verdict, half: bool, hooks: &[(Hook, Path)]) {
    let Some(lab) = Lab::new(name, &[tool.program()]) else { return };
    let routed = lab.routed_of(family);
    routed.r.sysctl("net/ipv4/icmp_ratelimit", "0");
    let tracing = Trace::of(&routed.r).start();
    let mut all = Vec::new();
    for ((hook, path), port) in hooks.iter().zip(5101..) {
        let to = if half { To::udp(port).half() } else { To::udp(port) };
        match routed.r.rule(tool, *hook, to, verdict) {
            Ok(rule) => all.push(provoke(&rule, *path, &routed, half)),
            Err(refused) => lab::skip_for_kernel(name, &format!("{tool:?} at {hook:?}"), &refused),
        }
    }
    if all.is_empty() {
        return;
    }

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: all.iter().map(|rule| rule.dropped).sum(),
        packet: json!({"family": family.name(), "proto": "udp", "sport": FROM,
            "len": family.header_len() + 8 + 64}),
    });
    expect_each(&outcome, &routed.r, (family, verdict), &all);
}

/// Requires exactly the events of what each rule dropped.
#[track_caller]
fn expect_each(outcome: &Outcome, router: &Netns, (family, verdict): (Family, Verdict), all: &[Provoked]) {
    for Provoked { hook, path, port, src, dst, dropped } in all {
        let mut events = outcome.events_of("netfilter-rule", router);
        events.retain(|event| event["packet"]["dport"] == *port);
        outcome.expect_count(&format!("{hook:?} {path:?}, port {port}"), events.len() as u64, *dropped);
        for event in events {
            assert_eq!(event["packet"]["src"], *src, "{event}");
            assert_eq!(event["packet"]["dst"], *dst, "{event}");
            assert_eq!(event["direction"], path.direction(*hook), "{event}");
            expect_stated(event, "NETFILTER_DROP");
            expect_evidence(event, family, *hook, verdict);
        }
    }
}

/// Requires that an event tells the hook and what became of the packet.
#[track_caller]
fn expect_evidence(event: &Value, family: Family, hook: Hook, verdict: Verdict) {
    if lacks_evidence(event, "netfilter") {
        return;
    }
    let netfilter = &event["evidence"]["netfilter"];
    let at_device = matches!(hook, Hook::Ingress(_) | Hook::Egress(_));
    assert_eq!(netfilter["family"], if at_device { "netdev" } else { family.pick("ip", "ip6") }, "{event}");
    assert_eq!(netfilter["hook"], hook.name(), "{event}");
    // A rule that drops and one that rejects look the same, unless the kernel was seen to tell the sender: it
    // shows neither netfilter's own resets nor ICMPv6. The rule itself says it where it was found before it was removed.
    let told = (family, verdict) == (Family::Ipv4, Verdict::Reject);
    let named = !netfilter["rule_count"].is_null();
    let verdict = match verdict {
        Verdict::Drop if named => json!("drop"),
        Verdict::Reject | Verdict::Reset if told || named => json!("reject"),
        _ => Value::Null,
    };
    assert_eq!(netfilter["verdict"], verdict, "{event}");
}

/// Sends datagrams to the port of a rule, half of which it drops or all.
#[track_caller]
fn provoke(rule: &Rule<'_>, path: Path, routed: &Routed, half: bool) -> Provoked {
    let (hook, port) = (rule.hook(), rule.port());
    let (sender, src, dst) = path.ends(routed);
    let sent = if half { MANY } else { FEW };
    // What passes is welcome: nothing else is dropped.
    let _open = half.then(|| path.receiver(routed).udp_socket(&at(dst, port)));
    let result = send_udp(&sender.udp_socket(&at(src, FROM)), &at(dst, port), sent, 64);
    let dropped = if half {
        wait::until_stable("the rule's counter", || rule.packets())
    } else {
        wait::until_counter("the rule's counter", sent, || rule.packets());
        sent
    };
    assert!(!half || dropped < sent, "a rule that drops half dropped all");
    let told = path == Path::Out && !matches!(hook, Hook::Egress(_));
    assert_eq!(result.refused, if told { dropped } else { 0 }, "senders are told what {hook:?} drops");
    Provoked { hook, path, port, src: src.to_string(), dst: dst.to_string(), dropped }
}

/// Every datagram, at each of `hooks`.
#[track_caller]
fn drops(name: &str, tool: Tool, family: Family, hooks: &[(Hook, Path)]) {
    each_hook(name, tool, family, Verdict::Drop, false, hooks);
}

#[test]
fn nft_ip() {
    drops("nft-ip", Tool::Nft("ip"), Family::Ipv4, &IP_HOOKS);
}

#[test]
fn nft_ip6() {
    drops("nft-ip6", Tool::Nft("ip6"), Family::Ipv6, &IP_HOOKS);
}

#[test]
fn nft_inet() {
    drops("nft-inet-4", Tool::Nft("inet"), Family::Ipv4, &IP_HOOKS);
    drops("nft-inet-6", Tool::Nft("inet"), Family::Ipv6, &IP_HOOKS);
}

#[test]
fn nft_netdev() {
    let hooks = [
        (Hook::Ingress("left"), Path::In),
        (Hook::Ingress("left"), Path::Through),
        (Hook::Egress("right"), Path::Through),
        (Hook::Egress("right"), Path::Out),
    ];
    drops("nft-netdev-4", Tool::Nft("netdev"), Family::Ipv4, &hooks);
    drops("nft-netdev-6", Tool::Nft("netdev"), Family::Ipv6, &hooks);
}

/// The hooks of a table of xtables.
fn hooks_of(table: &str) -> Vec<(Hook, Path)> {
    let has = |hook| match table {
        "filter" => matches!(hook, Hook::Input | Hook::Forward | Hook::Output),
        "raw" => matches!(hook, Hook::Prerouting | Hook::Output),
        _ => true,
    };
    IP_HOOKS.into_iter().filter(|(hook, _)| has(*hook)).collect()
}

#[test]
fn iptables() {
    for table in ["raw", "mangle", "filter"] {
        let name = format!("iptables-{table}");
        drops(&name, Tool::Xtables(Family::Ipv4, table), Family::Ipv4, &hooks_of(table));
    }
}

#[test]
fn ip6tables() {
    for table in ["raw", "mangle", "filter"] {
        let name = format!("ip6tables-{table}");
        drops(&name, Tool::Xtables(Family::Ipv6, table), Family::Ipv6, &hooks_of(table));
    }
}

/// A rule that drops half of what it matches, on the way in and out.
const HALF_AT: [(Hook, Path); 2] = [(Hook::Input, Path::In), (Hook::Output, Path::Out)];

#[test]
fn nft_drops_some_at_random() {
    each_hook("nft-random", Tool::Nft("inet"), Family::Ipv4, Verdict::Drop, true, &HALF_AT);
}

#[test]
fn iptables_drops_some_at_random() {
    let tool = Tool::Xtables(Family::Ipv4, "filter");
    each_hook("iptables-random", tool, Family::Ipv4, Verdict::Drop, true, &HALF_AT);
}

/// Hooks where every tool can reject.
const REJECT_AT: [(Hook, Path); 3] =
    [(Hook::Input, Path::In), (Hook::Forward, Path::Through), (Hook::Output, Path::Out)];

#[test]
fn rejected_with_an_icmp_error() {
    for (family, nft) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        for tool in [Tool::Nft(nft), Tool::Nft("inet"), Tool::Xtables(family, "filter")] {
            let name = format!("reject-{}-{}", tool.program(), family.name());
            each_hook(&name, tool, family, Verdict::Reject, false, &REJECT_AT);
        }
    }
}

#[test]
fn rejected_with_a_reset() {
    for (family, nft) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        let name = format!("reset-{}", family.name());
        let tools = [Tool::Nft(nft), Tool::Nft("inet"), Tool::Xtables(family, "filter")];
        let Some(lab) = Lab::new(&name, &["nft", tools[2].program()]) else { return };
        let routed = lab.routed_of(family);
        let tracing = Trace::of(&routed.r).start();
        let hooks = [(Hook::Input, Path::In), (Hook::Forward, Path::Through)];
        let cases = tools.into_iter().flat_map(|tool| hooks.map(|(hook, path)| (tool, hook, path)));
        let mut rejected = Vec::new();
        for ((tool, hook, path), port) in cases.zip(5101..) {
            let rule = match routed.r.rule(tool, hook, To::tcp(port), Verdict::Reset) {
                Ok(rule) => rule,
                Err(refused) => {
                    lab::skip_for_kernel(&name, &format!("{tool:?} with reset"), &refused);
                    continue;
                }
            };
            let (client, src, dst) = path.ends(&routed);
            client.connect_refused(&at(dst, port));
            wait::until_counter("the rule's counter", 1, || rule.packets());
            rejected.push(Provoked {
                hook,
                path,
                port,
                src: src.to_string(),
                dst: dst.to_string(),
                dropped: 1,
            });
        }
        if rejected.is_empty() {
            continue;
        }

        let outcome = tracing.stop();
        outcome.expect(&Dropped {
            cause: "netfilter-rule",
            class: "harmful",
            netns: &routed.r,
            count: rejected.len() as u64,
            packet: json!({"family": family.name(), "proto": "tcp", "tcp_flags": "S"}),
        });
        expect_each(&outcome, &routed.r, (family, Verdict::Reset), &rejected);
    }
}

#[test]
fn a_rejection_that_nobody_was_told_of_is_called_one_by_its_rule() {
    let Some(lab) = Lab::new("reject-limited", &["nft"]) else { return };
    let routed = lab.routed();
    let reject = routed.r.rule(Tool::Nft("ip"), Hook::Forward, To::udp(5101), Verdict::Reject);
    let rule = match reject {
        Ok(rule) => rule,
        Err(refused) => return lab::skip_for_kernel("reject-limited", "nft reject", &refused),
    };
    let tracing = Trace::of(&routed.r).start();
    send_udp(&routed.a.udp_socket("10.1.0.2:5100"), "10.2.0.2:5101", 20, 64);
    wait::until_counter("the rule's counter", 20, || rule.packets());
    let told = routed.r.mib("IcmpOutDestUnreachs");
    assert!(0 < told && told < 20, "{told} ICMP errors: they are limited in rate");

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: 20,
        packet: json!({"dport": 5101}),
    });
    let named = |event: &&Value| !lacks_evidence(event, "netfilter") && !unread(event);
    for event in outcome.events.iter().filter(named) {
        assert_eq!(event["evidence"]["netfilter"]["verdict"], "reject", "{event}");
    }
}

#[test]
fn queue_that_nobody_reads() {
    for (family, path) in [(Family::Ipv4, Path::In), (Family::Ipv6, Path::Through)] {
        let name = format!("nfqueue-{}", family.name());
        let tool = Tool::Xtables(family, "filter");
        let hook = if path == Path::In { Hook::Input } else { Hook::Forward };
        let Some(lab) = Lab::new(&name, &[tool.program()]) else { return };
        let routed = lab.routed_of(family);
        let rule = match routed.r.rule(tool, hook, To::udp(5101), Verdict::Queue) {
            Ok(rule) => rule,
            Err(refused) => {
                lab::skip_for_kernel(&name, "NFQUEUE", &refused);
                continue;
            }
        };
        let tracing = Trace::of(&routed.r).start();
        let Provoked { dropped, .. } = provoke(&rule, path, &routed, false);
        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "netfilter-rule",
            class: "harmful",
            netns: &routed.r,
            count: dropped,
            packet: json!({"family": family.name(), "proto": "udp", "sport": FROM, "dport": 5101}),
        });
        assert_eq!(event["location"]["symbol"], "nf_queue", "{event}");
        expect_certain(event);
    }
}

#[test]
fn policy_of_a_chain() {
    let Some(lab) = Lab::new("nft-policy", &["nft"]) else { return };
    let routed = lab.routed();
    routed.r.nft(
        "table inet ndt {
            counter input { }
            chain input {
                type filter hook input priority 0; policy drop;
                udp dport 5101 counter name input
            }
        }",
    );
    let tracing = Trace::of(&routed.r).start();
    send_udp(&routed.a.udp_socket("10.1.0.2:5100"), "10.1.0.1:5101", FEW, 64);
    wait::until_counter("packets that no rule accepted", FEW, || routed.r.nft_packets("input"));
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: FEW,
        packet: json!({"proto": "udp", "src": "10.1.0.2", "dst": "10.1.0.1", "dport": 5101}),
    });
    expect_evidence(event, Family::Ipv4, Hook::Input, Verdict::Drop);
}
