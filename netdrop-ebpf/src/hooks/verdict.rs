//! What a function hook found out of an skb, kept until the skb is freed, so that both are one drop.

use aya_ebpf::{Global, helpers::generated::bpf_ktime_get_ns};

use crate::maps::VERDICTS;

/// 1 when hooks leave verdicts: else nobody needs to look for one.
#[unsafe(no_mangle)]
static VERDICT_HOOKS: Global<u8> = Global::new(0);

/// A verdict.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Noted {
    time_ns: u64,
    /// Address of the `struct nf_conn` that was there first, or 0.
    pub(crate) winner: u64,
    /// One of the constants below.
    pub(crate) what: u64,
}

/// `__nf_conntrack_confirm()` answered NF_DROP.
pub(crate) const REFUSED: u64 = 1;
/// `nf_ct_resolve_clash()` answered NF_DROP.
pub(crate) const CLASH_LOST: u64 = 2;

/// How long a verdict counts: the skb is freed a few calls later, and its memory may then be another skb. One that a
/// filter left out leaves its verdict behind, so this is short; when it is missed, the counters still tell.
const FRESH_NS: u64 = 10_000_000;

/// Leaves a verdict on an skb. One that is there already says more and stays.
#[inline(always)]
pub(crate) fn note(skb: u64, what: u64, winner: u64) {
    // SAFETY: the helper takes nothing and reads a clock.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    if what == REFUSED
        && let Some(earlier) = VERDICTS.get_ptr(skb)
    {
        // SAFETY: the lookup returned this pointer, so it points at a whole `Noted`.
        let earlier = unsafe { *earlier };
        if is_fresh(&earlier, time_ns) {
            return;
        }
    }
    let _full = VERDICTS.insert(skb, Noted { time_ns, winner, what }, 0);
}

/// Takes the verdict on an skb.
#[inline(always)]
pub(crate) fn take(skb: u64) -> Option<Noted> {
    if VERDICT_HOOKS.load() == 0 {
        return None;
    }
    let noted = VERDICTS.get_ptr(skb)?;
    // SAFETY: the lookup returned this pointer, so it points at a whole `Noted`.
    let noted = unsafe { *noted };
    let _gone = VERDICTS.remove(skb);
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    is_fresh(&noted, now).then_some(noted)
}

#[inline(always)]
fn is_fresh(noted: &Noted, now: u64) -> bool {
    now.wrapping_sub(noted.time_ns) <= FRESH_NS
}
