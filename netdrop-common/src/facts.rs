//! The discriminator of a `kfree_skb` key: facts a cause rule may ask for, packed into 64 bits.
//!
//! Only the facts that the catalogue's rules for a reason need are gathered (see [`Gather`]): the others
//! stay 0, which keeps counting cheap and the number of keys small.

pub use crate::{
    codes::{Conntrack, ListenDrop, Network, QdiscKind, TcpClass, TcpDiscard, Transport, VethPeer, tcp},
    gather::{GATHER_TABLE, Gather},
};

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
const LISTEN: Field = Field { shift: 36, bits: 4 };
const CONNTRACK: Field = Field { shift: 40, bits: 4 };
const TCP_DISCARD: Field = Field { shift: 44, bits: 4 };

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

    /// Kind of the qdisc that dropped, or of the one in front of the device.
    #[must_use]
    pub const fn qdisc_kind(self) -> QdiscKind {
        QdiscKind::from_code(QDISC_KIND.get(self.0))
    }

    /// Whether that qdisc held as much as its limit allows.
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

    /// What the listener did.
    #[must_use]
    pub const fn listen(self) -> ListenDrop {
        ListenDrop::from_code(LISTEN.get(self.0))
    }

    /// What connection tracking did.
    #[must_use]
    pub const fn conntrack(self) -> Conntrack {
        Conntrack::from_code(CONNTRACK.get(self.0))
    }

    /// Why TCP discarded the segment.
    #[must_use]
    pub const fn tcp_discard(self) -> TcpDiscard {
        TcpDiscard::from_code(TCP_DISCARD.get(self.0))
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

    /// With the kind of the qdisc.
    #[must_use]
    pub const fn with_qdisc_kind(self, value: QdiscKind) -> Self {
        Self(QDISC_KIND.set(self.0, value as u8))
    }

    /// With the at-limit bit of the qdisc.
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

    /// With the code of a [`ListenDrop`].
    #[must_use]
    pub const fn with_listen(self, code: u8) -> Self {
        Self(LISTEN.set(self.0, code))
    }

    /// With the code of a [`Conntrack`].
    #[must_use]
    pub const fn with_conntrack(self, code: u8) -> Self {
        Self(CONNTRACK.set(self.0, code))
    }

    /// With the code of a [`TcpDiscard`].
    #[must_use]
    pub const fn with_tcp_discard(self, code: u8) -> Self {
        Self(TCP_DISCARD.set(self.0, code))
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
            .with_veth_peer(VethPeer::Down)
            .with_listen(ListenDrop::Several as u8)
            .with_conntrack(Conntrack::Several as u8)
            .with_tcp_discard(TcpDiscard::Several as u8);
        assert_eq!(full.network(), Network::Other);
        assert_eq!(full.transport(), Transport::Other);
        assert_eq!(full.tcp_class(), TcpClass::Odd);
        assert_eq!(full.packet_type(), 7);
        assert!(full.last_hop() && full.qdisc_at_limit());
        assert_eq!(full.socket_state(), 12);
        assert!(full.receive_buffer_full() && full.veth_peer() == VethPeer::Down);
        assert_eq!(full.route_error(), 113);
        assert_eq!(full.listen(), ListenDrop::Several);
        assert_eq!(full.conntrack(), Conntrack::Several);
        assert_eq!(full.tcp_discard(), TcpDiscard::Several);
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
