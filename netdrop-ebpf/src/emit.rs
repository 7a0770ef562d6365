//! Event records: written in place in the ring, and when to wake the reader.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_stack, bpf_ktime_get_ns},
};
use netdrop_common::{
    event::{
        CAPTURE_LEN, DropEvent, HAVE_DEVICE, HAVE_MAC, HAVE_ROUTE, HAVE_SENDER, HAVE_SOCKET,
        HAVE_SOCKET_MEMORY, HOOK_FRAMES, KEY_OVERFLOWED, NO_OFFSET, STACK_FRAMES, Stacked,
    },
    facts::Gather,
    key::DropKey,
};

use crate::{
    count::Counted,
    evidence,
    headers::{self, Headers},
    hooks::announce,
    maps::{EVENTS, LAST_WAKE},
    offsets::Access,
    rodata::element,
    skb::{self, Buffer, Place, Route, Skb, Socket, SocketMemory},
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

/// The function that runs netfilter hooks, for drops that carry no reason.
#[unsafe(no_mangle)]
static NETFILTER_TEXT: Global<[u64; 2]> = Global::new([0; 2]);

/// All that is known of a drop when its event is written.
pub(crate) struct Drop<'a, A> {
    pub(crate) skb: Skb<A>,
    pub(crate) receiver: Option<Socket<A>>,
    pub(crate) place: &'a Place<A>,
    pub(crate) buffer: &'a Buffer,
    pub(crate) headers: &'a Headers,
    pub(crate) route: Route,
    pub(crate) segments: u16,
    pub(crate) packet_type: u8,
    pub(crate) gather: Gather,
    pub(crate) context: *mut c_void,
}

/// What is known only when the record is written.
struct Stamp {
    now: u64,
    /// [`KEY_OVERFLOWED`] or nothing.
    flags: u16,
    /// How the sender was told: [`announce::take`].
    told: [u8; 3],
}

/// Writes the record of a drop, or notes under `counted` that the ring was full. A function of its own,
/// for its own stack frame.
#[inline(never)]
pub(crate) fn emit<A: Access>(key: &DropKey, drop: &Drop<'_, A>, counted: Counted) {
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let flags = if counted.overflowed() { KEY_OVERFLOWED } else { 0 };
    let stamp = Stamp { now, flags, told: announce::take(drop.skb.address(), now) };
    let written = if EMIT_STACK.load() != 0 {
        stacked::<A, STACK_FRAMES>(key, drop, &stamp)
    } else if drop.gather.contains(Gather::NETFILTER) || in_netfilter(key.location) {
        stacked::<A, HOOK_FRAMES>(key, drop, &stamp)
    } else if let Some(mut entry) = EVENTS.reserve::<DropEvent>(0) {
        fill(entry.as_mut_ptr(), key, drop, &stamp);
        entry.submit(wakeup(now));
        true
    } else {
        false
    };
    if !written {
        counted.lost();
    }
}

#[inline(always)]
fn in_netfilter(location: u64) -> bool {
    location > element(&NETFILTER_TEXT, 0) && location <= element(&NETFILTER_TEXT, 1)
}

/// Writes a record with the stack; says whether the ring had room.
#[inline(always)]
fn stacked<A: Access, const FRAMES: usize>(key: &DropKey, drop: &Drop<'_, A>, stamp: &Stamp) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Stacked<FRAMES>>(0) else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at a whole record, which is ours until it is submitted.
    fill(unsafe { &raw mut (*record).event }, key, drop, stamp);
    // SAFETY: as above.
    let frames = unsafe { &raw mut (*record).frames };
    // SAFETY: `frames` takes as many bytes as the helper is told, and it writes them all, zeros on a fault.
    let filled = unsafe { bpf_get_stack(drop.context, frames.cast(), (8 * FRAMES) as u32, 0) };
    // SAFETY: as above.
    unsafe { (*record).filled = filled };
    entry.submit(wakeup(stamp.now));
    true
}

/// Writes every byte of the record: the ring hands out memory with old records in it. A function of its own,
/// because every kind of record has one.
#[inline(never)]
fn fill<A: Access>(event: *mut DropEvent, key: &DropKey, drop: &Drop<'_, A>, stamp: &Stamp) {
    // SAFETY: the record is ours until it is submitted, and its memory is initialised, if only with old
    // records: any bytes are a valid `DropEvent`, which is made of integers alone.
    let event = unsafe { &mut *event };
    let mut have = stamp.flags;
    let (mut ifindex, mut ifname) = (0, [0; 2]);
    if let Some(device) = drop.place.device {
        have |= HAVE_DEVICE;
        ifindex = skb::ifindex(device);
        ifname = skb::ifname(device);
    }
    let mut socket_state = 0;
    let mut memory = SocketMemory { used: 0, limit: 0, backlog: 0, send_limit: 0 };
    if let Some(socket) = drop.receiver {
        have |= HAVE_SOCKET;
        socket_state = skb::socket_state(socket);
        if let Some(found) = skb::socket_memory(socket) {
            have |= HAVE_SOCKET_MEMORY;
            memory = found;
        }
    }
    if skb::sender(drop.skb).is_some() {
        have |= HAVE_SENDER;
    }
    if drop.route.found {
        have |= HAVE_ROUTE;
    }
    let buffer = drop.buffer;
    let l3 = drop.headers.l3;
    let l3_len = if l3 == 0 { 0 } else { buffer.len.wrapping_add(buffer.data).wrapping_sub(l3) };

    event.bytes = [0; CAPTURE_LEN];
    event.key = *key;
    event.time_ns = stamp.now;
    event.dst_input = drop.route.input;
    event.tuple = drop.headers.tuple;
    // The name stands at a multiple of 4, its words are two halves each.
    // SAFETY: `ifname` is 16 bytes at a multiple of 4.
    unsafe { (&raw mut event.ifname).cast::<[u32; 4]>().write(split(ifname)) };
    event.ifindex = ifindex;
    event.iif = skb::iif(drop.skb);
    event.l3_len = l3_len;
    event.socket_used = memory.used;
    event.socket_limit = memory.limit;
    event.socket_backlog = memory.backlog;
    event.socket_send_limit = memory.send_limit;
    event.segments = drop.segments;
    event.packet_type = drop.packet_type;
    event.socket_state = socket_state;
    event.route_error = drop.route.error;
    [event.announced, event.announced_type, event.announced_code] = stamp.told;
    event.pad = [0; 2];
    event.caplen = 0;
    event.l3_offset = NO_OFFSET;
    have |= evidence::fill(event, drop.gather, drop.skb, drop.place, drop.receiver);
    if let Some(capture) = headers::capture(buffer, l3) {
        let len = if capture.available > CAPTURE_LEN as u32 { CAPTURE_LEN as u32 } else { capture.available };
        if capture.ethernet.is_some() {
            have |= HAVE_MAC;
        }
        let to = (&raw mut event.bytes).cast::<u8>();
        // SAFETY: `bytes` is `CAPTURE_LEN` long.
        event.caplen = unsafe { capture.from.copy::<{ CAPTURE_LEN as u32 }>(to, len) } as u16;
        event.l3_offset = capture.ethernet.unwrap_or(0);
    }
    event.have = have;
}

/// The name's words as the halves that fit the record's alignment.
#[inline(always)]
fn split(name: [u64; 2]) -> [u32; 4] {
    [name[0] as u32, (name[0] >> 32) as u32, name[1] as u32, (name[1] >> 32) as u32]
}

/// A lone drop wakes the reader at once, a flood in batches: the flag for `submit`.
#[inline(always)]
fn wakeup(now: u64) -> u64 {
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
