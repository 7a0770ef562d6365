//! What is read of a drop beyond its place: by reason, as the catalogue asks for it.

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
    /// Fact: kind of the qdisc that dropped, or of the device's, and whether it was at its limit.
    pub const QDISC: Self = Self(1 << 3);
    /// Fact: state of the other end of a veth.
    pub const VETH_PEER: Self = Self(1 << 4);
    /// Fact: what connection tracking did with the packet.
    pub const CONNTRACK: Self = Self(1 << 5);
    /// Fact: what the listener did with the packet.
    pub const LISTEN: Self = Self(1 << 6);
    /// Fact: why TCP discarded the segment.
    pub const TCP_DISCARD: Self = Self(1 << 7);
    /// Evidence: kind, handle, limit and length of that qdisc.
    pub const QDISC_FIGURES: Self = Self(1 << 8);
    /// Evidence: entries and limits of the neighbour table.
    pub const NEIGHBOUR: Self = Self(1 << 9);
    /// Evidence: the MTU that the packet met.
    pub const MTU: Self = Self(1 << 10);
    /// Evidence: memory of all sockets of the protocol.
    pub const MEMORY: Self = Self(1 << 11);
    /// Evidence: the functions around the netfilter hook.
    pub const NETFILTER: Self = Self(1 << 12);
    /// Evidence: the listener's queues and their limits.
    pub const LISTENER: Self = Self(1 << 13);
    /// Everything, but the costly look at the stack: for drops that carry no reason.
    pub const ALL: Self = Self(0x2fff);

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
