//! Event records: written in place in the ring, and when to wake the reader.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_get_stack,
};
use netdrop_common::{
    codes::Conntrack,
    event::{DropEvent, HOOK_FRAMES, STACK_FRAMES, Stacked, Tracked},
    facts::Gather,
    filter::{NETFILTER_TEXTS, TextRange},
};

use crate::{
    connection, evidence, filter,
    hooks::{announce, tables},
    maps::{EVENTS, LAST_WAKE, STACKS_PAID},
    offsets::Access,
    record,
    rodata::element,
    scratch::Scratch,
    skb::{Device, Skb, Socket},
};

/// 0: count only.
#[unsafe(no_mangle)]
static EMIT_EVENTS: Global<u8> = Global::new(1);

/// Bytes waiting in the ring at which the reader is woken whatever the time.
#[unsafe(no_mangle)]
static WAKE_BYTES: Global<u32> = Global::new(0);

/// A CPU that has woken the reader this recently leaves it alone. The reader, once awake, polls until
/// the ring has been quiet for twice as long, so a record that wakes nobody is still seen at once.
const WAKE_INTERVAL_NS: u64 = 10_000_000;

/// Whether events are wanted at all.
#[inline(always)]
pub(crate) fn wanted() -> bool {
    EMIT_EVENTS.load() != 0
}

/// Whether every event is to carry the kernel stack.
#[unsafe(no_mangle)]
static EMIT_STACK: Global<u8> = Global::new(0);

/// Functions that run netfilter hooks, for drops that carry no reason.
#[unsafe(no_mangle)]
static NETFILTER_TEXT: Global<[TextRange; NETFILTER_TEXTS]> =
    Global::new([TextRange { start: 0, end: 0 }; NETFILTER_TEXTS]);

/// Verdicts of connection tracking that are about the packet's own connection.
const FIRST_TRACKED: u8 = Conntrack::Clash as u8;
const LAST_TRACKED: u8 = Conntrack::ChainTooLong as u8;

/// Whether a location is in a function that runs netfilter hooks.
#[inline(always)]
pub(crate) fn in_netfilter(location: u64) -> bool {
    let mut inside = false;
    let mut index = 0;
    while index < NETFILTER_TEXTS {
        inside |= filter::within(location, element(&NETFILTER_TEXT, index));
        index += 1;
    }
    inside
}

/// Writes the record of a drop; says whether the ring had room. A function of its own, for its own stack
/// frame. What it needs that is no typed pointer lies in `scratch`.
#[inline(never)]
pub(crate) fn emit<A: Access>(
    context: *mut c_void,
    scratch: &Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
) -> bool {
    let tracked =
        matches!(scratch.witness.conntrack, FIRST_TRACKED..=LAST_TRACKED) && scratch.connection != 0;
    let ruled = scratch.gather.contains(Gather::NETFILTER) || in_netfilter(scratch.key.location);
    if EMIT_STACK.load() != 0 {
        if tracked {
            return with_connection::<A, STACK_FRAMES>(context, scratch, skb, receiver, device, true);
        }
        return stacked::<A, STACK_FRAMES>(context, scratch, skb, receiver, device, true);
    }
    let pay = (tracked || ruled) && affordable(scratch.now);
    if tracked {
        with_connection::<A, HOOK_FRAMES>(context, scratch, skb, receiver, device, pay)
    } else if pay || (ruled && tables::hooked()) {
        stacked::<A, HOOK_FRAMES>(context, scratch, skb, receiver, device, pay)
    } else {
        let Some(mut entry) = EVENTS.reserve::<DropEvent>(0) else { return false };
        // SAFETY: the record is ours until it is submitted, and its memory is initialised, if only with old
        // records: any bytes are a valid `DropEvent`, which is made of integers alone.
        let event = unsafe { &mut *entry.as_mut_ptr() };
        fill(event, scratch, skb, receiver, device);
        entry.submit(wakeup(scratch.now));
        true
    }
}

/// Stacks that nobody asked for and that a CPU may take at once; one more each `STACK_INTERVAL_NS`.
const STACK_BURST: u64 = 256;

/// A stack takes 4 us, so this is at most 0.4 % of a CPU.
const STACK_INTERVAL_NS: u64 = 1_000_000;

/// Whether this CPU may take a stack now: with one for each drop, a flood would be slowed down to a third.
#[inline(always)]
fn affordable(now: u64) -> bool {
    let Some(paid) = STACKS_PAID.get_ptr_mut(0) else { return false };
    // SAFETY: the lookup returned this CPU's value; a nested run could at most cost or save one stack.
    let until = unsafe { *paid };
    let least = now.saturating_sub(STACK_BURST * STACK_INTERVAL_NS);
    let next = if until < least { least } else { until } + STACK_INTERVAL_NS;
    if next > now {
        return false;
    }
    // SAFETY: as above.
    unsafe { *paid = next };
    true
}

/// Writes a record with the stack; says whether the ring had room.
#[inline(always)]
fn stacked<A: Access, const FRAMES: usize>(
    context: *mut c_void,
    scratch: &Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
    take_stack: bool,
) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Stacked<FRAMES>>(0) else { return false };
    // SAFETY: the record is ours until it is submitted, and any bytes are a valid one.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    fill(&mut record.event, scratch, skb, receiver, device);
    behind(context, record, scratch, skb.address(), take_stack);
    entry.submit(wakeup(scratch.now));
    true
}

/// Writes a record with stack and connection; says whether the ring had room.
#[inline(always)]
fn with_connection<A: Access, const FRAMES: usize>(
    context: *mut c_void,
    scratch: &Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
    take_stack: bool,
) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Tracked<FRAMES>>(0) else { return false };
    // SAFETY: the record is ours until it is submitted, and any bytes are a valid one.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    fill(&mut record.stacked.event, scratch, skb, receiver, device);
    behind(context, &mut record.stacked, scratch, skb.address(), take_stack);
    connection::write(&mut record.connection, scratch.connection);
    connection::write(&mut record.winner, scratch.winner);
    entry.submit(wakeup(scratch.now));
    true
}

/// Writes what stands behind the drop: the table that ruled it, and the stack where that is to be taken.
#[inline(always)]
fn behind<const FRAMES: usize>(
    context: *mut c_void,
    record: &mut Stacked<FRAMES>,
    scratch: &Scratch,
    skb: u64,
    take_stack: bool,
) {
    tables::write(&mut record.ruling, skb, scratch.key.location, scratch.now);
    record.filled = -1;
    if take_stack {
        let frames = (&raw mut record.frames).cast();
        // SAFETY: `frames` takes as many bytes as the helper is told; it writes them, or returns a negative number
        // and the reader takes none of them.
        record.filled = unsafe { bpf_get_stack(context, frames, (8 * FRAMES) as u32, 0) };
    }
}

/// Writes every byte of the record but the stack: the ring hands out memory with old records in it.
#[inline(always)]
fn fill<A: Access>(
    event: &mut DropEvent,
    scratch: &Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
) {
    record::base(event, scratch, skb);
    if let Some(device) = device {
        record::device(event, device);
    }
    if let Some(socket) = receiver {
        record::socket(event, socket);
        record::socket_inode(event, socket);
    }
    announce::take(event, skb.address());
    evidence::add(event, scratch, skb, receiver, device);
}

/// A lone drop wakes the reader at once, a flood in batches: the flag for `submit`.
#[inline(always)]
pub(crate) fn wakeup(now: u64) -> u64 {
    let record = size_of::<DropEvent>() as u64 + 8;
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let watermark = u64::from(WAKE_BYTES.load());
    // Wider than one record: several CPUs may step over the mark together.
    let crossing = waiting >= watermark && waiting < watermark + 4 * record;
    let Some(last) = LAST_WAKE.get_ptr_mut(0) else { return u64::from(BPF_RB_FORCE_WAKEUP) };
    // SAFETY: the lookup returned this CPU's value; a nested run could at most cost or save one wakeup.
    let stale = now.wrapping_sub(unsafe { *last }) >= WAKE_INTERVAL_NS;
    if !stale && !crossing {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    // SAFETY: as above.
    unsafe {
        *last = now;
    }
    u64::from(BPF_RB_FORCE_WAKEUP)
}
