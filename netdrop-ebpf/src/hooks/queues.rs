//! Queueing disciplines: which one dropped, where one hangs below another (htb, tbf, mq and their children).
//!
//! All that the kernel frees is a list that `__dev_queue_xmit()` hands to `kfree_skb_list()`, right after the enqueue
//! function of the root has returned. The functions of the kinds (`htb_enqueue()`, `pfifo_enqueue()` …) call each other
//! from the root down, and the innermost that answers a drop has dropped. From 7.2 `qdisc:qdisc_drop` tells the kind's
//! own reason besides.

use aya_ebpf::{
    Global,
    helpers::generated::bpf_ktime_get_ns,
    programs::{ProbeContext, RetProbeContext},
};
use netdrop_common::{
    facts::{Facts, QdiscKind},
    fields::ABSENT,
};

use super::calls::{self, Call};
use crate::{
    maps::{QUEUE_DROPS, QUEUE_REASONS},
    offsets::{
        Access, QDISC_BACKLOG, QDISC_LIMIT, QDISC_OPS, QDISC_OPS_ID, QDISC_QLEN, QDISC_QUEUE, Raw, SKB_LEN,
        TXQ_DEV,
    },
    scratch::Scratch,
    skb::{self, Device, Skb},
};

/// 1 when hooks at enqueue functions may be attached: else nobody needs to look for their notes.
#[unsafe(no_mangle)]
static QUEUE_HOOKS: Global<u8> = Global::new(0);

/// `SKB_DROP_REASON_QDISC_DROP` where `qdisc:qdisc_drop` is hooked, which says more; else 0.
#[unsafe(no_mangle)]
static QDISC_DROP_REASON: Global<u32> = Global::new(0);

/// How long a note counts: the list is freed when the root has returned.
const FRESH_NS: u64 = 10_000_000;

/// Answers of an enqueue function (include/linux/netdevice.h, include/net/sch_generic.h).
mod answer {
    /// NET_XMIT_MASK.
    pub(super) const MASK: u64 = 0x0f;
    /// NET_XMIT_DROP: this skb was dropped.
    pub(super) const DROP: u64 = 1;
    /// NET_XMIT_CN: another one was.
    pub(super) const CONGESTED: u64 = 2;
    /// __NET_XMIT_BYPASS: dropped on purpose, which is no congestion (netem's loss, a filter of a classful kind).
    pub(super) const BYPASS: u64 = 0x0002_0000;
}

/// The last drop by an enqueue function on this CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct QueueDrop {
    time_ns: u64,
    /// The skb that was to be queued.
    skb: u64,
    /// Address of the `Qdisc`.
    qdisc: u64,
    /// 1 when it was at its limit.
    full: u8,
    /// 1 when other skbs were dropped in its stead.
    others: u8,
    pad: [u8; 6],
}

/// The qdisc that a drop is put down to.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Queue {
    /// Its address, 0 when there is none.
    pub(crate) qdisc: u64,
    /// 1 when it was at its limit.
    pub(crate) full: u8,
    /// 1 when a hook saw it drop, 0 when it is the device's.
    pub(crate) hooked: u8,
}

/// The last `qdisc:qdisc_drop` on this CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct QueueReason {
    time_ns: u64,
    skb: u64,
    reason: u32,
    pad: u32,
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

/// An enqueue function begins: `(skb, sch, to_free)`.
#[inline(always)]
pub(crate) fn entered(ctx: &ProbeContext) {
    calls::enter(ctx, Call { skb: ctx.arg(0).unwrap_or(0), other: ctx.arg(1).unwrap_or(0), more: now() });
}

/// It returns.
#[inline(always)]
pub(crate) fn returned(ctx: &RetProbeContext) {
    let Some(call) = calls::leave(ctx) else { return };
    let answer: u64 = ctx.ret();
    let (code, bypass) = (answer & answer::MASK, answer & answer::BYPASS != 0);
    if code != answer::DROP && code != answer::CONGESTED && !bypass {
        return;
    }
    let Some(last) = QUEUE_DROPS.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value, and queues run with softirqs off.
    let earlier = unsafe { *last };
    // Noted since this function was entered: by one that it called.
    if earlier.skb == call.skb && earlier.time_ns >= call.more {
        return;
    }
    let full = is_full(Raw(call.other), Raw(call.skb).load(&SKB_LEN).unwrap_or(0));
    let others = code == answer::CONGESTED;
    let drop = QueueDrop {
        time_ns: now(),
        skb: call.skb,
        qdisc: call.other,
        full: full.into(),
        others: others.into(),
        pad: [0; 6],
    };
    // SAFETY: as above.
    unsafe { *last = drop };
}

/// `Qdisc_ops.id`, as far as it tells kinds apart.
#[inline(always)]
fn kind(qdisc: Raw) -> Option<[u8; 8]> {
    qdisc.follow(&QDISC_OPS)?.load(&QDISC_OPS_ID)
}

/// Whether a qdisc has no room for one more packet of `len` bytes, where that can be told: bfifo counts bytes, others
/// packets, and those that keep their limit to themselves have 0.
#[inline(always)]
fn is_full(qdisc: Raw, len: u32) -> bool {
    let limit = qdisc.load::<u32>(&QDISC_LIMIT).unwrap_or(0);
    if let Some([b'b', b'f', b'i', b'f', b'o', 0, ..]) = kind(qdisc) {
        let backlog = qdisc.load::<u32>(&QDISC_BACKLOG).unwrap_or(0);
        return u64::from(backlog) + u64::from(len) > u64::from(limit);
    }
    let queued = qdisc.load::<u32>(&QDISC_QLEN).unwrap_or(0);
    limit != 0 && queued >= limit
}

/// Adds the facts of the qdisc that a drop is put down to.
#[inline(always)]
pub(crate) fn facts(queue: Queue, facts: Facts) -> Facts {
    if queue.qdisc == 0 {
        return facts;
    }
    let kind = match kind(Raw(queue.qdisc)) {
        Some([b'n', b'o', b'o', b'p', 0, ..]) => QdiscKind::Noop,
        Some([b'n', b'o', b'q', b'u', b'e', b'u', b'e', 0]) => QdiscKind::Noqueue,
        Some([b'n', b'e', b't', b'e', b'm', 0, ..]) => QdiscKind::Netem,
        Some(_) => QdiscKind::Other,
        None => QdiscKind::Unknown,
    };
    facts.with_qdisc_kind(kind).with_qdisc_at_limit(queue.full != 0)
}

/// Finds the qdisc that dropped an skb of `device`: the one whose enqueue function answered so, else the device's.
/// Goes to `scratch.queue`.
#[inline(never)]
pub(crate) fn find<A: Access>(scratch: &mut Scratch, skb: Skb<A>, device: Device<A>) {
    let queue = &mut scratch.queue;
    queue.hooked = 0;
    if QUEUE_HOOKS.load() != 0 && QDISC_QUEUE.load() != ABSENT {
        by_hook(queue, skb.address(), device.address());
    }
    if queue.hooked == 0 {
        queue.qdisc = skb::qdisc(skb, device).map_or(0, |qdisc| qdisc.0);
        queue.full = is_full(Raw(queue.qdisc), scratch.buffer.len).into();
    }
}

#[inline(always)]
fn by_hook(queue: &mut Queue, skb: u64, device: u64) {
    let Some(last) = QUEUE_DROPS.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    let last = unsafe { *last };
    if (last.skb != skb && last.others == 0) || now().wrapping_sub(last.time_ns) > FRESH_NS {
        return;
    }
    let owner = Raw(last.qdisc).follow(&QDISC_QUEUE).and_then(|queue| queue.follow(&TXQ_DEV));
    if owner.is_some_and(|owner| owner.0 == device) {
        *queue = Queue { qdisc: last.qdisc, full: last.full, hooked: 1 };
    }
}

/// `qdisc:qdisc_drop(qdisc, txq, dev, skb, reason)`: the skb is about to be freed with QDISC_DROP.
#[inline(always)]
pub(crate) fn reasoned(skb: u64, reason: u32) {
    if let Some(last) = QUEUE_REASONS.get_ptr_mut(0) {
        // SAFETY: the lookup returned this CPU's value; the skb is freed next.
        unsafe { *last = QueueReason { time_ns: now(), skb, reason, pad: 0 } };
    }
}

/// The kind's own reason for a drop that the kernel frees with QDISC_DROP; else `reason`.
#[inline(always)]
pub(crate) fn own_reason(skb: u64, reason: u32) -> u32 {
    let general = QDISC_DROP_REASON.load();
    if general == 0 || reason != general {
        return reason;
    }
    let Some(last) = QUEUE_REASONS.get_ptr_mut(0) else { return reason };
    // SAFETY: the lookup returned this CPU's value.
    let last = unsafe { *last };
    if last.skb == skb && now().wrapping_sub(last.time_ns) <= FRESH_NS { last.reason } else { reason }
}
