//! What TCP discards before 5.17 (net/ipv4/tcp_input.c): `tcp_drop(sk, skb)` frees it by `__kfree_skb()`, which
//! `skb:kfree_skb` does not see. The caller is where TCP decided; which of its reasons it had, a counter tells.
//!
//! A compiler may leave no `tcp_drop()` to hook. Then `__kfree_skb()` is, where it is called by a function of TCP that
//! frees little else, or for the segment that `tcp_data_queue()` has at hand while a counter of discards moves.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    Global,
    programs::{ProbeContext, RetProbeContext},
};
use netdrop_common::{
    codes::TcpDiscard,
    facts::Gather,
    filter::TextRange,
    key::{ProbePoint, REASON_ABSENT},
    witness::Cell,
};

use super::{
    calls::{self, Call},
    observe::{self, Occasion},
};
use crate::{
    filter,
    maps::RECEIVING,
    offsets::Probed,
    rodata::element,
    scratch::{self, Scratch},
    skb::{self, Skb, Socket},
    witness::look_at_tcp,
};

/// `tcp_drop()` begins.
#[inline(always)]
pub(crate) fn discarded(ctx: &ProbeContext) {
    let (Some(sk), Some(skb)) = (ctx.arg::<*const u8>(0), ctx.arg::<*const u8>(1)) else { return };
    let (Some(sk), Some(skb)) = (Socket::<Probed>::new(sk), Skb::<Probed>::new(skb)) else { return };
    let Some((scratch, level)) = scratch::enter() else { return };
    scratch.witness.begin(skb::socket_netns(sk));
    judge(scratch);
    observe::observe(ctx, scratch, skb, Some(sk), occasion(calls::caller(ctx)));
    scratch::leave(level);
}

#[inline(always)]
fn occasion(location: u64) -> Occasion {
    Occasion {
        probe: ProbePoint::TcpDrop,
        location,
        reason: REASON_ABSENT,
        gather: Gather::PACKET.union(Gather::SOCKET).union(Gather::MEMORY).union(Gather::TCP_DISCARD),
    }
}

/// `tcp_data_queue()`, `tcp_prune_ofo_queue()` and `tcp_validate_incoming()`.
#[unsafe(no_mangle)]
static TCP_RECEIVE: Global<[TextRange; 3]> = Global::new([TextRange { start: 0, end: 0 }; 3]);

const DATA_QUEUE: usize = 0;
const PRUNE: usize = 1;
const VALIDATE: usize = 2;

/// The segment that this CPU has at hand.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Receiving {
    sk: u64,
    skb: u64,
}

/// `tcp_data_queue(sk, skb)` begins. An interrupt may find another segment in the midst of it, and gives it back.
#[inline(always)]
pub(crate) fn receiving(ctx: &ProbeContext) {
    let (Some(sk), Some(skb)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return };
    let Some(slot) = RECEIVING.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    let before = unsafe { read_volatile(slot) };
    calls::enter(ctx, Call { skb: before.skb, other: before.sk });
    // SAFETY: as above.
    unsafe { write_volatile(slot, Receiving { sk, skb }) };
}

/// `tcp_data_queue()` ends.
#[inline(always)]
pub(crate) fn received(ctx: &RetProbeContext) {
    let before = calls::leave(ctx)
        .map_or(Receiving { sk: 0, skb: 0 }, |call| Receiving { sk: call.other, skb: call.skb });
    let Some(slot) = RECEIVING.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    unsafe { write_volatile(slot, before) };
}

/// `__kfree_skb(skb)` begins.
#[inline(always)]
pub(crate) fn freed(ctx: &ProbeContext) {
    let Some(freed) = ctx.arg::<u64>(0) else { return };
    let Some(slot) = RECEIVING.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's value.
    let current = unsafe { read_volatile(slot) };
    let caller = calls::caller(ctx);
    let data_queue: TextRange = element(&TCP_RECEIVE, DATA_QUEUE);
    let queued = current.sk != 0 && current.skb == freed;
    let (location, sk) = if queued {
        // The call may be the function's last and leave no trace of it.
        (data_queue.start + 1, current.sk)
    } else if current.sk != 0 && filter::within(caller, element(&TCP_RECEIVE, PRUNE)) {
        (caller, current.sk)
    } else if filter::within(caller, element(&TCP_RECEIVE, VALIDATE)) {
        (caller, 0)
    } else {
        return;
    };
    let Some(skb) = Skb::<Probed>::new(freed as *const u8) else { return };
    let receiver = Socket::<Probed>::new(sk as *const u8);
    let Some((scratch, level)) = scratch::enter() else { return };
    scratch.witness.begin(skb::place(skb, receiver).netns);
    judge(scratch);
    // What it frees without a counter is mostly what it has taken in.
    if !queued || scratch.witness.tcp > TcpDiscard::Quiet as u8 {
        observe::observe(ctx, scratch, skb, receiver, occasion(location));
    }
    scratch::leave(level);
}

/// What the counters say of the segment; goes to `witness.tcp`.
#[inline(never)]
fn judge(scratch: &mut Scratch) {
    let witness = &mut scratch.witness;
    look_at_tcp(witness);
    if !witness.compared() {
        return;
    }
    let mut code = TcpDiscard::Quiet;
    let mut moved = 0;
    macro_rules! consider {
        ($cell:ident, $code:ident) => {
            if witness.moved(Cell::$cell) != 0 {
                moved += 1;
                witness.testify(Cell::$cell);
                code = TcpDiscard::$code;
            }
        };
    }
    consider!(OfoPruned, Pruned);
    consider!(RcvQDrop, ReceiveQueue);
    consider!(OfoDrop, OutOfOrder);
    consider!(PawsEstab, Paws);
    consider!(ZeroWindowDrop, ZeroWindow);
    if moved > 1 {
        code = TcpDiscard::Several;
    }
    witness.tcp = code as u8;
}
