//! `icmp:icmp_send`: the kernel tells the sender, just before it frees the skb on the same CPU. That tells a
//! netfilter rule that rejects from one that drops. A rule that answers with a TCP reset makes it itself
//! (`nf_send_reset`), without a tracepoint.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use netdrop_common::event::{Announced, DropEvent};

use crate::maps::ANNOUNCED;

/// The last announcement on this CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Announcement {
    /// Address of the skb; 0 when it has been used up.
    skb: u64,
    /// When.
    time_ns: u64,
    /// [`Announced`], ICMP type, ICMP code.
    what: [u8; 4],
    pad: u32,
}

/// How long an announcement counts: the skb's memory may soon be another skb.
const FRESH_NS: u64 = 10_000_000;

/// Notes that the sender of `skb` is told by ICMP.
#[inline(always)]
pub(crate) fn note(skb: *const u8, icmp_type: u32, icmp_code: u32) {
    let Some(slot) = ANNOUNCED.get_ptr_mut(0) else { return };
    // SAFETY: the helper takes nothing and reads a clock.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let what = [Announced::Icmp as u8, icmp_type as u8, icmp_code as u8, 0];
    // SAFETY: the lookup returned this CPU's value. A run that interrupts this one may tear it: then the
    // address does not fit and the announcement is not found.
    unsafe { write_volatile(slot, Announcement { skb: skb as u64, time_ns, what, pad: 0 }) };
}

/// Adds to the record how the sender of `skb` was told. Ends every announcement: what comes next on this CPU
/// is another packet. A function of its own, so that older verifiers go on from its end once.
#[inline(never)]
pub(crate) fn take(event: &mut DropEvent, skb: u64) {
    event.announced = Announced::No as u8;
    event.announced_type = 0;
    event.announced_code = 0;
    let Some(slot) = ANNOUNCED.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    let last = unsafe { read_volatile(slot) };
    // SAFETY: as above.
    let used_up = unsafe { &raw mut (*slot).skb };
    // SAFETY: as above.
    unsafe { write_volatile(used_up, 0) };
    if last.skb == skb && event.time_ns.wrapping_sub(last.time_ns) <= FRESH_NS {
        [event.announced, event.announced_type, event.announced_code, _] = last.what;
    }
}
