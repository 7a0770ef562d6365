//! Packets that a firewall rule drops: each hook, with nft and with iptables-legacy.

use netdrop_tests::link::Routed;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Netns, Trace, lab, wait};
use serde_json::json;

/// Source and destination port of all datagrams here.
const PORTS: (u16, u16) = (5100, 5101);

/// What a packet passes on its way.
#[derive(Clone, Copy)]
enum Hook {
    Input,
    Forward,
    Output,
}

impl Hook {
    /// As nft spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }

    /// As netdrop's `direction` spells it.
    fn direction(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Forward => "forward",
            Self::Output => "out",
        }
    }

    /// Who sends to whom, so that the packet passes this hook of the router.
    fn path(self, routed: &Routed) -> (&Netns, &'static str, &'static str) {
        match self {
            Self::Input => (&routed.a, "10.1.0.2", "10.1.0.1"),
            Self::Forward => (&routed.a, "10.1.0.2", "10.2.0.2"),
            Self::Output => (&routed.r, "10.2.0.1", "10.2.0.2"),
        }
    }
}

/// Sends `sent` datagrams through `hook` of the router, where a rule drops as many as `packets` tells,
/// and expects exactly these.
fn expect_rule_drops(hook: Hook, routed: &Routed, sent: u64, packets: impl Fn() -> u64) -> u64 {
    let tracing = Trace::of(&routed.r).start();
    let (sender, src, dst) = hook.path(routed);
    let socket = sender.udp_socket(&format!("{src}:{}", PORTS.0));
    let result = send_udp(&socket, &format!("{dst}:{}", PORTS.1), sent, 64);
    let dropped = wait::until_stable("the rule's counter", packets);
    if matches!(hook, Hook::Output) {
        assert_eq!(result.refused, dropped, "the sender is told of drops on the way out");
    }

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: dropped,
        packet: json!({"family": "ipv4", "proto": "udp", "src": src, "sport": PORTS.0,
            "dst": dst, "dport": PORTS.1, "len": 92}),
    });
    assert_eq!(event["direction"], hook.direction());
    assert_eq!(event["reason"], "NETFILTER_DROP");
    dropped
}

fn nft_drops_all(hook: Hook) {
    let Some(lab) = Lab::new(&format!("nft-{}", hook.name()), &["nft"]) else { return };
    let routed = lab.routed();
    routed.r.nft_drop(hook.name(), &format!("udp dport {}", PORTS.1));
    let dropped = expect_rule_drops(hook, &routed, 10, || routed.r.nft_packets(hook.name()));
    assert_eq!(dropped, 10);
}

fn iptables_drops_all(hook: Hook) {
    let name = format!("iptables-{}", hook.name());
    let Some(lab) = Lab::new(&name, &["iptables-legacy"]) else { return };
    let routed = lab.routed();
    let chain = hook.name().to_uppercase();
    if let Err(refused) = routed.r.iptables_drop(&chain, &format!("-p udp --dport {}", PORTS.1)) {
        return lab::skip_for_kernel(&name, "iptables-legacy filter table", &refused);
    }
    let dropped = expect_rule_drops(hook, &routed, 10, || routed.r.iptables_packets(&chain));
    assert_eq!(dropped, 10);
}

#[test]
fn nft_input() {
    nft_drops_all(Hook::Input);
}

#[test]
fn nft_forward() {
    nft_drops_all(Hook::Forward);
}

#[test]
fn nft_output() {
    nft_drops_all(Hook::Output);
}

#[test]
fn iptables_input() {
    iptables_drops_all(Hook::Input);
}

#[test]
fn iptables_forward() {
    iptables_drops_all(Hook::Forward);
}

#[test]
fn iptables_output() {
    iptables_drops_all(Hook::Output);
}

#[test]
fn nft_drops_some_at_random() {
    for hook in [Hook::Input, Hook::Output] {
        let Some(lab) = Lab::new(&format!("nft-random-{}", hook.name()), &["nft"]) else { return };
        let routed = lab.routed();
        routed.r.nft_drop(hook.name(), &format!("udp dport {} numgen random mod 2 < 1", PORTS.1));
        let dropped = expect_rule_drops(hook, &routed, 200, || routed.r.nft_packets(hook.name()));
        assert!(dropped < 200, "a rule that drops half of 200 dropped all");
    }
}

#[test]
fn iptables_drops_some_at_random() {
    for hook in [Hook::Input, Hook::Output] {
        let name = format!("iptables-random-{}", hook.name());
        let Some(lab) = Lab::new(&name, &["iptables-legacy"]) else { return };
        let routed = lab.routed();
        let chain = hook.name().to_uppercase();
        let half = "-m statistic --mode random --probability 0.5";
        if let Err(refused) = routed.r.iptables_drop(&chain, &format!("-p udp --dport {} {half}", PORTS.1)) {
            return lab::skip_for_kernel(&name, "iptables-legacy statistic match", &refused);
        }
        let dropped = expect_rule_drops(hook, &routed, 200, || routed.r.iptables_packets(&chain));
        assert!(dropped < 200, "a rule that drops half of 200 dropped all");
    }
}
