//! Drops against the causes they must get.

use netdrop_common::facts::{Facts, Network, QdiscKind};
use proptest::prelude::*;

use super::{builtin, drop_at, reasons};
use crate::cause::{Class, Confidence, Drop};

/// What a drop must be called.
pub(super) type Expected = (&'static str, Class, Confidence);

/// A reason, where, what is known of the packet, and what the drop must be called.
pub(super) type Row<'a> = (Option<&'a str>, &'a str, Facts, Expected);

/// Requires the cause of every row.
pub(super) fn check(table: &[Row<'_>]) {
    let catalogue = builtin();
    for (reason, symbol, facts, (id, class, confidence)) in table {
        let verdict = catalogue.classify(&drop_at(*reason, symbol, *facts));
        assert_eq!(
            (verdict.cause.id.as_str(), verdict.class, verdict.confidence),
            (*id, *class, *confidence),
            "{reason:?} at {symbol}: {}",
            verdict.why
        );
    }
}

#[test]
fn drops_get_their_causes() {
    use Class::{Benign, Harmful, Suspect};
    use Confidence::{Inferred, Observed};
    let none = Facts::default();
    let qdisc = |kind, full| none.with_qdisc_kind(kind).with_qdisc_at_limit(full);
    let route = |errno: i32| none.with_route_error(u8::try_from(errno).unwrap());
    let kind = |packet_type| none.with_packet_type(packet_type);
    let last = none.with_last_hop(true);
    let table: &[Row<'_>] = &[
        // Netfilter.
        (Some("NETFILTER_DROP"), "nft_do_chain", none, ("netfilter-rule", Harmful, Observed)),
        (Some("NETFILTER_DROP"), "nf_hook_slow", none, ("netfilter-rule", Harmful, Inferred)),
        (None, "nf_hook_slow", none, ("netfilter-rule", Harmful, Inferred)),
        (Some("NOT_SPECIFIED"), "nf_queue", none, ("netfilter-rule", Harmful, Observed)),
        (Some("NETFILTER_DROP"), "br_handle_frame", none, ("netfilter-rule", Harmful, Inferred)),
        // Routes.
        (Some("IP_INNOROUTES"), "ip_error", route(libc::ENETUNREACH), ("no-route", Suspect, Observed)),
        (Some("IP_INNOROUTES"), "ip6_pkt_discard", none, ("no-route", Suspect, Observed)),
        (Some("IP_INNOROUTES"), "ip6_pkt_prohibit", route(libc::EACCES), ("no-route", Harmful, Observed)),
        (
            Some("IP_INNOROUTES"),
            "ip6_pkt_discard",
            route(libc::EHOSTUNREACH),
            ("no-route", Harmful, Observed),
        ),
        (Some("IP_INNOROUTES"), "ip6_pkt_discard", kind(2), ("not-for-this-host", Benign, Observed)),
        (None, "ip6_pkt_drop", route(libc::EACCES).with_packet_type(2), ("no-route", Harmful, Observed)),
        (None, "ip6_pkt_drop", kind(2), ("not-for-this-host", Benign, Inferred)),
        (Some("NOT_SPECIFIED"), "ip_error", route(libc::EHOSTUNREACH), ("no-route", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "ip_error", route(libc::EACCES), ("no-route", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "ip_error", route(libc::EINVAL), ("no-route", Harmful, Observed)),
        (None, "ip_error", route(libc::ENETUNREACH), ("no-route", Suspect, Observed)),
        (None, "ip_error", route(libc::EINVAL), ("no-route", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "dst_discard_out", route(libc::EINVAL), ("no-route", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "dst_discard", none, ("interface-down", Suspect, Inferred)),
        (Some("IP_INADDRERRORS"), "ip_error", none, ("no-route", Suspect, Observed)),
        (Some("IP_INHDR"), "ip_forward", last, ("ttl-expired", Suspect, Observed)),
        (Some("IP_INHDR"), "ip6_forward", last, ("ttl-expired", Suspect, Observed)),
        (Some("IP_INHDR"), "ip_rcv_core", last, ("malformed-header", Suspect, Observed)),
        (None, "ip_forward", last, ("ttl-expired", Suspect, Inferred)),
        (None, "ip_forward", none, ("mtu-exceeded", Harmful, Inferred)),
        (Some("NOT_SPECIFIED"), "ip_forward", none, ("unknown", Suspect, Inferred)),
        (Some("IP_RPFILTER"), "ip_rcv_finish_core", none, ("reverse-path-filter", Harmful, Observed)),
        (None, "ip_rcv_finish_core", none, ("reverse-path-filter", Harmful, Inferred)),
        (Some("NOT_SPECIFIED"), "ip_rcv_finish_core", none, ("martian-address", Suspect, Inferred)),
        (Some("NOT_SPECIFIED"), "ip_rcv_finish_core", kind(2), ("not-for-this-host", Benign, Inferred)),
        (None, "ip_rcv_finish_core", kind(2), ("not-for-this-host", Benign, Inferred)),
        // Checksums.
        (Some("TCP_CSUM"), "tcp_v4_rcv", none, ("checksum-error", Harmful, Observed)),
        (Some("UDP_CSUM"), "__udp4_lib_rcv", none, ("checksum-error", Harmful, Observed)),
        (Some("IP_CSUM"), "ip_rcv_core", none, ("checksum-error", Harmful, Observed)),
        (Some("ICMP_CSUM"), "icmp_rcv", none, ("checksum-error", Harmful, Observed)),
        // Queues.
        (
            Some("QDISC_DROP"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Other, false),
            ("qdisc-overlimit", Harmful, Inferred),
        ),
        (
            Some("QDISC_DROP"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Other, true),
            ("qdisc-overlimit", Harmful, Observed),
        ),
        (
            Some("QDISC_DROP"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Netem, false),
            ("qdisc-netem-loss", Harmful, Observed),
        ),
        (
            Some("QDISC_DROP"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Netem, true),
            ("qdisc-overlimit", Harmful, Observed),
        ),
        (
            Some("QDISC_DROP"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Noop, false),
            ("interface-down", Suspect, Observed),
        ),
        (
            Some("qdisc:GENERIC"),
            "__dev_queue_xmit",
            qdisc(QdiscKind::Noop, false),
            ("interface-down", Suspect, Observed),
        ),
        (Some("qdisc:OVERLIMIT"), "__dev_queue_xmit", none, ("qdisc-overlimit", Harmful, Observed)),
        (Some("qdisc:L4S_STEP_NON_ECN"), "dualpi2_dequeue", none, ("qdisc-other", Suspect, Observed)),
        (None, "kfree_skb_list", qdisc(QdiscKind::Other, false), ("qdisc-overlimit", Harmful, Inferred)),
        (None, "kfree_skb_list", qdisc(QdiscKind::Netem, false), ("qdisc-netem-loss", Harmful, Inferred)),
        (None, "kfree_skb_list", none, ("unknown", Suspect, Inferred)),
        (None, "__dev_queue_xmit", none, ("tc-filter-drop", Harmful, Inferred)),
        (Some("CPU_BACKLOG"), "enqueue_to_backlog", none, ("cpu-backlog-full", Harmful, Observed)),
        // Neighbours.
        (Some("NEIGH_FAILED"), "neigh_invalidate", none, ("neighbour-unresolved", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "neigh_invalidate", none, ("neighbour-unresolved", Harmful, Observed)),
        (None, "__neigh_event_send", none, ("neighbour-unresolved", Harmful, Inferred)),
        (Some("NEIGH_CREATEFAIL"), "ip_finish_output2", none, ("neighbour-table-full", Harmful, Inferred)),
        (Some("NEIGH_QUEUEFULL"), "__neigh_event_send", none, ("neighbour-queue-full", Harmful, Observed)),
        // Filters.
        (Some("TC_INGRESS"), "__netif_receive_skb_core", none, ("tc-filter-drop", Harmful, Observed)),
        (
            None,
            "__netif_receive_skb_core",
            none.with_network(Network::Ipv4),
            ("tc-filter-drop", Harmful, Inferred),
        ),
        (
            None,
            "__netif_receive_skb_core",
            none.with_network(Network::Other),
            ("protocol-unhandled", Benign, Inferred),
        ),
        (Some("NOT_SPECIFIED"), "do_xdp_generic", none, ("xdp-drop", Harmful, Observed)),
        (Some("NOT_SPECIFIED"), "veth_xdp_rcv_skb", none, ("xdp-drop", Harmful, Observed)),
        (Some("BPF_CGROUP_EGRESS"), "ip_finish_output", none, ("cgroup-bpf-drop", Harmful, Observed)),
        (Some("SOCKET_FILTER"), "tcp_v4_rcv", none, ("socket-filter-drop", Harmful, Observed)),
        (Some("SOCKET_FILTER"), "raw_rcv_skb", none, ("socket-filter-drop", Benign, Observed)),
        // Overlays.
        (Some("NOT_SPECIFIED"), "br_dev_xmit", none, ("bridge-drop", Suspect, Inferred)),
        (Some("NOT_SPECIFIED"), "br_dev_queue_push_xmit", none, ("mtu-exceeded", Harmful, Inferred)),
        (Some("NOT_SPECIFIED"), "macvlan_handle_frame", kind(1), ("bridge-drop", Harmful, Inferred)),
        (Some("NOT_SPECIFIED"), "macvlan_handle_frame", none, ("bridge-drop", Suspect, Inferred)),
        (Some("NO_TX_TARGET"), "br_flood", none, ("bridge-drop", Suspect, Observed)),
        (Some("NO_TX_TARGET"), "vxlan_xmit", none, ("tunnel-drop", Suspect, Observed)),
        (Some("openvswitch:METER"), "do_execute_actions", none, ("openvswitch-drop", Harmful, Observed)),
        (
            Some("openvswitch:OVS_DROP_METER"),
            "do_execute_actions",
            none,
            ("openvswitch-drop", Harmful, Observed),
        ),
        (Some("openvswitch:IP_TTL"), "do_execute_actions", none, ("ttl-expired", Suspect, Observed)),
        (Some("mac80211_unusable:REPLAY"), "ieee80211_rx_list", none, ("wireless-drop", Suspect, Observed)),
        (Some("NOT_SPECIFIED"), "__dev_forward_skb2", none, ("unknown", Suspect, Inferred)),
        // Noise.
        (Some("NOT_SPECIFIED"), "__udp4_lib_rcv", kind(0), ("unknown", Suspect, Inferred)),
        (Some("NOT_SPECIFIED"), "__udp6_lib_rcv", kind(0), ("malformed-header", Suspect, Inferred)),
        (Some("OTHERHOST"), "ip_rcv_core", kind(3), ("not-for-this-host", Benign, Observed)),
        (None, "ip_rcv_core", kind(3), ("not-for-this-host", Benign, Observed)),
        (Some("NOT_SPECIFIED"), "ip6_mc_input", kind(2), ("not-for-this-host", Benign, Observed)),
        (Some("NOT_SPECIFIED"), "__udp4_lib_rcv", kind(5), ("not-for-this-host", Benign, Inferred)),
        (Some("IPV6DISABLED"), "ip6_rcv_core", kind(2), ("protocol-unhandled", Benign, Observed)),
        (Some("IPV6DISABLED"), "ip6_rcv_core", none, ("protocol-unhandled", Suspect, Observed)),
        (Some("QUEUE_PURGE"), "sk_stream_kill_queues", none, ("queue-purge", Benign, Observed)),
        (Some("NOT_SPECIFIED"), "udp_destruct_common", none, ("queue-purge", Benign, Observed)),
        (None, "tcp_close", none, ("queue-purge", Benign, Inferred)),
        (Some("DEV_READY"), "flush_backlog", none, ("queue-purge", Benign, Observed)),
        (Some("DEV_READY"), "tun_net_xmit", none, ("interface-down", Suspect, Observed)),
        (Some("PACKET_SOCK_ERROR"), "packet_rcv", none, ("capture-copy-dropped", Benign, Observed)),
        (Some("NOT_SPECIFIED"), "tpacket_rcv", none, ("capture-copy-dropped", Benign, Observed)),
        (None, "icmpv6_rcv", none, ("processed-normally", Benign, Inferred)),
        (Some("NOT_SPECIFIED"), "some_driver_rx", none, ("unknown", Suspect, Inferred)),
    ];
    check(table);
}

#[test]
fn why_says_what_it_rests_on() {
    let catalogue = builtin();
    let why = |drop: &Drop<'_>| catalogue.classify(drop).why;
    let none = Facts::default();
    assert_eq!(
        why(&drop_at("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", none)),
        "SOCKET_RCVBUFF at udp_queue_rcv_one_skb"
    );
    assert_eq!(
        why(&drop_at("NOT_SPECIFIED", "ip_error", none.with_route_error(libc::EINVAL as u8))),
        "NOT_SPECIFIED at ip_error, route error EINVAL: a route of type blackhole"
    );
    let vxlan = Drop { module: Some("vxlan"), ..drop_at("VXLAN_VNI_NOT_FOUND", "vxlan_rcv.isra.0", none) };
    assert_eq!(why(&vxlan), "VXLAN_VNI_NOT_FOUND at vxlan_rcv [vxlan]");
    let nowhere = Drop { reason: None, symbol: None, module: None, facts: none };
    assert_eq!(why(&nowhere), "no reason given, function not known: no rule for this");
}

proptest! {
    #[test]
    fn classify_always_ends_in_a_cause(
        reason in prop::option::of(prop_oneof![
            prop::sample::select(reasons().collect::<Vec<_>>()).prop_map(str::to_owned),
            "\\PC{0,20}",
        ]),
        symbol in prop::option::of(prop_oneof![
            prop::sample::select(vec!["tcp_v4_rcv", "ip_forward", "__dev_queue_xmit", "ip_error", "br_flood", "ip_rcv_core"])
                .prop_map(str::to_owned),
            "\\PC{0,20}",
        ]),
        facts in any::<u64>(),
    ) {
        let catalogue = builtin();
        let drop = Drop {
            reason: reason.as_deref(),
            symbol: symbol.as_deref(),
            module: None,
            facts: Facts(facts),
        };
        let verdict = catalogue.classify(&drop);
        prop_assert!(catalogue.get(&verdict.cause.id).is_some());
        prop_assert!(!verdict.why.is_empty());
    }
}
