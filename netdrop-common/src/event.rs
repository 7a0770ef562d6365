//! The ring record of one drop.

use core::mem::{align_of, offset_of, size_of};

use crate::key::DropKey;

/// Packet bytes a record can carry.
pub const CAPTURE_LEN: usize = 128;

/// [`DropEvent::l3_offset`] when no network header lies in the captured bytes.
pub const NO_OFFSET: u16 = u16::MAX;

/// `IFNAMSIZ` (include/uapi/linux/if.h).
pub const IFNAME_LEN: usize = 16;

/// What the kernel side could read of the packet's headers.
///
/// Addresses are in network order, IPv4 in the first four bytes; ports, lengths and the ethertype in
/// host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Tuple {
    /// Source address.
    pub saddr: [u8; 16],
    /// Destination address.
    pub daddr: [u8; 16],
    /// Ethertype; 0 when unknown.
    pub ethertype: u16,
    /// Source port of TCP, UDP, SCTP or DCCP.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Transport protocol number (IPv6: after the extension headers).
    pub proto: u8,
    /// TCP flags, byte 13 of the header.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// `TUPLE_*` bits.
    pub have: u8,
}

/// Addresses and protocol were read.
pub const TUPLE_ADDRESSES: u8 = 1;
/// Ports were read.
pub const TUPLE_PORTS: u8 = 1 << 1;
/// ICMP type and code were read.
pub const TUPLE_ICMP: u8 = 1 << 2;
/// TCP flags were read.
pub const TUPLE_TCP: u8 = 1 << 3;
/// A later fragment: the transport header is in another packet.
pub const TUPLE_LATER_FRAGMENT: u8 = 1 << 4;
/// The IP header was read and the protocol is known to have no ports.
pub const TUPLE_NO_PORTS: u8 = 1 << 5;
/// The chain of IPv6 extension headers was cut off or too long: `proto` is not known.
pub const TUPLE_NO_TRANSPORT: u8 = 1 << 6;
/// No network packet at all: data of a local socket (AF_UNIX, netlink).
pub const TUPLE_NOT_NETWORK: u8 = 1 << 7;

/// How the kernel told the sender of the drop, just before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Announced {
    /// Not looked for.
    #[default]
    Unknown = 0,
    /// Not seen: not by ICMP for IPv4, or `icmp:icmp_send` is not observed; other ways never are.
    No = 1,
    /// By an ICMP error.
    Icmp = 2,
}

impl Announced {
    /// The value a code stands for; an unknown code is not known.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::No,
            2 => Self::Icmp,
            _ => Self::Unknown,
        }
    }
}

/// Figures of a qdisc (`struct Qdisc`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Qdisc {
    /// `ops->id`, NUL-padded.
    pub kind: [u8; 16],
    /// `handle`: major in the high 16 bits.
    pub handle: u32,
    /// `parent`, `TC_H_ROOT` for a root.
    pub parent: u32,
    /// `limit`, 0 where the kind keeps its limit elsewhere.
    pub limit: u32,
    /// `q.qlen`: packets queued.
    pub qlen: u32,
}

/// Figures of a neighbour table (`struct neigh_table`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Neighbour {
    /// `gc_entries`: entries that count against the limit, of all namespaces.
    pub entries: u32,
    /// `gc_thresh3`.
    pub limit: u32,
    /// `unres_qlen_bytes` of the device: bytes that may wait for one unresolved neighbour.
    pub queue_limit: u32,
}

/// Figures of a listener (`struct sock`, `struct inet_connection_sock`) and of the limits in its namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Listener {
    /// Local address, in network order; IPv4 in the first four bytes, all 0 for any.
    pub address: [u8; 16],
    /// Local port, in host order; 0 when the listener itself was not at hand.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `sk_ack_backlog`: connections that wait to be accepted.
    pub length: u32,
    /// `sk_max_ack_backlog`: the smaller of the argument of listen() and `somaxconn`.
    pub limit: u32,
    /// `icsk_accept_queue.qlen`: handshakes that are half done.
    pub half_open: u32,
    /// `net.core.somaxconn`.
    pub somaxconn: u32,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub max_syn_backlog: u32,
}

/// One direction of a tracked connection (`struct nf_conntrack_tuple`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnTuple {
    /// Source, in network order; IPv4 in the first four bytes.
    pub saddr: [u8; 16],
    /// Destination.
    pub daddr: [u8; 16],
    /// Source port, or the id of an ICMP echo, in network order.
    pub sport: u16,
    /// Destination port, or type and code of an ICMP message, in network order.
    pub dport: u16,
    /// `AF_INET` or `AF_INET6`; 0 when there is none.
    pub family: u16,
    /// Transport protocol number.
    pub proto: u8,
    /// Explicit padding, always 0.
    pub pad: u8,
}

/// A tracked connection (`struct nf_conn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    /// As its first packet came.
    pub original: ConnTuple,
    /// As answers are expected: what NAT makes of it.
    pub reply: ConnTuple,
    /// `IPS_*` bits (include/uapi/linux/netfilter/nf_conntrack_common.h).
    pub status: u32,
    /// `zone.id`.
    pub zone: u16,
    /// 1 when there is a connection.
    pub have: u16,
}

/// A record with what connection tracking says of the packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tracked<const FRAMES: usize> {
    /// The drop and its stack.
    pub stacked: Stacked<FRAMES>,
    /// The packet's own connection.
    pub connection: Connection,
    /// The one that was there first, where a hook saw it.
    pub winner: Connection,
}

/// Frames of a record with a stack that was asked for.
pub const STACK_FRAMES: usize = 48;

/// Frames of a record whose drop happened in a netfilter hook: enough to see who ran the hook.
pub const HOOK_FRAMES: usize = 14;

/// The table whose rules dropped an skb, as a hook saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ruling {
    /// Name of the table, NUL-padded; a longer one is cut.
    pub table: [u8; TABLE_NAME_LEN],
    /// Name of nft's base chain, NUL-padded; a longer one is cut. Empty with xtables.
    pub chain: [u8; CHAIN_NAME_LEN],
    /// `RULED_BY_*`.
    pub by: u16,
    /// `nf_hook_state.hook`, or 255 where it was not read.
    pub hook: u8,
    /// `NFPROTO_*` of the table (nft) or the packet (xtables).
    pub family: u8,
    /// Explicit padding, always 0.
    pub pad: u32,
}

impl Ruling {
    /// No hook saw a table.
    pub const NONE: Self = Self {
        table: [0; TABLE_NAME_LEN],
        chain: [0; CHAIN_NAME_LEN],
        by: 0,
        hook: u8::MAX,
        family: 0,
        pad: 0,
    };
}

/// `XT_TABLE_MAXNAMELEN` (include/uapi/linux/netfilter/x_tables.h), and as much of an nft table's name as is kept.
pub const TABLE_NAME_LEN: usize = 32;

/// As much of a chain's name as is kept: nft's own limit is 256.
pub const CHAIN_NAME_LEN: usize = 64;

/// [`Ruling::by`]: `ipt_do_table()` or `ip6t_do_table()`.
pub const RULED_BY_XTABLES: u16 = 1;
/// [`Ruling::by`]: `nft_do_chain()`.
pub const RULED_BY_NFT: u16 = 2;

/// A record with the kernel stack of the drop, innermost first: the frames of the tracing program itself come
/// before those of the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stacked<const FRAMES: usize> {
    /// The drop.
    pub event: DropEvent,
    /// Bytes of `frames` that are filled, or a negative errno.
    pub filled: i64,
    /// Return addresses.
    pub frames: [u64; FRAMES],
    /// The table that dropped it.
    pub ruling: Ruling,
}

/// The ring record of one drop. The record is written in place, field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DropEvent {
    /// The key this drop was counted under.
    pub key: DropKey,
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Address of `dst->input`, 0 without a valid route: tells forwarded from delivered packets.
    pub dst_input: u64,
    /// Headers.
    pub tuple: Tuple,
    /// Device name, NUL-padded; all 0 without a device.
    pub ifname: [u8; IFNAME_LEN],
    /// `dev->ifindex`; 0 without a device.
    pub ifindex: u32,
    /// `skb->skb_iif`: interface the packet came in by, 0 for a locally made one.
    pub iif: u32,
    /// Bytes from the network header to the end of the skb; 0 when there is no network header.
    pub l3_len: u32,
    /// Bytes of receive memory the socket uses (`sk_rmem_alloc`), with [`HAVE_SOCKET_MEMORY`].
    pub socket_used: u32,
    /// `sk_rcvbuf`, with [`HAVE_SOCKET_MEMORY`].
    pub socket_limit: u32,
    /// Bytes waiting in the socket's backlog (`sk_backlog.len`), with [`HAVE_SOCKET_MEMORY`].
    pub socket_backlog: u32,
    /// `sk_sndbuf`, which bounds the backlog together with `sk_rcvbuf`, with [`HAVE_SOCKET_MEMORY`].
    pub socket_send_limit: u32,
    /// The qdisc, with [`HAVE_QDISC`]; see [`QDISC_DROPPED`].
    pub qdisc: Qdisc,
    /// The neighbour table of the device, with [`HAVE_NEIGHBOUR`].
    pub neighbour: Neighbour,
    /// The longest packet that the route or the veth's other end takes, with [`HAVE_MTU`].
    pub mtu: u32,
    /// Name of the device that limits it.
    pub mtu_device: [u8; IFNAME_LEN],
    /// Pages of memory that all sockets of the protocol hold, with [`HAVE_MEMORY`].
    pub memory_used: u64,
    /// Pages they may hold (`sysctl_mem[2]`), with [`HAVE_MEMORY`].
    pub memory_limit: u64,
    /// Inode number of the receiving socket, of a request's listener (`sk_socket`, `i_ino`), as `/proc/PID/fd` shows
    /// it; 0 without one, or where no process holds the socket.
    pub socket_inode: u64,
    /// The listener and its limits, with [`HAVE_LISTENER`].
    pub listener: Listener,
    /// Packets in the skb (GSO segments), at least 1.
    pub segments: u16,
    /// Valid bytes in `bytes`.
    pub caplen: u16,
    /// Where the network header starts in `bytes`, or [`NO_OFFSET`].
    pub l3_offset: u16,
    /// `HAVE_*` bits.
    pub have: u16,
    /// `skb->pkt_type`.
    pub packet_type: u8,
    /// State of the receiving socket, 0 without one.
    pub socket_state: u8,
    /// `-dst->error` of the route, with [`HAVE_ROUTE`].
    pub route_error: u8,
    /// An [`Announced`] as a number.
    pub announced: u8,
    /// Type of the ICMP error that announced the drop.
    pub announced_type: u8,
    /// Its code.
    pub announced_code: u8,
    /// The counter that speaks for the cause, a [`Cell`](crate::witness::Cell) by number, or
    /// [`NO_CELL`](crate::witness::NO_CELL).
    pub witness_cell: u8,
    /// By how much it moved, at most 255.
    pub witness_delta: u8,
    /// Packet bytes, from the MAC header where valid, else from the network header; the rest is 0.
    pub bytes: [u8; CAPTURE_LEN],
}

impl DropEvent {
    /// Whether `bytes` starts with an Ethernet header: with up to two tags or labels it has one of these lengths.
    /// A tunnel without link layer leaves the outer IP header there, of 20 bytes, on kernels before 5.14.
    #[must_use]
    pub const fn has_ethernet(&self) -> bool {
        self.have & HAVE_MAC != 0 && matches!(self.l3_offset, 14 | 18 | 22 | NO_OFFSET)
    }
}

/// `ifname` and `ifindex` are valid.
pub const HAVE_DEVICE: u16 = 1;
/// `bytes` starts where the kernel says the MAC header does; see [`DropEvent::has_ethernet`].
pub const HAVE_MAC: u16 = 1 << 1;
/// The tracepoint named a receiving socket (rx_sk, since 6.11).
pub const HAVE_SOCKET: u16 = 1 << 2;
/// `socket_used` and `socket_limit` are valid.
pub const HAVE_SOCKET_MEMORY: u16 = 1 << 3;
/// The skb belongs to a sending socket.
pub const HAVE_SENDER: u16 = 1 << 4;
/// `dst_input` was read from a valid route.
pub const HAVE_ROUTE: u16 = 1 << 5;
/// `qdisc` is valid.
pub const HAVE_QDISC: u16 = 1 << 7;
/// `neighbour` is valid.
pub const HAVE_NEIGHBOUR: u16 = 1 << 8;
/// `mtu` and `mtu_device` are valid.
pub const HAVE_MTU: u16 = 1 << 9;
/// `memory_used` and `memory_limit` are valid.
pub const HAVE_MEMORY: u16 = 1 << 10;
/// `listener` has the limits of the namespace; its port tells whether it has the listener too.
pub const HAVE_LISTENER: u16 = 1 << 11;
/// `qdisc` is the one whose enqueue function answered a drop; else it is the one of the device's queue.
pub const QDISC_DROPPED: u16 = 1 << 12;
/// The key map was full: this drop is counted in [`crate::cell::OVERFLOW`], not under its key.
pub const KEY_OVERFLOWED: u16 = 1 << 6;

const _: () = {
    assert!(size_of::<Tuple>() == 44 && align_of::<Tuple>() == 4);
    assert!(size_of::<Qdisc>() == 32 && size_of::<Neighbour>() == 12 && size_of::<Listener>() == 40);
    assert!(size_of::<ConnTuple>() == 40 && size_of::<Connection>() == 88);
    assert!(size_of::<DropEvent>() == 416 && align_of::<DropEvent>() == 8);
    assert!(size_of::<Stacked<STACK_FRAMES>>() == 416 + 8 + 8 * STACK_FRAMES + 104);
    assert!(size_of::<Tracked<HOOK_FRAMES>>() == 416 + 8 + 8 * HOOK_FRAMES + 104 + 2 * 88);
    assert!(offset_of!(DropEvent, tuple) == 56);
    assert!(offset_of!(DropEvent, ifname) == 100);
    assert!(offset_of!(DropEvent, ifindex) == 116);
    assert!(offset_of!(DropEvent, qdisc) == 144);
    assert!(offset_of!(DropEvent, neighbour) == 176);
    assert!(offset_of!(DropEvent, mtu) == 188);
    assert!(offset_of!(DropEvent, mtu_device) == 192);
    assert!(offset_of!(DropEvent, memory_used) == 208);
    assert!(offset_of!(DropEvent, socket_inode) == 224);
    assert!(offset_of!(DropEvent, listener) == 232);
    assert!(offset_of!(DropEvent, segments) == 272);
    assert!(offset_of!(DropEvent, packet_type) == 280);
    assert!(offset_of!(DropEvent, bytes) == 288);
};
