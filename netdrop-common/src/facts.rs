//! The discriminator of a `kfree_skb` key: facts a cause rule may ask for, packed into 64 bits.
//!
//! Only the facts that the catalogue's rules for a reason need are gathered (see [`Gather`]): the others
//! stay 0, which keeps counting cheap and the number of keys small.

/// Groups of facts and of evidence, as bits of the per-reason table that userspace fills from the catalogue.
///
/// Facts are part of the counter key and so gathered for every drop; evidence goes into events alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gather(pub u16);

impl Gather {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Fact: network and transport protocol, TCP flag class, TTL, packet type.
    pub const PACKET: Self = Self(1);
    /// Fact: state of the receiving socket, and whether its buffer is full.
    pub const SOCKET: Self = Self(1 << 1);
    /// Fact: error of the route (`dst->error`).
    pub const ROUTE: Self = Self(1 << 2);
    /// Fact: kind of the device's root qdisc, and whether it is at its limit.
    pub const QDISC: Self = Self(1 << 3);
    /// Fact: state of the other end of a veth.
    pub const VETH_PEER: Self = Self(1 << 4);
    /// Evidence: kind, handle, limit and length of the root qdisc.
    pub const QDISC_FIGURES: Self = Self(1 << 8);
    /// Evidence: entries and limits of the neighbour table.
    pub const NEIGHBOUR: Self = Self(1 << 9);
    /// Evidence: the MTU that the packet met.
    pub const MTU: Self = Self(1 << 10);
    /// Evidence: memory of all sockets of the protocol.
    pub const MEMORY: Self = Self(1 << 11);
    /// Evidence: the functions around the netfilter hook.
    pub const NETFILTER: Self = Self(1 << 12);
    /// Everything, but the costly look at the stack: for drops that carry no reason.
    pub const ALL: Self = Self(0x0f1f);

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The groups of facts among these.
    #[must_use]
    pub const fn facts(self) -> Self {
        Self(self.0 & 0xff)
    }

    /// Both groups.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Entries of the per-reason gather table; reasons beyond it, and those of subsystems, gather all.
pub const GATHER_TABLE: usize = 256;

macro_rules! code {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            #[default]
            $($(#[$vdoc])* $variant = $value,)*
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value a code stands for; an unknown code reads as the first value, "not known".
            #[must_use]
            pub const fn from_code(code: u8) -> Self {
                match code {
                    $($value => Self::$variant,)*
                    _ => Self::ALL[0],
                }
            }

            /// The spelling used in catalogue rules.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The value with this spelling.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

code! {
    /// Network-layer protocol.
    Network {
        /// Not gathered or not readable.
        Unknown = 0, "unknown";
        /// IPv4.
        Ipv4 = 1, "ipv4";
        /// IPv6.
        Ipv6 = 2, "ipv6";
        /// ARP.
        Arp = 3, "arp";
        /// Any other ethertype.
        Other = 4, "other";
    }
}

code! {
    /// Transport-layer protocol.
    Transport {
        /// Not gathered or not readable.
        Unknown = 0, "unknown";
        /// TCP.
        Tcp = 1, "tcp";
        /// UDP.
        Udp = 2, "udp";
        /// ICMP for IPv4.
        Icmp = 3, "icmp";
        /// ICMP for IPv6.
        Icmp6 = 4, "icmp6";
        /// A later fragment: it carries no transport header.
        Fragment = 5, "fragment";
        /// Any other protocol.
        Other = 6, "other";
    }
}

code! {
    /// What kind of segment a TCP packet is.
    TcpClass {
        /// Not TCP, not gathered or not readable.
        None = 0, "none";
        /// SYN without ACK.
        Syn = 1, "syn";
        /// SYN and ACK.
        SynAck = 2, "syn-ack";
        /// RST, with or without ACK.
        Rst = 3, "rst";
        /// FIN, with or without ACK.
        Fin = 4, "fin";
        /// ACK with nothing else.
        Ack = 5, "ack";
        /// ACK and PSH: carries data.
        Psh = 6, "psh";
        /// No flag, or a combination that no TCP sends.
        Odd = 7, "odd";
    }
}

code! {
    /// Kind of the root qdisc of the skb's device (`Qdisc.ops->id`).
    QdiscKind {
        /// Not gathered, or no device.
        Unknown = 0, "unknown";
        /// noop: the device has no carrier or is coming up.
        Noop = 1, "noop";
        /// noqueue: software devices.
        Noqueue = 2, "noqueue";
        /// netem.
        Netem = 3, "netem";
        /// Any other kind.
        Other = 4, "other";
    }
}

code! {
    /// The other end of a veth, as `is_skb_forwardable` (net/core/dev.c) sees it.
    VethPeer {
        /// Not gathered, no veth, or a kernel that does not tell.
        Unknown = 0, "unknown";
        /// Up, and the frame fits.
        Up = 1, "up";
        /// Not IFF_UP.
        Down = 2, "down";
        /// Up, and the frame is longer than its MTU allows.
        TooLong = 3, "too-long";
    }
}

/// TCP flag bits as they stand in byte 13 of the header (RFC 9293).
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

impl TcpClass {
    /// The class of a segment with these flag bits.
    #[must_use]
    pub const fn from_flags(flags: u8) -> Self {
        let syn = flags & tcp::SYN != 0;
        let fin = flags & tcp::FIN != 0;
        if flags & tcp::RST != 0 {
            if syn || fin { Self::Odd } else { Self::Rst }
        } else if syn {
            if fin {
                Self::Odd
            } else if flags & tcp::ACK != 0 {
                Self::SynAck
            } else {
                Self::Syn
            }
        } else if flags & tcp::ACK == 0 {
            Self::Odd
        } else if fin {
            Self::Fin
        } else if flags & tcp::PSH != 0 {
            Self::Psh
        } else {
            Self::Ack
        }
    }
}

/// The packed facts of one key. 0 means that nothing was gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts(pub u64);

/// One bit field of [`Facts`].
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    const fn get(self, word: u64) -> u8 {
        ((word >> self.shift) & ((1 << self.bits) - 1)) as u8
    }

    const fn set(self, word: u64, value: u8) -> u64 {
        let mask = ((1u64 << self.bits) - 1) << self.shift;
        (word & !mask) | (((value as u64) << self.shift) & mask)
    }
}

const NETWORK: Field = Field { shift: 0, bits: 3 };
const TRANSPORT: Field = Field { shift: 3, bits: 4 };
const TCP_CLASS: Field = Field { shift: 7, bits: 4 };
const PACKET_TYPE: Field = Field { shift: 11, bits: 3 };
const LAST_HOP: Field = Field { shift: 14, bits: 1 };
const SOCKET_STATE: Field = Field { shift: 16, bits: 4 };
const ROUTE_ERROR: Field = Field { shift: 20, bits: 8 };
const QDISC_KIND: Field = Field { shift: 28, bits: 4 };
const QDISC_AT_LIMIT: Field = Field { shift: 32, bits: 1 };
const RECEIVE_BUFFER_FULL: Field = Field { shift: 33, bits: 1 };
const VETH_PEER: Field = Field { shift: 34, bits: 2 };

impl Facts {
    /// Network-layer protocol.
    #[must_use]
    pub const fn network(self) -> Network {
        Network::from_code(NETWORK.get(self.0))
    }

    /// Transport-layer protocol.
    #[must_use]
    pub const fn transport(self) -> Transport {
        Transport::from_code(TRANSPORT.get(self.0))
    }

    /// Kind of TCP segment.
    #[must_use]
    pub const fn tcp_class(self) -> TcpClass {
        TcpClass::from_code(TCP_CLASS.get(self.0))
    }

    /// `skb->pkt_type` (include/uapi/linux/if_packet.h): 0 to us, 3 to another host.
    #[must_use]
    pub const fn packet_type(self) -> u8 {
        PACKET_TYPE.get(self.0)
    }

    /// Whether TTL or hop limit is 1 or less: a router must not forward the packet.
    #[must_use]
    pub const fn last_hop(self) -> bool {
        LAST_HOP.get(self.0) != 0
    }

    /// State of the receiving socket (include/net/tcp_states.h); 0 without a socket (rx_sk, since 6.11).
    #[must_use]
    pub const fn socket_state(self) -> u8 {
        SOCKET_STATE.get(self.0)
    }

    /// `-dst->error` of the packet's route: an errno, 0 for a good or absent route.
    #[must_use]
    pub const fn route_error(self) -> u8 {
        ROUTE_ERROR.get(self.0)
    }

    /// Kind of the root qdisc.
    #[must_use]
    pub const fn qdisc_kind(self) -> QdiscKind {
        QdiscKind::from_code(QDISC_KIND.get(self.0))
    }

    /// Whether the root qdisc holds as many packets as its limit allows.
    #[must_use]
    pub const fn qdisc_at_limit(self) -> bool {
        QDISC_AT_LIMIT.get(self.0) != 0
    }

    /// Whether the receiving socket's buffer has no room for this packet; false without a socket.
    #[must_use]
    pub const fn receive_buffer_full(self) -> bool {
        RECEIVE_BUFFER_FULL.get(self.0) != 0
    }

    /// State of the veth's other end.
    #[must_use]
    pub const fn veth_peer(self) -> VethPeer {
        VethPeer::from_code(VETH_PEER.get(self.0))
    }

    /// With the network-layer protocol.
    #[must_use]
    pub const fn with_network(self, value: Network) -> Self {
        Self(NETWORK.set(self.0, value as u8))
    }

    /// With the transport-layer protocol.
    #[must_use]
    pub const fn with_transport(self, value: Transport) -> Self {
        Self(TRANSPORT.set(self.0, value as u8))
    }

    /// With the kind of TCP segment.
    #[must_use]
    pub const fn with_tcp_class(self, value: TcpClass) -> Self {
        Self(TCP_CLASS.set(self.0, value as u8))
    }

    /// With `skb->pkt_type`.
    #[must_use]
    pub const fn with_packet_type(self, value: u8) -> Self {
        Self(PACKET_TYPE.set(self.0, value))
    }

    /// With the last-hop bit.
    #[must_use]
    pub const fn with_last_hop(self, value: bool) -> Self {
        Self(LAST_HOP.set(self.0, value as u8))
    }

    /// With the receiving socket's state.
    #[must_use]
    pub const fn with_socket_state(self, value: u8) -> Self {
        Self(SOCKET_STATE.set(self.0, value))
    }

    /// With the route's error as a positive errno.
    #[must_use]
    pub const fn with_route_error(self, value: u8) -> Self {
        Self(ROUTE_ERROR.set(self.0, value))
    }

    /// With the kind of the root qdisc.
    #[must_use]
    pub const fn with_qdisc_kind(self, value: QdiscKind) -> Self {
        Self(QDISC_KIND.set(self.0, value as u8))
    }

    /// With the at-limit bit of the root qdisc.
    #[must_use]
    pub const fn with_qdisc_at_limit(self, value: bool) -> Self {
        Self(QDISC_AT_LIMIT.set(self.0, value as u8))
    }

    /// With the bit for a full receive buffer.
    #[must_use]
    pub const fn with_receive_buffer_full(self, value: bool) -> Self {
        Self(RECEIVE_BUFFER_FULL.set(self.0, value as u8))
    }

    /// With the state of the veth's other end.
    #[must_use]
    pub const fn with_veth_peer(self, value: VethPeer) -> Self {
        Self(VETH_PEER.set(self.0, value as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let full = Facts::default()
            .with_network(Network::Other)
            .with_transport(Transport::Other)
            .with_tcp_class(TcpClass::Odd)
            .with_packet_type(7)
            .with_last_hop(true)
            .with_socket_state(12)
            .with_route_error(113)
            .with_qdisc_kind(QdiscKind::Other)
            .with_qdisc_at_limit(true)
            .with_receive_buffer_full(true)
            .with_veth_peer(VethPeer::Down);
        assert_eq!(full.network(), Network::Other);
        assert_eq!(full.transport(), Transport::Other);
        assert_eq!(full.tcp_class(), TcpClass::Odd);
        assert_eq!(full.packet_type(), 7);
        assert!(full.last_hop() && full.qdisc_at_limit());
        assert_eq!(full.socket_state(), 12);
        assert!(full.receive_buffer_full() && full.veth_peer() == VethPeer::Down);
        assert_eq!(full.route_error(), 113);
        assert_eq!(full.qdisc_kind(), QdiscKind::Other);
        assert_eq!(full.with_network(Network::Unknown).transport(), Transport::Other);
    }

    #[test]
    fn tcp_classes() {
        for (flags, class) in [
            (tcp::SYN, TcpClass::Syn),
            (tcp::SYN | tcp::ACK, TcpClass::SynAck),
            (tcp::RST, TcpClass::Rst),
            (tcp::RST | tcp::ACK, TcpClass::Rst),
            (tcp::FIN | tcp::ACK, TcpClass::Fin),
            (tcp::ACK, TcpClass::Ack),
            (tcp::ACK | tcp::PSH, TcpClass::Psh),
            (0, TcpClass::Odd),
            (tcp::SYN | tcp::FIN, TcpClass::Odd),
            (0xff, TcpClass::Odd),
        ] {
            assert_eq!(TcpClass::from_flags(flags), class, "flags {flags:#x}");
        }
    }

    #[test]
    fn names_round_trip() {
        for value in Transport::ALL {
            assert_eq!(Transport::from_name(value.name()), Some(*value));
            assert_eq!(Transport::from_code(*value as u8), *value);
        }
        assert_eq!(QdiscKind::from_code(15), QdiscKind::Unknown);
        assert_eq!(Network::from_name("ipx"), None);
    }
}
