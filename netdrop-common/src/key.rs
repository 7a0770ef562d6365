//! Counter keys: what one drop is counted under.

use core::mem::{align_of, offset_of, size_of};

/// Value of [`DropKey::reason`] on kernels whose tracepoint has no reason (before 5.17).
pub const REASON_ABSENT: u32 = u32::MAX;

/// `SKB_DROP_REASON_SUBSYS_SHIFT` (include/net/dropreason.h): the subsystem is `reason >> 16`.
pub const REASON_SUBSYSTEM_SHIFT: u32 = 16;

/// Keys the counter map holds; drops beyond it go to [`crate::cell::OVERFLOW`].
pub const MAX_KEYS: u32 = 8192;

/// A place where the kernel can be observed to drop, whichever rung observes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProbePoint {
    /// The `skb:kfree_skb` tracepoint: an skb was freed without being delivered.
    KfreeSkb = 1,
    /// `tcp_conn_request()` gave up a SYN: the kernel consumes it, `skb:kfree_skb` does not see it.
    TcpConnRequest = 2,
    /// `tcp_drop()` of kernels on which it bypasses `skb:kfree_skb`.
    TcpDrop = 3,
}

/// What a matched drop is counted under. A cause's id and class follow from this key alone, so that
/// totals per cause need no event at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DropKey {
    /// `net->net_cookie`, 0 where unknown (and almost everywhere on 5.10, which fills it on demand).
    pub netns_cookie: u64,
    /// Where the kernel decided to drop: return address of the freeing call, or the first byte of the function
    /// for [`ProbePoint::TcpConnRequest`].
    pub location: u64,
    /// The discriminator: [`crate::facts::Facts`] that rules need, laid out per probe point.
    pub facts: u64,
    /// `net->ns.inum`, the inode number of `/proc/PID/ns/net`; 0 where unknown.
    pub netns_inode: u32,
    /// `enum skb_drop_reason` with its subsystem bits, or [`REASON_ABSENT`].
    pub reason: u32,
    /// A [`ProbePoint`] as a number.
    pub probe: u32,
    /// Explicit padding, always 0: hash keys are compared byte by byte.
    pub pad: u32,
}

/// Per-CPU totals of one [`DropKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DropCount {
    /// skbs dropped.
    pub count: u64,
    /// Packets in them beyond one each: a GSO skb stands for several.
    pub more_segments: u64,
    /// Of `count`, those whose event found the ring full.
    pub lost: u64,
}

const _: () = {
    assert!(size_of::<DropKey>() == 40 && align_of::<DropKey>() == 8);
    assert!(offset_of!(DropKey, netns_inode) == 24 && offset_of!(DropKey, pad) == 36);
    assert!(size_of::<DropCount>() == 24 && align_of::<DropCount>() == 8);
};
