//! Which netfilter hook a packet was dropped in, from the stack: the function above the one that runs hooks
//! (`nf_hook_slow`) says family and hook, since each calls it in one place. A bridge runs those of frames that
//! arrive by itself.

use netdrop_common::event::{Announced, DropEvent};
use serde::Serialize;

use super::Observed;
use crate::packet::Family;

/// The netfilter hook of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Netfilter {
    /// `ip`, `ip6`, `arp`, `bridge` or `netdev`, as nft names them.
    pub family: Option<&'static str>,
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress` or `egress`.
    pub hook: Option<&'static str>,
    /// The table, where a hook saw it.
    pub table: Option<String>,
    /// The built-in or base chain, where a hook saw it.
    pub chain: Option<String>,
    /// Not told yet.
    pub rules: Option<Vec<String>>,
    /// `reject` when the kernel told the sender by ICMP just before. Else nothing, for a rule that rejects may
    /// keep silent (the rate of ICMP errors is limited) or answer unseen (by ICMPv6, or by a reset).
    pub verdict: Option<&'static str>,
}

/// What the surroundings of a drop say of the hook.
#[derive(Clone, Debug)]
pub struct Telling<'a> {
    /// Names of the functions on the stack, innermost first.
    pub functions: &'a [Option<&'a str>],
}

impl Netfilter {
    pub(super) fn new(
        record: &DropEvent,
        telling: Option<&Telling<'_>>,
        observed: Option<&Observed>,
        family: Option<Family>,
    ) -> Self {
        let caller = telling.and_then(|telling| caller(telling.functions));
        let (family, hook) = caller.and_then(|caller| hook(caller, record.iif != 0, family)).unzip();
        let family = family.or_else(|| observed.and_then(|observed| observed.family));
        let hook = hook.or_else(|| observed.and_then(|observed| observed.hook));
        let verdict = match Announced::from_code(record.announced) {
            Announced::Icmp => Some("reject"),
            Announced::No | Announced::Unknown => None,
        };
        let table = observed.map(|observed| observed.table.clone());
        let chain = observed.and_then(|observed| observed.base_chain.clone());
        Self { family, hook, table, chain, rules: None, verdict }
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
}
