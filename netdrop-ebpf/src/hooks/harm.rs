//! What drops cost TCP (`--harm`): segments that are sent again, and resets, joined to the drops of the same
//! connection. Sender and receiver may be in other namespaces than the drop, so addresses and ports have to do, in
//! either direction: a lost answer is repaired by whoever waits for it.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{Global, helpers::generated::bpf_ktime_get_ns};
use netdrop_common::{
    cell,
    event::{TUPLE_ADDRESSES, TUPLE_PORTS},
    fields::ABSENT,
    harm::{HARM_WINDOW_NS, Harm, HarmEvent},
    key::DropKey,
};

use crate::{
    count, emit,
    headers::ETH_IPV6,
    maps::{ANSWERED, EVENTS, HARM_WORK, HARMED},
    offsets::{
        Raw, SOCK_ADDRESS, SOCK_ADDRESS6, SOCK_FAMILY, SOCK_NET, SOCK_PEER, SOCK_PEER_PORT, SOCK_PEER6,
        SOCK_PORT, SOCK_STATE,
    },
    scratch::Scratch,
    skb::NetnsId,
};

/// Whether consequences are looked for.
#[unsafe(no_mangle)]
static HARM: Global<u8> = Global::new(0);

/// Whether consequences are looked for.
#[inline(always)]
pub(crate) fn wanted() -> bool {
    HARM.load() != 0
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const TCP: u8 = 6;

/// A connection by its two ends, the same for both directions.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ends {
    low: [u64; 2],
    high: [u64; 2],
    low_port: u32,
    high_port: u32,
}

/// A drop that may have consequences.
#[derive(Clone, Copy)]
#[repr(C)]
struct Blame {
    key: DropKey,
    time_ns: u64,
    /// A bit for each [`Harm`] that has been laid to it.
    claimed: u32,
    pad: u32,
}

/// The last two drops of a connection: the last one may be of the very segment that is being sent again, for a hook
/// sees that only after it was sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Blames {
    last: Blame,
    before: Blame,
}

/// Working memory of a hook.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Work {
    ends: Ends,
    event: HarmEvent,
}

/// Memory in which a drop is put together that is to be remembered.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Remembering {
    ends: Ends,
    blames: Blames,
}

/// The last skb on this CPU that was answered with a reset; it is freed next.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Answered {
    skb: u64,
    time_ns: u64,
}

/// How long an answer counts: it is sent first, and the skb's memory may soon be another skb.
const ANSWER_NS: u64 = 100_000_000;

/// A drop this recent may be of the segment that is being sent again.
const OWN_NS: u64 = 1_000_000;

/// `tcp:tcp_retransmit_skb(sk, skb)` and `tcp:tcp_retransmit_synack(sk, req)`: `end` is the socket or the request,
/// which begins as a socket does.
#[inline(always)]
pub(crate) fn sent_again(end: u64, what: Harm) {
    happened(end, what, false);
}

/// `tcp:tcp_send_reset(sk, skb)`. With an skb it is the answer to that one, and about no drop before it.
#[inline(always)]
pub(crate) fn reset_sent(sk: u64, skb: u64) {
    if skb == 0 {
        return happened(sk, Harm::ResetSent, false);
    }
    count::cell(Harm::ResetSent.seen());
    let Some(slot) = ANSWERED.get_ptr_mut(0) else { return };
    // SAFETY: the helper takes nothing and reads a clock.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the lookup returned this CPU's value. A run that interrupts this one may tear it: then the address does
    // not fit.
    unsafe { write_volatile(slot, Answered { skb, time_ns }) };
}

/// `tcp:tcp_receive_reset(sk)`.
#[inline(always)]
pub(crate) fn reset_received(sk: u64) {
    happened(sk, Harm::ResetReceived, true);
}

/// Counts what happened to a socket and looks for a drop to blame. TCP does all of this with softirqs off, so that
/// working memory is not shared.
#[inline(always)]
fn happened(sk: u64, what: Harm, from_peer: bool) {
    count::cell(what.seen());
    let Some(work) = HARM_WORK.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value, and any bytes are a valid one.
    let work = unsafe { &mut *work };
    describe(work, sk, from_peer);
    if work.event.family == 0 {
        return;
    }
    let event = &work.event;
    sort(&mut work.ends, &event.saddr, &event.daddr, event.sport, event.dport);
    work.event.what = what as u8;
    blame(work, what);
}

/// Reads who sends to whom from a socket. A family of 0 says that it has no address.
#[inline(never)]
fn describe(work: &mut Work, sk: u64, from_peer: bool) {
    let event = &mut work.event;
    let sk = Raw(sk);
    event.family = 0;
    event.pad = 0;
    event.saddr = [0; _];
    event.daddr = [0; _];
    // SAFETY: the helper takes nothing and reads a clock.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.state = sk.load(&SOCK_STATE).unwrap_or(0);
    let family: u16 = sk.load(&SOCK_FAMILY).unwrap_or(0);
    let (local, peer) = if from_peer {
        ((&raw mut event.daddr).cast::<u8>(), (&raw mut event.saddr).cast::<u8>())
    } else {
        ((&raw mut event.saddr).cast::<u8>(), (&raw mut event.daddr).cast::<u8>())
    };
    if family == AF_INET || family == AF_INET6 && is_mapped(sk) {
        event.family = AF_INET;
        // SAFETY: each takes more than these bytes.
        unsafe { sk.copy_member(&SOCK_ADDRESS, local.cast::<[u8; 4]>()) };
        // SAFETY: as above.
        unsafe { sk.copy_member(&SOCK_PEER, peer.cast::<[u8; 4]>()) };
    } else if family == AF_INET6 && SOCK_ADDRESS6.load() != ABSENT {
        event.family = AF_INET6;
        // SAFETY: each is as long as the member.
        unsafe { sk.copy_member(&SOCK_ADDRESS6, local.cast::<[u8; 16]>()) };
        // SAFETY: as above.
        unsafe { sk.copy_member(&SOCK_PEER6, peer.cast::<[u8; 16]>()) };
    } else {
        return;
    }
    let local_port: u16 = sk.load(&SOCK_PORT).unwrap_or(0);
    let peer_port = u16::from_be(sk.load(&SOCK_PEER_PORT).unwrap_or(0));
    (event.sport, event.dport) = if from_peer { (peer_port, local_port) } else { (local_port, peer_port) };
    let netns = sk.follow(&SOCK_NET).and_then(NetnsId::of_raw).unwrap_or_default();
    event.netns_inode = netns.inode;
    event.netns_cookie = netns.cookie;
}

/// Whether an IPv6 socket speaks IPv4: its peer is `::ffff:a.b.c.d`.
#[inline(always)]
fn is_mapped(sk: Raw) -> bool {
    if SOCK_PEER6.load() == ABSENT {
        return false;
    }
    let peer: [u32; 4] = sk.load(&SOCK_PEER6).unwrap_or([0; 4]);
    peer[0] == 0 && peer[1] == 0 && peer[2] == u32::to_be(0xffff)
}

/// Writes the ends of a connection in an order that does not depend on the direction.
#[inline(always)]
fn sort(to: &mut Ends, from: &[u8; 16], towards: &[u8; 16], sport: u16, dport: u16) {
    let words = |address: &[u8; 16]| -> [u64; 2] {
        let words = (&raw const *address).cast::<[u32; 4]>();
        // SAFETY: the addresses of both records are 16 bytes at a multiple of 4.
        let words = unsafe { read_volatile(words) };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [pair(words[0], words[1]), pair(words[2], words[3])]
    };
    let (from, towards) = (words(from), words(towards));
    let swap = if from[0] != towards[0] {
        from[0] > towards[0]
    } else if from[1] != towards[1] {
        from[1] > towards[1]
    } else {
        sport > dport
    };
    if swap {
        to.low = towards;
        to.high = from;
        to.low_port = u32::from(dport);
        to.high_port = u32::from(sport);
    } else {
        to.low = from;
        to.high = towards;
        to.low_port = u32::from(sport);
        to.high_port = u32::from(dport);
    }
}

/// Lays what happened to a drop of the same connection, if there was one within the window that has no such
/// consequence yet.
#[inline(never)]
fn blame(work: &mut Work, what: Harm) {
    let ends: &Ends = &work.ends;
    let Some(blames) = HARMED.get_ptr_mut(ends) else { return };
    // SAFETY: the lookup returned this pointer. Another CPU may drop a packet of this connection now: at worst that
    // drop is blamed in the place of the one before.
    let blames = unsafe { &mut *blames };
    let now = work.event.time_ns;
    let bit = 1 << what as u32;
    let free = |blame: &Blame| {
        blame.time_ns != 0 && blame.claimed & bit == 0 && now.wrapping_sub(blame.time_ns) <= HARM_WINDOW_NS
    };
    let own = now.wrapping_sub(blames.last.time_ns) < OWN_NS;
    if free(&blames.before) && (own || !free(&blames.last)) {
        claim(work, &mut blames.before, what);
    } else if free(&blames.last) {
        claim(work, &mut blames.last, what);
    }
}

/// Lays what happened to this drop and tells userspace.
#[inline(always)]
fn claim(work: &mut Work, blame: &mut Blame, what: Harm) {
    blame.claimed |= 1 << what as u32;
    work.event.key = blame.key;
    work.event.drop_time_ns = blame.time_ns;
    tell(&work.event, what);
}

#[inline(always)]
fn tell(event: &HarmEvent, what: Harm) {
    count::cell(what.joined());
    if !emit::wanted() {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<HarmEvent>(0) else { return count::cell(cell::HARM_LOST) };
    entry.write(*event);
    entry.submit(emit::wakeup(event.time_ns));
}

/// Remembers a drop that was just counted, of the packet in `scratch`, and lays to it the reset that was its answer.
#[inline(never)]
pub(crate) fn remember(scratch: &mut Scratch) {
    const WHOLE: u8 = TUPLE_ADDRESSES | TUPLE_PORTS;
    let tuple = &scratch.outer.tuple;
    if tuple.proto != TCP || tuple.have & WHOLE != WHOLE {
        return;
    }
    let Remembering { ends, blames } = &mut scratch.harm;
    sort(ends, &tuple.saddr, &tuple.daddr, tuple.sport, tuple.dport);
    blames.last.key = scratch.key;
    blames.last.time_ns = scratch.now;
    blames.last.claimed = 0;
    blames.last.pad = 0;
    blames.before.time_ns = 0;
    if scratch.answered != 0 {
        blames.last.claimed = 1 << Harm::ResetSent as u32;
        answer(scratch);
    }
    let Remembering { ends, blames } = &scratch.harm;
    if let Some(known) = HARMED.get_ptr_mut(ends) {
        // SAFETY: the lookup returned this pointer; for another CPU's write see `blame`.
        let known = unsafe { &mut *known };
        known.before = known.last;
        known.last = blames.last;
    } else {
        // A full map forgets the connection whose drop is the longest ago.
        let _full_for_once = HARMED.insert(ends, blames, 0);
    }
}

/// Notes whether this CPU has just sent a reset as the answer to the skb at hand. Ends every answer, also for an skb
/// that filters leave out: what comes next on this CPU is another packet.
#[inline(never)]
pub(crate) fn take_answer(scratch: &mut Scratch, skb: u64) {
    scratch.answered = 0;
    let Some(slot) = ANSWERED.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    let last = unsafe { read_volatile(slot) };
    if last.skb == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { write_volatile(slot, Answered { skb: 0, time_ns: 0 }) };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    scratch.answered = u64::from(last.skb == skb && now.wrapping_sub(last.time_ns) <= ANSWER_NS);
}

/// Tells of the reset that was the answer to the packet at hand.
#[inline(never)]
fn answer(scratch: &Scratch) {
    count::cell(Harm::ResetSent.joined());
    if !emit::wanted() {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<HarmEvent>(0) else { return count::cell(cell::HARM_LOST) };
    // SAFETY: the record is ours until it is submitted, and any bytes are a valid one.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    let tuple = &scratch.outer.tuple;
    event.key = scratch.key;
    event.time_ns = scratch.now;
    event.drop_time_ns = scratch.now;
    event.netns_cookie = scratch.key.netns_cookie;
    event.saddr = tuple.daddr;
    event.daddr = tuple.saddr;
    event.netns_inode = scratch.key.netns_inode;
    event.sport = tuple.dport;
    event.dport = tuple.sport;
    event.family = if tuple.ethertype == ETH_IPV6 { AF_INET6 } else { AF_INET };
    event.what = Harm::ResetSent as u8;
    event.state = 0;
    event.pad = 0;
    entry.submit(emit::wakeup(scratch.now));
}
