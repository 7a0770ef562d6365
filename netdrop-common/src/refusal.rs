//! Refusals: calls that the kernel refuses before there is a packet, for want of a port.

use core::mem::{align_of, offset_of, size_of};

use crate::event::Tuple;

pub use crate::codes::{Call, Refused};

/// Keys the map of refusals holds; those beyond it go to [`crate::cell::REFUSALS_OVERFLOW`].
pub const MAX_REFUSAL_KEYS: u32 = 1024;

/// What a refusal is counted under; its cause follows from this alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RefusalKey {
    /// `net->net_cookie` of the socket's namespace, 0 where unknown.
    pub netns_cookie: u64,
    /// `net->ns.inum`; 0 where unknown.
    pub netns_inode: u32,
    /// A [`Refused`] as a number.
    pub what: u8,
    /// A [`Call`] as a number.
    pub call: u8,
    /// Transport protocol number.
    pub protocol: u8,
    /// Explicit padding, always 0.
    pub pad: u8,
}

/// Per-CPU totals of one [`RefusalKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RefusalCount {
    /// Calls that were refused.
    pub count: u64,
    /// Of these, the ones whose event found the ring full.
    pub lost: u64,
}

/// `TASK_COMM_LEN` (include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// The ring record of one refusal, told from those of drops by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RefusalEvent {
    /// The key it was counted under.
    pub key: RefusalKey,
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// What was asked for: ports that were not given are 0, and so is an address that was left to the kernel.
    pub tuple: Tuple,
    /// The process that called, in the first pid namespace.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// Name of the thread, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// 1 when the key map was full.
    pub overflowed: u32,
}

const _: () = {
    assert!(size_of::<RefusalKey>() == 16 && align_of::<RefusalKey>() == 8);
    assert!(size_of::<RefusalCount>() == 16);
    assert!(size_of::<RefusalEvent>() == 96 && align_of::<RefusalEvent>() == 8);
    assert!(offset_of!(RefusalEvent, tuple) == 24 && offset_of!(RefusalEvent, pid) == 68);
    // Records are told by their length.
    assert!(size_of::<RefusalEvent>() < size_of::<crate::event::DropEvent>());
    assert!(size_of::<RefusalEvent>() != size_of::<crate::harm::HarmEvent>());
};
