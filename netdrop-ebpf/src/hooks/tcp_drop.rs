//! `tcp_drop(sk, skb)` (net/ipv4/tcp_input.c): before 5.17 TCP frees what it discards by `__kfree_skb()`, which
//! `skb:kfree_skb` does not see. The caller is where TCP decided; which of its reasons it had, a counter tells.

use aya_ebpf::programs::ProbeContext;
use netdrop_common::{
    codes::TcpDiscard,
    facts::Gather,
    key::{ProbePoint, REASON_ABSENT},
    witness::Cell,
};

use super::{
    calls,
    observe::{self, Occasion},
};
use crate::{
    offsets::Probed,
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
    let occasion = Occasion {
        probe: ProbePoint::TcpDrop,
        location: calls::caller(ctx),
        reason: REASON_ABSENT,
        gather: Gather::PACKET.union(Gather::SOCKET).union(Gather::MEMORY).union(Gather::TCP_DISCARD),
    };
    observe::observe(ctx, scratch, skb, Some(sk), occasion);
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
