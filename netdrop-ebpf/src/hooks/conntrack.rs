//! Connection tracking (net/netfilter/nf_conntrack_core.c): what it did with a packet that netfilter dropped.
//!
//! `__nf_conntrack_confirm()` enters a new connection into the table. Where another one is there already,
//! `nf_ct_resolve_clash()` decides which of the two goes on. Both are functions of a module, so kprobes; their NF_DROP
//! is noted and joined to the drop that follows. Where there are no such hooks, the counters tell.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use netdrop_common::{codes::Conntrack, fields::ABSENT, witness::Cell};

use super::{
    calls::{self, Call},
    verdict::{self, CLASH_LOST, REFUSED},
};
use crate::{
    offsets::{
        CONN_STATUS, CONN_TUPLES, Raw, TUPLE_DIRECTION, TUPLE_DST_PORT, TUPLE_HASH_SIZE, TUPLE_HASH_TUPLE,
        TUPLE_SRC_PORT,
    },
    scratch::Scratch,
    witness::look_at_conntrack,
};

/// NF_DROP under NF_VERDICT_MASK (include/uapi/linux/netfilter.h).
const VERDICT_MASK: u64 = 0xff;
const NF_DROP: u64 = 0;

/// IPS_SRC_NAT (include/uapi/linux/netfilter/nf_conntrack_common.h).
const SOURCE_NAT: u64 = 1 << 4;

/// `__nf_conntrack_confirm(skb)` begins.
#[inline(always)]
pub(crate) fn confirm(ctx: &ProbeContext) {
    calls::enter(ctx, Call { skb: ctx.arg(0).unwrap_or(0), other: 0, more: 0 });
}

/// `__nf_conntrack_confirm()` ends.
#[inline(always)]
pub(crate) fn confirmed(ctx: &RetProbeContext) {
    let Some(call) = calls::leave(ctx) else { return };
    if ctx.ret::<u64>() & VERDICT_MASK == NF_DROP {
        verdict::note(call.skb, REFUSED, 0);
    }
}

/// `nf_ct_resolve_clash(skb, h, reply_hash)` begins: `h` is of the connection that was there first.
#[inline(always)]
pub(crate) fn resolve(ctx: &ProbeContext) {
    calls::enter(ctx, Call { skb: ctx.arg(0).unwrap_or(0), other: ctx.arg(1).unwrap_or(0), more: 0 });
}

/// `nf_ct_resolve_clash()` ends.
#[inline(always)]
pub(crate) fn resolved(ctx: &RetProbeContext) {
    let Some(call) = calls::leave(ctx) else { return };
    if ctx.ret::<u64>() & VERDICT_MASK == NF_DROP {
        verdict::note(call.skb, CLASH_LOST, connection_of(Raw(call.other)).unwrap_or(0));
    }
}

/// `nf_ct_tuplehash_to_ctrack()`: the connection that an entry of the hash table is part of.
#[inline(always)]
fn connection_of(hash: Raw) -> Option<u64> {
    if CONN_TUPLES.load() == ABSENT || TUPLE_HASH_TUPLE.load() == ABSENT || TUPLE_DIRECTION.load() == ABSENT {
        return None;
    }
    let direction: u8 = hash.offset(u64::from(TUPLE_HASH_TUPLE.load())).load(&TUPLE_DIRECTION)?;
    let before = u64::from(direction & 1) * u64::from(TUPLE_HASH_SIZE.load()) + u64::from(CONN_TUPLES.load());
    Some(hash.0.wrapping_sub(before))
}

/// What connection tracking did with the skb at `skb` that was just dropped; goes to `witness.conntrack`.
/// `scratch.connection` holds its `_nfct`, and afterwards the address of its connection.
#[inline(never)]
pub(crate) fn judge(scratch: &mut Scratch, skb: u64) {
    /// Low bits of `_nfct`: `enum ip_conntrack_info`, of which 7 is IP_CT_UNTRACKED.
    const INFO: u64 = 7;
    look_at_conntrack(&mut scratch.witness);
    let untracked = scratch.connection != 0 && scratch.connection & !INFO == 0;
    if scratch.connection == u64::MAX {
        scratch.connection = 0;
    }
    scratch.connection &= !INFO;
    scratch.winner = 0;
    let mut hooked = 0;
    if let Some(noted) = verdict::take(skb) {
        scratch.winner = noted.winner;
        hooked = noted.what;
    }
    by_counters(scratch, untracked);
    if hooked == CLASH_LOST {
        scratch.witness.conntrack = Conntrack::Clash as u8;
    } else if hooked == REFUSED {
        let seen = scratch.witness.conntrack;
        let insertion = seen == Conntrack::Clash as u8 || seen == Conntrack::ChainTooLong as u8;
        if !insertion {
            scratch.witness.conntrack = Conntrack::Failed as u8;
        }
    }
    if hooked == CLASH_LOST || hooked == REFUSED {
        scratch.witness.cell = netdrop_common::witness::NO_CELL;
    }
    if scratch.witness.conntrack == Conntrack::Clash as u8 && looked_for_a_port(Raw(scratch.connection)) {
        scratch.witness.conntrack = Conntrack::NatPorts as u8;
    }
}

/// What the counters say, see `nf_conntrack_in()`, `__nf_conntrack_confirm()` and `nf_ct_resolve_clash()`.
#[inline(always)]
fn by_counters(scratch: &mut Scratch, untracked: bool) {
    let has_entry = scratch.connection != 0;
    let witness = &mut scratch.witness;
    if !witness.compared() {
        return;
    }
    let failed = witness.moved(Cell::InsertFailed);
    let dropped = witness.moved(Cell::Drop);
    let code = if failed == 0 && dropped == 0 {
        if witness.moved(Cell::Invalid) == 0 || has_entry || untracked {
            Conntrack::Quiet
        } else {
            witness.testify(Cell::Invalid);
            Conntrack::MaybeInvalid
        }
    } else if failed == 1 && dropped == 1 && has_entry {
        witness.testify(Cell::InsertFailed);
        Conntrack::Clash
    } else if failed == 1 && dropped == 0 && has_entry {
        if witness.moved(Cell::ChainTooLong) == 0 {
            witness.testify(Cell::InsertFailed);
            Conntrack::Failed
        } else {
            witness.testify(Cell::ChainTooLong);
            Conntrack::ChainTooLong
        }
    } else if failed == 0 && dropped == 1 {
        witness.testify(Cell::Drop);
        if has_entry { Conntrack::Failed } else { Conntrack::TableFull }
    } else {
        Conntrack::Several
    };
    witness.conntrack = code as u8;
}

/// Whether source NAT gave the connection another port than it came with: `nf_nat_l4proto_unique_tuple()`
/// (net/netfilter/nf_nat_core.c) does that when the first is in use or not allowed, and when it finds none that is free
/// it leaves the last one it tried.
#[inline(always)]
fn looked_for_a_port(connection: Raw) -> bool {
    if connection.0 == 0 || CONN_STATUS.load() == ABSENT || CONN_TUPLES.load() == ABSENT {
        return false;
    }
    if connection.load::<u64>(&CONN_STATUS).unwrap_or(0) & SOURCE_NAT == 0 {
        return false;
    }
    let original = connection.offset(u64::from(CONN_TUPLES.load()) + u64::from(TUPLE_HASH_TUPLE.load()));
    let reply = original.offset(u64::from(TUPLE_HASH_SIZE.load()));
    original.load::<u16>(&TUPLE_SRC_PORT) != reply.load::<u16>(&TUPLE_DST_PORT)
}
