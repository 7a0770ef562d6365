//! Drops of the network layer that the reason alone does not tell apart.

use netdrop_common::facts::{Facts, Network, TcpClass, Transport, VethPeer};

use super::{builtin, drop_at};
use crate::cause::{Class, Confidence};

/// Cause, class and confidence of a drop.
#[track_caller]
fn verdict(reason: &str, symbol: &str, facts: Facts) -> (&'static str, Class, Confidence) {
    let verdict = builtin().classify(&drop_at(reason, symbol, facts));
    (verdict.cause.id.as_str(), verdict.class, verdict.confidence)
}

fn none() -> Facts {
    Facts::default()
}

#[test]
fn ipv6_headers_are_wrong_in_different_ways() {
    use Class::Suspect;
    use Confidence::{Inferred, Observed};
    let header = none().with_network(Network::Ipv6);
    let whole = header.with_transport(Transport::Udp);
    for (reason, symbol, facts, expected) in [
        // An address, where the header is all there.
        ("IP_INHDR", "ip6_rcv_core", whole, ("martian-address", Suspect, Inferred)),
        ("IP_INHDR", "ip6_rcv_core", header, ("malformed-header", Suspect, Observed)),
        ("IP_INHDR", "ip6_forward", whole.with_last_hop(true), ("ttl-expired", Suspect, Observed)),
        ("IP_INHDR", "ip6_parse_tlv", whole, ("malformed-header", Suspect, Observed)),
        ("IP_INHDR", "ip_rcv_core", whole, ("malformed-header", Suspect, Observed)),
        // A version, not a protocol.
        ("UNHANDLED_PROTO", "ip6_rcv_core", none(), ("malformed-header", Suspect, Observed)),
        (
            "UNHANDLED_PROTO",
            "__netif_receive_skb_core",
            none(),
            ("protocol-unhandled", Class::Benign, Observed),
        ),
        ("NOT_SPECIFIED", "ipv6_destopt_rcv", whole, ("malformed-header", Suspect, Inferred)),
        ("NOT_SPECIFIED", "arp_process", none(), ("malformed-header", Suspect, Inferred)),
        // Forwarding is off, or the source is link-local.
        ("IP_INADDRERRORS", "ip6_forward", whole, ("no-route", Suspect, Inferred)),
        ("IP_INADDRERRORS", "ip_error", none(), ("no-route", Suspect, Observed)),
    ] {
        assert_eq!(verdict(reason, symbol, facts), expected, "{reason} at {symbol}");
    }
}

#[test]
fn the_other_end_of_a_veth_tells_what_was_wrong() {
    let peer = |state| verdict("NOT_SPECIFIED", "__dev_forward_skb2", none().with_veth_peer(state));
    assert_eq!(peer(VethPeer::TooLong), ("mtu-exceeded", Class::Harmful, Confidence::Observed));
    assert_eq!(peer(VethPeer::Down), ("interface-down", Class::Suspect, Confidence::Observed));
    for state in [VethPeer::Up, VethPeer::Unknown] {
        assert_eq!(peer(state), ("unknown", Class::Suspect, Confidence::Inferred));
    }
}

#[test]
fn a_tcp_header_that_is_cut_off() {
    let tcp = none().with_network(Network::Ipv4).with_transport(Transport::Tcp);
    for symbol in ["tcp_v4_rcv", "tcp_v6_rcv"] {
        let (id, ..) = verdict("NOT_SPECIFIED", symbol, tcp);
        assert_eq!(id, "malformed-header");
        // With a header it is something else.
        let (id, ..) = verdict("NOT_SPECIFIED", symbol, tcp.with_tcp_class(TcpClass::Ack));
        assert_ne!(id, "malformed-header");
    }
}

#[test]
fn packets_that_could_not_be_cut() {
    let (id, class, confidence) = verdict("NOT_SPECIFIED", "ip_fragment", none());
    assert_eq!((id, class, confidence), ("mtu-exceeded", Class::Harmful, Confidence::Inferred));
    let (id, class, confidence) = verdict("NOT_SPECIFIED", "validate_xmit_skb", none());
    assert_eq!((id, class, confidence), ("offload-failure", Class::Suspect, Confidence::Inferred));
}
