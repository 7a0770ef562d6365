//! Which netfilter hook a packet was dropped in, from the stack: the function above the one that runs hooks
//! (`nf_hook_slow`) says family and hook, since each calls it in one place. A bridge runs those of frames that
//! arrive by itself. Table, chain and rule come from the namespace's ruleset ([`crate::rules`]).

use netdrop_common::event::{Announced, DropEvent};
use serde::Serialize;

use super::Observed;
use crate::packet::{Family, Packet};
use crate::rules::{Candidate, Culprit, Dropper, Place, Question, Tool};

/// The netfilter hook of a drop, and the rules that may have dropped the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Netfilter {
    /// `ip`, `ip6`, `arp`, `bridge` or `netdev`, as nft names them.
    pub family: Option<&'static str>,
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress` or `egress`.
    pub hook: Option<&'static str>,
    /// The table, where a hook saw it or all candidates agree; so with the next five.
    pub table: Option<String>,
    /// The chain that holds the rule; that of the hook where no rule was found.
    pub chain: Option<String>,
    /// The rules, as their tool shows them: one, or those of one chain that may have done it.
    pub rules: Option<Vec<String>>,
    /// `reject` when the kernel told the sender by ICMP just before; else what the rules do, `drop` or `reject`. The kernel
    /// alone does not tell that a packet was not rejected: the rate of ICMP errors is limited, and ICMPv6 and resets are
    /// not seen.
    pub verdict: Option<&'static str>,
    /// Family of the table: `inet` serves `ip` and `ip6`.
    pub table_family: Option<String>,
    /// The chain of the hook, where that is another one.
    pub base_chain: Option<String>,
    /// What shows and changes the rules.
    pub tool: Option<Tool>,
    /// Who is known to make chains of this name, and what for.
    pub owner: Option<&'static str>,
    /// From what table and chain of the hook are known: `hook`, `ruleset`. Rules, and the chain that holds them, are
    /// always concluded from the ruleset.
    pub by: Option<&'static str>,
    /// How sure table and chain of the hook are: `observed`, `inferred`.
    pub confidence: Option<&'static str>,
    /// The chains with rules that may have done it, where there are several; of many the first.
    pub candidates: Option<Vec<Candidate>>,
    /// How many rules may have done it.
    pub rule_count: Option<usize>,
}

/// What the surroundings of a drop say of the hook.
#[derive(Clone, Debug)]
pub struct Telling<'a> {
    /// Names of the functions on the stack, innermost first.
    pub functions: &'a [Option<&'a str>],
    /// The function that freed the packet.
    pub location: Option<&'a str>,
    /// Whether nftables frees what its rules drop (since 6.7), instead of leaving that to the hook.
    pub nftables_frees: bool,
    /// The table that a hook saw drop the packet.
    pub observed: Option<&'a Observed>,
}

impl Netfilter {
    /// Family and hook, and the verdict if the kernel was seen to tell the sender.
    #[must_use]
    pub fn new(record: &DropEvent, telling: &Telling<'_>, family: Option<Family>) -> Self {
        let caller = caller(telling.functions);
        let (family, hook) = caller.and_then(|caller| hook(caller, record.iif != 0, family)).unzip();
        let observed = telling.observed;
        let family = family.or_else(|| observed.and_then(|observed| observed.family));
        let hook = hook.or_else(|| observed.and_then(|observed| observed.hook));
        let family = family.or_else(|| observed.and_then(|observed| observed.family));
        let hook = hook.or_else(|| observed.and_then(|observed| observed.hook));
        let verdict = match Announced::from_code(record.announced) {
            Announced::Icmp => Some("reject"),
            Announced::No | Announced::Unknown => None,
        };
        let mut seen = Self { family, hook, verdict, ..Self::default() };
        if let Some(observed) = observed {
            seen.table = Some(observed.table.clone());
            seen.table_family = observed.family.map(str::to_owned);
            seen.chain.clone_from(&observed.base_chain);
            seen.tool = observed.legacy.then_some(Tool::IptablesLegacy);
            (seen.by, seen.confidence) = (Some("hook"), Some("observed"));
        }
        seen
    }

    /// What the ruleset is to be asked; nothing where the hook is not known.
    #[must_use]
    pub fn question<'a>(
        &self,
        record: &DropEvent,
        telling: &Telling<'a>,
        packet: &'a Packet,
        device: Option<&'a str>,
    ) -> Option<Question<'a>> {
        Some(Question {
            place: Place {
                family: self.family?,
                hook: self.hook?,
                device,
                bridged: caller(telling.functions).is_some_and(|caller| caller.contains("br_")),
            },
            dropper: dropper(telling)?,
            packet,
            rejected: self.verdict == Some("reject"),
            time_ns: record.time_ns,
            observed: telling.observed.map(|observed| crate::rules::Observed {
                family: observed.family,
                table: &observed.table,
                chain: observed.base_chain.as_deref(),
            }),
        })
    }

    /// Adds what the ruleset says.
    pub fn name(&mut self, culprit: &Culprit) {
        let chain = culprit.agreed(|candidate| Some(&candidate.chain)).cloned();
        if self.by == Some("hook") {
            // What was observed stays; the chain that holds the rule may be another one.
            let base = std::mem::replace(&mut self.chain, chain);
            self.base_chain = base.filter(|base| self.chain.as_ref() != Some(base));
        } else {
            self.chain = chain;
            self.base_chain = culprit.agreed(|candidate| candidate.base_chain.as_ref()).cloned();
            self.table = culprit.agreed(|candidate| Some(&candidate.table)).cloned();
            self.table_family = culprit.agreed(|candidate| Some(&candidate.table_family)).cloned();
            (self.by, self.confidence) = (Some("ruleset"), Some("inferred"));
        }
        self.tool = culprit.agreed(|candidate| Some(candidate.tool));
        self.owner = culprit.agreed(|candidate| candidate.owner);
        self.verdict = self.verdict.or(culprit.verdict);
        self.rule_count = Some(culprit.rules);
        match &culprit.candidates[..] {
            [one] => self.rules = Some(one.rules.clone()),
            several => self.candidates = Some(several.to_vec()),
        }
    }
}

/// What freed the packet; nothing for functions that no rule stands behind.
fn dropper(telling: &Telling<'_>) -> Option<Dropper> {
    let on_stack = |wanted: &str| telling.functions.iter().flatten().any(|name| *name == wanted);
    if telling.observed.is_some_and(|observed| observed.legacy) {
        return Some(Dropper::OtherThanNftables);
    }
    match telling.location? {
        "nft_do_chain" => {
            // Each has one caller for each kind of chain (net/netfilter/nft_chain_*.c).
            const FAMILIES: [(&str, &str); 7] = [
                ("nft_do_chain_ipv4", "ip"),
                ("nft_do_chain_ipv6", "ip6"),
                ("nft_do_chain_inet", "inet"),
                ("nft_do_chain_arp", "arp"),
                ("nft_do_chain_bridge", "bridge"),
                ("nft_do_chain_inet_ingress", "inet"),
                ("nft_do_chain_netdev", "netdev"),
            ];
            const KINDS: [(&str, &str); 4] = [
                ("nft_nat_do_chain", "nat"),
                ("nf_route_table_hook4", "route"),
                ("nf_route_table_hook6", "route"),
                ("nf_route_table_inet", "route"),
            ];
            let told = |known: &[(&str, &'static str)]| {
                known.iter().find(|(function, _)| on_stack(function)).map(|(_, name)| *name)
            };
            let (family, kind) = (told(&FAMILIES), told(&KINDS));
            // Those callers run chains of this type alone.
            let kind = kind.or(family.map(|_| "filter"));
            Some(Dropper::Nftables { family, kind })
        }
        // Before 6.7 the hook frees what nftables drops.
        "nf_hook_slow" | "nf_hook_slow_list" if telling.observed.is_some() => {
            Some(Dropper::Nftables { family: None, kind: None })
        }
        "nf_queue" | "__nf_queue" | "nf_reinject" => Some(Dropper::Queue),
        "nf_hook_slow" | "nf_hook_slow_list" if telling.nftables_frees => Some(Dropper::OtherThanNftables),
        // What nf_hook_slow() does for frames that arrive.
        "nf_hook_slow" | "nf_hook_slow_list" | "br_handle_frame" => Some(Dropper::Any),
        _ => None,
    }
}

/// The function that had the hooks run.
fn caller<'a>(functions: &[Option<&'a str>]) -> Option<&'a str> {
    // `nf_hook_slow_list` runs them for a whole list, `br_nf_hook_thresh` those that are left.
    let runs = |name: &str| matches!(name, "nf_hook_slow" | "nf_hook_slow_list" | "br_nf_hook_thresh");
    // nf_hook_bridge_pre() is part of it (net/bridge/br_input.c).
    let runs_its_own = |name: &str| name == "br_handle_frame";
    let first =
        functions.iter().position(|name| name.is_some_and(|name| runs(name) || runs_its_own(name)))?;
    functions[first..].iter().find(|name| !name.is_some_and(runs)).copied().flatten()
}

/// Family and hook by the function that runs them (`NF_HOOK` and `nf_hook` in the kernel's net/).
/// `arrived`: the packet came in by a device.
fn hook(caller: &str, arrived: bool, family: Option<Family>) -> Option<(&'static str, &'static str)> {
    // br_netfilter: rules of IPv4 and IPv6 for bridged frames.
    let bridged = |hook| match family {
        Some(Family::Ipv4) => Some(("ip", hook)),
        Some(Family::Ipv6) => Some(("ip6", hook)),
        _ => None,
    };
    Some(match caller {
        "ip_rcv" | "ip_list_rcv" | "ip_sublist_rcv" | "xfrm4_transport_finish" => ("ip", "prerouting"),
        "ip_local_deliver" => ("ip", "input"),
        "ip_forward" | "ipmr_queue_xmit" | "ipmr_queue_fwd_xmit" => ("ip", "forward"),
        "__ip_local_out" | "ip_local_out" | "raw_sendmsg" | "raw_send_hdrinc" => ("ip", "output"),
        "ip_output" | "ip_mc_output" | "xfrm4_output" => ("ip", "postrouting"),
        "ipv6_rcv" | "ipv6_list_rcv" | "ip6_sublist_rcv" | "xfrm6_transport_finish" => ("ip6", "prerouting"),
        "ip6_input" | "ip6_mc_input" => ("ip6", "input"),
        "ip6_forward" | "ip6mr_forward2" => ("ip6", "forward"),
        "ip6_xmit" | "__ip6_local_out" | "ip6_local_out" | "rawv6_sendmsg" | "rawv6_send_hdrinc"
        | "ndisc_send_skb" | "mld_sendpack" | "igmp6_send" => ("ip6", "output"),
        "ip6_output" | "xfrm6_output" => ("ip6", "postrouting"),
        "arp_rcv" => ("arp", "input"),
        "arp_xmit" => ("arp", "output"),
        "br_handle_frame" => ("bridge", "prerouting"),
        "br_pass_frame_up" | "br_handle_local_finish" => ("bridge", "input"),
        "__br_forward" | "br_forward" if arrived => ("bridge", "forward"),
        "__br_forward" | "br_forward" => ("bridge", "output"),
        "br_forward_finish" => ("bridge", "postrouting"),
        // The hooks of the bridge that are left when br_netfilter is done.
        "br_nf_pre_routing_finish" | "br_nf_pre_routing_finish_ipv6" | "br_nf_pre_routing_finish_bridge" => {
            ("bridge", "prerouting")
        }
        "br_nf_forward_finish" => ("bridge", "forward"),
        "br_nf_pre_routing" | "br_nf_pre_routing_ipv6" => return bridged("prerouting"),
        "br_nf_forward_ip" | "br_nf_forward" => return bridged("forward"),
        "br_nf_post_routing" => return bridged("postrouting"),
        "__netif_receive_skb_core" | "__netif_receive_skb_one_core" | "__netif_receive_skb_list_core" => {
            ("netdev", "ingress")
        }
        "__dev_queue_xmit" => ("netdev", "egress"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_of_the_innermost_hook_run_counts() {
        let stack = |names: &[&'static str]| names.iter().map(|name| Some(*name)).collect::<Vec<_>>();
        let nft =
            stack(&["sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "ip_rcv"]);
        assert_eq!(caller(&nft), Some("ip_rcv"));
        let list = stack(&["nf_hook_slow", "nf_hook_slow_list", "ip_sublist_rcv"]);
        assert_eq!(caller(&list), Some("ip_sublist_rcv"));
        let bridged = stack(&["nf_hook_slow", "br_nf_pre_routing", "nf_hook_slow", "br_handle_frame"]);
        assert_eq!(caller(&bridged), Some("br_nf_pre_routing"));
        let arriving =
            stack(&["nft_do_chain", "nft_do_chain_bridge", "br_handle_frame", "nf_hook_slow", "x"]);
        assert_eq!(caller(&arriving), Some("br_handle_frame"));
        let left = stack(&["nft_do_chain", "nf_hook_slow", "br_nf_hook_thresh", "br_nf_forward_finish"]);
        assert_eq!(caller(&left), Some("br_nf_forward_finish"));
        assert_eq!(caller(&stack(&["kfree_skb_reason", "ip_rcv"])), None);
        assert_eq!(caller(&[Some("nf_hook_slow"), None]), None);
    }

    #[test]
    fn a_bridge_sends_and_forwards_by_one_function() {
        assert_eq!(hook("__br_forward", true, None), Some(("bridge", "forward")));
        assert_eq!(hook("__br_forward", false, None), Some(("bridge", "output")));
        assert_eq!(hook("tcp_v4_rcv", true, None), None);
    }

    #[test]
    fn rules_for_bridged_packets_are_those_of_their_family() {
        let forward = |family| hook("br_nf_forward_ip", true, family);
        assert_eq!(forward(Some(Family::Ipv4)), Some(("ip", "forward")));
        assert_eq!(forward(Some(Family::Ipv6)), Some(("ip6", "forward")));
        assert_eq!(forward(None), None);
    }

    fn candidate(chain: &str, base_chain: Option<&str>) -> Candidate {
        Candidate {
            tool: Tool::IptablesLegacy,
            table_family: "ip".to_owned(),
            table: "filter".to_owned(),
            chain: chain.to_owned(),
            base_chain: base_chain.map(str::to_owned),
            rules: vec!["-j DROP".to_owned()],
            owner: None,
        }
    }

    #[test]
    fn what_a_hook_saw_stays_and_the_ruleset_adds_the_rule() {
        let seen = Netfilter {
            table: Some("filter".to_owned()),
            chain: Some("INPUT".to_owned()),
            by: Some("hook"),
            confidence: Some("observed"),
            ..Netfilter::default()
        };
        let named = |candidates: Vec<Candidate>| {
            let mut netfilter = seen.clone();
            netfilter.name(&Culprit { rules: candidates.len(), candidates, verdict: Some("drop") });
            netfilter
        };
        let same = named(vec![candidate("INPUT", None)]);
        assert_eq!((same.chain.as_deref(), same.base_chain.as_deref()), (Some("INPUT"), None));
        assert_eq!((same.by, same.confidence, same.verdict), (Some("hook"), Some("observed"), Some("drop")));
        let jumped = named(vec![candidate("FOO", Some("INPUT"))]);
        assert_eq!((jumped.chain.as_deref(), jumped.base_chain.as_deref()), (Some("FOO"), Some("INPUT")));
        let several = named(vec![candidate("FOO", Some("INPUT")), candidate("INPUT", None)]);
        assert_eq!((several.chain.as_deref(), several.base_chain.as_deref()), (None, Some("INPUT")));
        assert_eq!((several.rules, several.table.as_deref()), (None, Some("filter")));
    }
}
