//! `skb:kfree_skb`: an skb was freed without being delivered (net/core/skbuff.c).
//!
//! | kernel | arguments |
//! |---|---|
//! | before 5.17 | skb, location |
//! | 5.17 | skb, location, reason |
//! | 6.11 | skb, location, reason, rx_sk |

use aya_ebpf::{EbpfContext, Global, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use netdrop_common::{
    cell,
    event::KEY_OVERFLOWED,
    facts::{Facts, GATHER_TABLE, Gather},
    key::{DropKey, ProbePoint, REASON_ABSENT},
};

use crate::{
    count, emit,
    filter::{self, Verdict},
    headers,
    offsets::Access,
    rodata::element,
    scratch::{self, Scratch},
    skb,
    skb::{Device, Place, Route, Skb, Socket},
    veth,
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
    if !emit::wanted() && !filter::needs_packet() && gather(reason).facts() == Gather::NONE {
        return count_at_once(skb, location, reason, receiver);
    }
    match scratch::enter() {
        Some((scratch, level)) => {
            freed(ctx, scratch, skb, location, reason, receiver);
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
    let key = key(&place, location, reason, Facts::default());
    let _no_event_to_lose = count::matched(&key, skb::segments(skb));
}

/// What a drop is counted under.
#[inline(always)]
fn key<A>(place: &Place<A>, location: u64, reason: u32, facts: Facts) -> DropKey {
    DropKey {
        netns_cookie: place.netns.cookie,
        location,
        facts: facts.0,
        netns_inode: place.netns.inode,
        reason,
        probe: ProbePoint::KfreeSkb as u32,
        pad: 0,
    }
}

#[inline(always)]
fn freed<A: Access, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    skb: Skb<A>,
    location: u64,
    reason: u32,
    receiver: Option<Socket<A>>,
) {
    if filter::reason(reason) == Verdict::Filtered || filter::location(location) == Verdict::Filtered {
        count::cell(cell::FILTERED);
        return;
    }
    // Each filter value that was compared is a constant in one path.
    let reason = scratch.forget(u64::from(reason)) as u32;
    let location = scratch.forget(location);
    let place = skb::place(skb, receiver);
    let mut verdict = filter::place(&place);
    if verdict == Verdict::Filtered {
        count::cell(cell::FILTERED);
        return;
    }
    scratch.gather = gather(reason);
    scratch.buffer = skb::buffer(skb);
    let wants_packet = filter::needs_packet() || emit::wanted() || scratch.gather.contains(Gather::PACKET);
    if wants_packet {
        headers::parse(scratch, skb::is_local(skb));
    }
    if filter::needs_packet() {
        verdict = verdict.and(filter::packet(scratch));
    }
    match verdict {
        Verdict::Match => {}
        Verdict::Filtered => return count::cell(cell::FILTERED),
        Verdict::Undecidable => return count::cell(cell::UNDECIDABLE),
    }

    scratch.packet_type = skb::packet_type(skb);
    scratch.segments = skb::segments(skb);
    let wants_route = emit::wanted() || scratch.gather.contains(Gather::ROUTE);
    scratch.route = if wants_route { skb::route(skb, place.netns.inode) } else { Route::default() };
    let facts = gather_facts(scratch, skb, receiver, place.device);
    scratch.key = key(&place, location, reason, facts);
    let counted = count::matched(&scratch.key, scratch.segments);
    scratch.flags = 0;
    if counted.overflowed() {
        scratch.flags = KEY_OVERFLOWED;
        debug!(ctx, "key map full: reason {} at {:x} counted without a key", reason, location);
    }
    if emit::wanted() {
        // SAFETY: the helper takes nothing and reads a clock.
        scratch.now = unsafe { bpf_ktime_get_ns() };
        if !emit::emit(ctx.as_ptr(), scratch, skb, receiver, place.device) {
            counted.lost();
        }
    }
}

/// The facts that rules for this reason need. After each group the verifier forgets which way was taken.
#[inline(always)]
fn gather_facts<A: Access>(
    scratch: &mut Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
) -> Facts {
    let mut facts = Facts::default();
    if scratch.gather.contains(Gather::PACKET) {
        facts = headers::packet_facts(scratch, scratch.packet_type);
    }
    if scratch.gather.contains(Gather::SOCKET)
        && let Some(socket) = receiver
    {
        facts = skb::socket_facts(skb, socket, facts);
    }
    let mut facts = scratch.forget_facts(facts);
    if scratch.gather.contains(Gather::ROUTE) {
        facts = facts.with_route_error(scratch.route.error);
    }
    let Some(device) = device else { return scratch.forget_facts(facts) };
    if scratch.gather.contains(Gather::QDISC) {
        facts = skb::qdisc_facts(skb, device, facts);
    }
    let mut facts = scratch.forget_facts(facts);
    if scratch.gather.contains(Gather::VETH_PEER) {
        let state = veth::peer_state(device, scratch.buffer.len, scratch.segments > 1);
        facts = facts.with_veth_peer(state);
    }
    scratch.forget_facts(facts)
}

/// `reason` of a tracepoint that has none.
pub(crate) const NO_REASON: u32 = REASON_ABSENT;
