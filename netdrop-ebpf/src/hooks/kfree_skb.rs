//! `skb:kfree_skb`: an skb was freed without being delivered (net/core/skbuff.c).
//!
//! | kernel | arguments |
//! |---|---|
//! | before 5.17 | skb, location |
//! | 5.17 | skb, location, reason |
//! | 6.11 | skb, location, reason, rx_sk |

use aya_ebpf::{EbpfContext, Global};
use netdrop_common::{
    cell,
    facts::{Facts, GATHER_TABLE, Gather},
    key::{ProbePoint, REASON_ABSENT},
};

use super::{
    harm,
    observe::{Occasion, key, observe},
};
use crate::{
    count, emit,
    filter::{self, Verdict},
    offsets::Access,
    rodata::element,
    scratch, skb,
    skb::{Skb, Socket},
};

/// Groups of facts and of evidence by core reason, from the catalogue.
#[unsafe(no_mangle)]
static GATHER: Global<[u16; GATHER_TABLE]> = Global::new([Gather::ALL.0; GATHER_TABLE]);

/// The groups that rules for this reason, and causes it may have, need. Reasons beyond the table, those of subsystems and
/// an absent one need all.
#[inline(always)]
fn gather(reason: u32) -> Gather {
    if reason as usize >= GATHER_TABLE {
        return Gather::ALL;
    }
    Gather(element(&GATHER, reason as usize))
}

/// Counts one drop and streams its event.
#[inline(always)]
pub(crate) fn kfree_skb<A: Access, C: EbpfContext>(
    ctx: &C,
    skb: *const u8,
    location: u64,
    reason: u32,
    receiver: *const u8,
) {
    let Some(skb) = Skb::<A>::new(skb) else { return };
    let receiver = Socket::<A>::new(receiver);
    if !emit::wanted() && !harm::wanted() && !filter::needs_packet() && gather(reason).facts() == Gather::NONE
    {
        return count_at_once(skb, location, reason, receiver);
    }
    match scratch::enter() {
        Some((scratch, level)) => {
            let occasion = Occasion { probe: ProbePoint::KfreeSkb, location, reason, gather: gather(reason) };
            observe(ctx, scratch, skb, receiver, occasion);
            scratch::leave(level);
        }
        None => count::cell(cell::UNDECIDABLE),
    }
}

/// Counts a drop of which nothing else is to be read: the short way, for floods that are only counted.
#[inline(always)]
fn count_at_once<A: Access>(skb: Skb<A>, location: u64, reason: u32, receiver: Option<Socket<A>>) {
    if filter::reason(reason) == Verdict::Filtered || filter::location(location) == Verdict::Filtered {
        return count::cell(cell::FILTERED);
    }
    let place = skb::place(skb, receiver);
    match filter::place(&place) {
        Verdict::Match => {}
        Verdict::Filtered => return count::cell(cell::FILTERED),
        Verdict::Undecidable => return count::cell(cell::UNDECIDABLE),
    }
    let occasion = Occasion { probe: ProbePoint::KfreeSkb, location, reason, gather: Gather::NONE };
    let key = key(&place, &occasion, Facts::default());
    let _no_event_to_lose = count::matched(&key, skb::segments(skb));
}

/// `reason` of a tracepoint that has none.
pub(crate) const NO_REASON: u32 = REASON_ABSENT;
