//! The counter witness: kernel counters that move, on the same CPU, just before a packet is dropped.
//!
//! The kernel side remembers each counter by namespace and CPU; the difference to the last look names the cause of
//! the packet at hand. Nothing can come between in a softirq: the counter and the free are a few instructions apart.

/// Which counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cell {
    /// `ip_conntrack_stat.insert_failed`.
    InsertFailed = 0,
    /// `ip_conntrack_stat.drop`.
    Drop = 1,
    /// `ip_conntrack_stat.invalid`.
    Invalid = 2,
    /// `ip_conntrack_stat.clash_resolve`.
    ClashResolve = 3,
    /// `ip_conntrack_stat.chaintoolong`, since 5.15.
    ChainTooLong = 4,
    /// `LINUX_MIB_LISTENOVERFLOWS`.
    ListenOverflows = 5,
    /// `LINUX_MIB_LISTENDROPS`.
    ListenDrops = 6,
    /// `LINUX_MIB_TCPREQQFULLDROP`.
    ReqQFullDrop = 7,
    /// `LINUX_MIB_TCPRCVQDROP`.
    RcvQDrop = 8,
    /// `LINUX_MIB_TCPOFODROP`.
    OfoDrop = 9,
    /// `LINUX_MIB_OFOPRUNED`.
    OfoPruned = 10,
    /// `LINUX_MIB_PAWSESTABREJECTED`.
    PawsEstab = 11,
    /// `LINUX_MIB_TCPZEROWINDOWDROP`.
    ZeroWindowDrop = 12,
}

/// How many there are.
pub const CELLS: usize = 13;

/// [`crate::event::DropEvent::witness_cell`] when no counter speaks for the cause.
pub const NO_CELL: u8 = u8::MAX;

impl Cell {
    /// Every cell, by number.
    pub const ALL: [Self; CELLS] = [
        Self::InsertFailed,
        Self::Drop,
        Self::Invalid,
        Self::ClashResolve,
        Self::ChainTooLong,
        Self::ListenOverflows,
        Self::ListenDrops,
        Self::ReqQFullDrop,
        Self::RcvQDrop,
        Self::OfoDrop,
        Self::OfoPruned,
        Self::PawsEstab,
        Self::ZeroWindowDrop,
    ];

    /// The cell with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The counter as `conntrack -S` and `nstat` (without `TcpExt`) show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InsertFailed => "insert_failed",
            Self::Drop => "drop",
            Self::Invalid => "invalid",
            Self::ClashResolve => "clash_resolve",
            Self::ChainTooLong => "chaintoolong",
            Self::ListenOverflows => "ListenOverflows",
            Self::ListenDrops => "ListenDrops",
            Self::ReqQFullDrop => "TCPReqQFullDrop",
            Self::RcvQDrop => "TCPRcvQDrop",
            Self::OfoDrop => "TCPOFODrop",
            Self::OfoPruned => "OfoPruned",
            Self::PawsEstab => "PAWSEstab",
            Self::ZeroWindowDrop => "TCPZeroWindowDrop",
        }
    }
}

/// Indices of TCP's extended counters (anonymous enum of include/uapi/linux/snmp.h): global of the kernel side, and
/// enumerator.
pub const MIB_INDICES: [(&str, &str); 8] = [
    ("MIB_LISTEN_OVERFLOWS", "LINUX_MIB_LISTENOVERFLOWS"),
    ("MIB_LISTEN_DROPS", "LINUX_MIB_LISTENDROPS"),
    ("MIB_REQQ_FULL_DROP", "LINUX_MIB_TCPREQQFULLDROP"),
    ("MIB_RCVQ_DROP", "LINUX_MIB_TCPRCVQDROP"),
    ("MIB_OFO_DROP", "LINUX_MIB_TCPOFODROP"),
    ("MIB_OFO_PRUNED", "LINUX_MIB_OFOPRUNED"),
    ("MIB_PAWS_ESTAB", "LINUX_MIB_PAWSESTABREJECTED"),
    ("MIB_ZERO_WINDOW_DROP", "LINUX_MIB_TCPZEROWINDOWDROP"),
];

/// Counters of one namespace on one CPU as they were last seen, by [`Cell`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Remembered {
    /// Their values; the wide ones cut to 32 bits.
    pub cells: [u32; CELLS],
    /// Groups that have been seen: bits of [`group`].
    pub known: u32,
}

/// Pairs of namespace and CPU whose counters can be remembered.
pub const WITNESS_KEYS: u32 = 16384;

/// Groups of counters that are looked at together.
pub mod group {
    /// Connection tracking's.
    pub const CONNTRACK: u32 = 1;
    /// A listener's.
    pub const LISTEN: u32 = 1 << 1;
    /// TCP's receive side.
    pub const TCP: u32 = 1 << 2;
    /// All of them.
    pub const ALL: u32 = CONNTRACK | LISTEN | TCP;
}

/// Whose counters, and on which CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct WitnessKey {
    /// `net->net_cookie`; where that is 0 the address of the `struct net`.
    pub net: u64,
    /// `net->ns.inum`.
    pub inode: u32,
    /// CPU.
    pub cpu: u32,
}

/// What the walk over all namespaces answers: one [`Step`] per run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    /// Address of the namespace that was looked at; 0 when the address was none.
    pub net: u64,
    /// Address of the next one in the kernel's list.
    pub next: u64,
    /// What the counters of the namespace are remembered under, see [`WitnessKey::net`].
    pub key: u64,
    /// `net->ns.inum`.
    pub inode: u32,
    /// 1 when this CPU's counters could be read.
    pub readable: u32,
}

const _: () = {
    assert!(size_of::<Remembered>() == 56 && size_of::<WitnessKey>() == 16 && size_of::<Step>() == 32);
};
