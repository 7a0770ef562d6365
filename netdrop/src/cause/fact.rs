//! Facts a rule can ask for: their names, values and the group that gathers them.
//!
//! The facts themselves are packed by the kernel side, see [`netdrop_common::facts`]. Here is only what
//! the catalogue needs: spelling to value and back.

use netdrop_common::{
    codes::{Conntrack, ListenDrop, Network, QdiscKind, TcpClass, TcpDiscard, Transport, VethPeer},
    facts::Facts,
    gather::Gather,
};

/// A fact of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fact {
    /// Network-layer protocol.
    Network,
    /// Transport-layer protocol.
    Transport,
    /// Kind of TCP segment.
    TcpClass,
    /// `skb->pkt_type`.
    PacketType,
    /// TTL or hop limit is used up.
    LastHop,
    /// State of the receiving socket.
    SocketState,
    /// Error of the packet's route.
    RouteError,
    /// Kind of the qdisc that the drop is put down to.
    QdiscKind,
    /// Whether that qdisc is at its limit.
    QdiscAtLimit,
    /// Whether the receiving socket's buffer has no room for the packet.
    ReceiveBufferFull,
    /// State of a veth's other end.
    VethPeer,
    /// What a listener did with the packet.
    Listen,
    /// What connection tracking did with the packet.
    Conntrack,
    /// Why TCP discarded the segment.
    TcpDiscard,
}

/// `skb->pkt_type` (include/uapi/linux/if_packet.h).
const PACKET_TYPES: &[(u8, &str)] =
    &[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "otherhost"), (4, "outgoing"), (5, "loopback")];

/// TCP states (include/net/tcp_states.h); 0 stands for "no socket known".
const SOCKET_STATES: &[(u8, &str)] = &[
    (0, "none"),
    (1, "established"),
    (2, "syn-sent"),
    (3, "syn-recv"),
    (4, "fin-wait-1"),
    (5, "fin-wait-2"),
    (6, "time-wait"),
    (7, "close"),
    (8, "close-wait"),
    (9, "last-ack"),
    (10, "listen"),
    (11, "closing"),
    (12, "new-syn-recv"),
    (13, "bound-inactive"),
];

/// The spelling of a TCP state.
pub(crate) fn socket_state(state: u8) -> &'static str {
    SOCKET_STATES.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, name)| *name)
}

/// Errors a route can carry (net/ipv4/fib_semantics.c, net/ipv6/route.c).
const ROUTE_ERRORS: &[(u8, &str)] = &[
    (0, "none"),
    (libc::EAGAIN as u8, "EAGAIN"),
    (libc::EACCES as u8, "EACCES"),
    (libc::EINVAL as u8, "EINVAL"),
    (libc::ENETUNREACH as u8, "ENETUNREACH"),
    (libc::EHOSTUNREACH as u8, "EHOSTUNREACH"),
];

impl Fact {
    /// Every fact.
    pub(crate) const ALL: &[Self] = &[
        Self::Network,
        Self::Transport,
        Self::TcpClass,
        Self::PacketType,
        Self::LastHop,
        Self::SocketState,
        Self::RouteError,
        Self::QdiscKind,
        Self::QdiscAtLimit,
        Self::ReceiveBufferFull,
        Self::VethPeer,
        Self::Listen,
        Self::Conntrack,
        Self::TcpDiscard,
    ];

    /// The key in a rule's `facts`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Transport => "transport",
            Self::TcpClass => "tcp_class",
            Self::PacketType => "packet_type",
            Self::LastHop => "last_hop",
            Self::SocketState => "socket_state",
            Self::RouteError => "route_error",
            Self::QdiscKind => "qdisc_kind",
            Self::QdiscAtLimit => "qdisc_at_limit",
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::VethPeer => "veth_peer",
            Self::Listen => "listen",
            Self::Conntrack => "conntrack",
            Self::TcpDiscard => "tcp_discard",
        }
    }

    /// The fact with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fact| fact.name() == name)
    }

    /// The group that gathers it.
    pub(crate) const fn group(self) -> Gather {
        match self {
            Self::Network | Self::Transport | Self::TcpClass | Self::PacketType | Self::LastHop => {
                Gather::PACKET
            }
            Self::SocketState | Self::ReceiveBufferFull => Gather::SOCKET,
            Self::RouteError => Gather::ROUTE,
            Self::QdiscKind | Self::QdiscAtLimit => Gather::QDISC,
            Self::VethPeer => Gather::VETH_PEER,
            Self::Listen => Gather::LISTEN,
            Self::Conntrack => Gather::CONNTRACK,
            Self::TcpDiscard => Gather::TCP_DISCARD,
        }
    }

    /// Its value among these facts.
    pub(crate) const fn read(self, facts: Facts) -> u8 {
        match self {
            Self::Network => facts.network() as u8,
            Self::Transport => facts.transport() as u8,
            Self::TcpClass => facts.tcp_class() as u8,
            Self::PacketType => facts.packet_type(),
            Self::LastHop => facts.last_hop() as u8,
            Self::SocketState => facts.socket_state(),
            Self::RouteError => facts.route_error(),
            Self::QdiscKind => facts.qdisc_kind() as u8,
            Self::QdiscAtLimit => facts.qdisc_at_limit() as u8,
            Self::ReceiveBufferFull => facts.receive_buffer_full() as u8,
            Self::VethPeer => facts.veth_peer() as u8,
            Self::Listen => facts.listen() as u8,
            Self::Conntrack => facts.conntrack() as u8,
            Self::TcpDiscard => facts.tcp_discard() as u8,
        }
    }

    /// Values and their spellings; for yes-or-no facts "false" and "true".
    pub(crate) fn values(self) -> Vec<(u8, &'static str)> {
        match self {
            Self::Network => Network::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::Transport => Transport::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::TcpClass => TcpClass::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::QdiscKind => QdiscKind::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::PacketType => PACKET_TYPES.to_vec(),
            Self::SocketState => SOCKET_STATES.to_vec(),
            Self::RouteError => ROUTE_ERRORS.to_vec(),
            Self::VethPeer => VethPeer::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::Listen => ListenDrop::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::Conntrack => Conntrack::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::TcpDiscard => TcpDiscard::ALL.iter().map(|v| (*v as u8, v.name())).collect(),
            Self::LastHop | Self::QdiscAtLimit | Self::ReceiveBufferFull => vec![(0, "false"), (1, "true")],
        }
    }

    /// The spelling of a value, or its number.
    pub(crate) fn spell(self, value: u8) -> String {
        self.values()
            .into_iter()
            .find(|(known, _)| *known == value)
            .map_or_else(|| value.to_string(), |(_, name)| name.to_owned())
    }

    /// The fact in words, for "why" and for conditions of a rule.
    pub(crate) fn phrase(self, values: &[u8]) -> String {
        let listed = || values.iter().map(|value| self.spell(*value)).collect::<Vec<_>>().join(" or ");
        let yes = values == [1];
        match self {
            Self::Network => format!("network {}", listed()),
            Self::Transport => format!("transport {}", listed()),
            Self::TcpClass => format!("TCP {}", listed()),
            Self::PacketType => format!("packet type {}", listed()),
            Self::LastHop => if yes { "TTL used up" } else { "TTL left" }.to_owned(),
            Self::SocketState => format!("socket state {}", listed()),
            Self::RouteError => format!("route error {}", listed()),
            Self::QdiscKind => format!("qdisc kind {}", listed()),
            Self::ReceiveBufferFull => {
                if yes { "receive buffer full" } else { "room in the receive buffer" }.to_owned()
            }
            Self::VethPeer => format!("other end of the veth {}", listed()),
            Self::Listen => format!("listener: {}", listed()),
            Self::Conntrack => format!("conntrack: {}", listed()),
            Self::TcpDiscard => format!("TCP: {}", listed()),
            Self::QdiscAtLimit => if yes { "queue at its limit" } else { "queue below its limit" }.to_owned(),
        }
    }
}

/// Keys of the JSON object `evidence` that a cause may list, and the groups that the kernel side must read for
/// them; none where nothing is read for the key alone.
const EVIDENCE: &[(&str, Gather)] = &[
    ("socket", Gather::NONE),
    ("route", Gather::NONE),
    ("memory", Gather::MEMORY),
    ("neighbour", Gather::NEIGHBOUR),
    ("mtu", Gather::MTU),
    ("qdisc", Gather::QDISC_FIGURES),
    ("netfilter", Gather::NETFILTER),
    ("netfilter.rules", Gather::NONE),
    ("conntrack", Gather::NONE),
    ("listen", Gather::LISTENER),
    ("witness", Gather::NONE),
    ("call", Gather::NONE),
    ("ports", Gather::NONE),
    ("holder", Gather::NONE),
];

/// The evidence groups behind a key; nothing for a key that no event has.
pub(crate) fn evidence_group(key: &str) -> Option<Gather> {
    EVIDENCE.iter().find(|(known, _)| *known == key).map(|(_, group)| *group)
}
