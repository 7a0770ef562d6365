//! One drop, whichever hook saw it: filter, count, event.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use netdrop_common::{
    cell,
    codes::{Conntrack, Transport},
    event::KEY_OVERFLOWED,
    facts::{Facts, Gather},
    key::{DropKey, ProbePoint, REASON_ABSENT},
};

use super::{conntrack, harm, listen, queues, tcp_drop};
use crate::{
    count, emit,
    filter::{self, Verdict},
    headers,
    offsets::Access,
    scratch::Scratch,
    skb,
    skb::{Device, Place, Route, Skb, Socket},
    veth,
};

/// What a hook knows of a drop.
#[derive(Clone, Copy)]
pub(crate) struct Occasion {
    /// The hook.
    pub(crate) probe: ProbePoint,
    /// Where the kernel decided.
    pub(crate) location: u64,
    /// Why, as far as the kernel says.
    pub(crate) reason: u32,
    /// What is to be read.
    pub(crate) gather: Gather,
}

/// What a drop is counted under.
#[inline(always)]
pub(crate) fn key<A>(place: &Place<A>, occasion: &Occasion, facts: Facts) -> DropKey {
    DropKey {
        netns_cookie: place.netns.cookie,
        location: occasion.location,
        facts: facts.0,
        netns_inode: place.netns.inode,
        reason: occasion.reason,
        probe: occasion.probe as u32,
        pad: 0,
    }
}

/// Counts one drop and streams its event.
#[inline(always)]
pub(crate) fn observe<A: Access, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    occasion: Occasion,
) {
    let Occasion { probe, location, reason, gather } = occasion;
    if harm::wanted() {
        harm::take_answer(scratch, skb.address());
    }
    // Filters take a location for a return address, and this one is a function's first byte.
    let first_byte = u64::from(probe as u32 == ProbePoint::TcpConnRequest as u32);
    if filter::reason(reason) == Verdict::Filtered
        || filter::location(location + first_byte) == Verdict::Filtered
    {
        count::cell(cell::FILTERED);
        return;
    }
    // Each filter value that was compared is a constant in one path.
    let reason = queues::own_reason(skb.address(), reason);
    let reason = scratch.forget(u64::from(reason)) as u32;
    let location = scratch.forget(location);
    let place = skb::place(skb, receiver);
    let netns = filter::netns_is(place.netns);
    if netns == Verdict::Filtered {
        count::cell(cell::FILTERED);
        return;
    }
    scratch.gather = gather;
    scratch.buffer = skb::buffer(skb);
    scratch.packet_type = skb::packet_type(skb);
    let wants_packet =
        filter::needs_packet() || emit::wanted() || harm::wanted() || scratch.gather.contains(Gather::PACKET);
    if wants_packet {
        headers::parse(scratch, skb::is_local(skb));
    }
    if probe as u32 == ProbePoint::TcpDrop as u32
        && let Some(socket) = receiver
    {
        tcp_drop::tuple_of_socket(&mut scratch.outer.tuple, socket.address());
    }
    let mut facts = Facts::default();
    if scratch.gather.contains(Gather::PACKET) {
        facts = headers::packet_facts(scratch, scratch.packet_type);
    }
    if probe as u32 == ProbePoint::KfreeSkb as u32 {
        // Before the other filters: what they leave out has moved the counters too.
        scratch.witness.begin(place.netns);
        by_witness(scratch, skb, &place, facts, reason, location);
    }
    let facts = scratch.forget_facts(facts);
    let mut verdict = netns.and(filter::interface(&place));
    if filter::needs_packet() {
        verdict = verdict.and(filter::packet(scratch));
    }
    match verdict {
        Verdict::Match => {}
        Verdict::Filtered => return count::cell(cell::FILTERED),
        Verdict::Undecidable => return count::cell(cell::UNDECIDABLE),
    }

    scratch.segments = skb::segments(skb);
    let wants_route = emit::wanted() || scratch.gather.contains(Gather::ROUTE);
    scratch.route = if wants_route { skb::route(skb, place.netns.inode) } else { Route::default() };
    let facts = gather_facts(scratch, skb, receiver, place.device, facts);
    scratch.key = key(&place, &Occasion { probe, location, reason, gather }, facts);
    let counted = count::matched(&scratch.key, scratch.segments);
    scratch.flags = 0;
    if counted.overflowed() {
        scratch.flags = KEY_OVERFLOWED;
        debug!(ctx, "key map full: reason {} at {:x} counted without a key", reason, location);
    }
    if emit::wanted() || harm::wanted() {
        // SAFETY: the helper takes nothing and reads a clock.
        scratch.now = unsafe { bpf_ktime_get_ns() };
    }
    if emit::wanted() && !emit::emit(ctx.as_ptr(), scratch, skb, receiver, place.device) {
        counted.lost();
    }
    // Last: what a drop cost is told after the drop.
    if harm::wanted() {
        harm::remember(scratch);
    }
}

/// What hooks and counters know of an skb that `skb:kfree_skb` shows.
#[inline(always)]
fn by_witness<A: Access>(
    scratch: &mut Scratch,
    skb: Skb<A>,
    place: &Place<A>,
    facts: Facts,
    reason: u32,
    location: u64,
) {
    // A drop that carries no reason tells by its place whether it is netfilter's.
    let stated = reason != REASON_ABSENT && scratch.gather.contains(Gather::CONNTRACK);
    if stated || emit::in_netfilter(location) {
        scratch.connection = skb::tracking(skb);
        conntrack::judge(scratch, skb.address());
        // Behind routing, tracking has seen a packet that came in: it comes first of all but the raw table.
        if scratch.witness.conntrack == Conntrack::MaybeInvalid as u8
            && skb::iif(skb) != 0
            && skb::route_of(skb, place.netns.inode).is_some()
        {
            scratch.witness.conntrack = Conntrack::Invalid as u8;
        }
    }
    if scratch.gather.contains(Gather::LISTEN) && facts.transport() as u8 == Transport::Tcp as u8 {
        listen::look(scratch, place.netns);
    }
}

/// The facts that rules for this reason need. After each group the verifier forgets which way was taken.
#[inline(always)]
fn gather_facts<A: Access>(
    scratch: &mut Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
    facts: Facts,
) -> Facts {
    let (listen, conntrack, tcp) = (scratch.witness.listen, scratch.witness.conntrack, scratch.witness.tcp);
    let mut facts = facts.with_listen(listen).with_conntrack(conntrack).with_tcp_discard(tcp);
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
    if scratch.gather.contains(Gather::QDISC) || scratch.gather.contains(Gather::QDISC_FIGURES) {
        queues::find(scratch, skb, device);
    }
    if scratch.gather.contains(Gather::QDISC) {
        facts = queues::facts(scratch.queue, facts);
    }
    let mut facts = scratch.forget_facts(facts);
    if scratch.gather.contains(Gather::VETH_PEER) {
        let state = veth::peer_state(device, scratch.buffer.len, scratch.segments > 1);
        facts = facts.with_veth_peer(state);
    }
    scratch.forget_facts(facts)
}
