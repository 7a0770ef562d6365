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
    event::{TUPLE_ADDRESSES, TUPLE_PORTS, Tuple},
    facts::Gather,
    fields::ABSENT,
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
    headers::{ETH_IPV4, ETH_IPV6},
    maps::RECEIVING,
    offsets::{
        Probed, Raw, SOCK_ADDRESS, SOCK_ADDRESS6, SOCK_FAMILY, SOCK_PEER, SOCK_PEER_PORT, SOCK_PEER6,
        SOCK_PORT,
    },
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
    calls::enter(ctx, Call { skb: before.skb, other: before.sk, more: 0 });
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

/// Takes addresses and ports from the socket for data that has lost its headers: `tcp_collapse()` moves what came in
/// several segments into an skb of its own.
#[inline(never)]
pub(crate) fn tuple_of_socket(tuple: &mut Tuple, socket: u64) {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    const TCP: u8 = 6;
    if tuple.have & TUPLE_ADDRESSES != 0 {
        return;
    }
    let socket = Raw(socket);
    let family: u16 = socket.load(&SOCK_FAMILY).unwrap_or(0);
    let (from, to) = ((&raw mut tuple.saddr).cast::<u8>(), (&raw mut tuple.daddr).cast::<u8>());
    if family == AF_INET {
        tuple.ethertype = ETH_IPV4;
        // SAFETY: each takes more than these bytes.
        unsafe { socket.copy_member(&SOCK_PEER, from.cast::<[u8; 4]>()) };
        // SAFETY: as above.
        unsafe { socket.copy_member(&SOCK_ADDRESS, to.cast::<[u8; 4]>()) };
    } else if family == AF_INET6 && SOCK_PEER6.load() != ABSENT && SOCK_ADDRESS6.load() != ABSENT {
        tuple.ethertype = ETH_IPV6;
        // SAFETY: each is as long as the member.
        unsafe { socket.copy_member(&SOCK_PEER6, from.cast::<[u8; 16]>()) };
        // SAFETY: as above.
        unsafe { socket.copy_member(&SOCK_ADDRESS6, to.cast::<[u8; 16]>()) };
    } else {
        return;
    }
    tuple.proto = TCP;
    tuple.sport = u16::from_be(socket.load(&SOCK_PEER_PORT).unwrap_or(0));
    tuple.dport = socket.load(&SOCK_PORT).unwrap_or(0);
    tuple.have = TUPLE_ADDRESSES | TUPLE_PORTS;
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
