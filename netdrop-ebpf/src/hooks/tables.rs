//! Tables of netfilter rules (`ipt_do_table()`, `ip6t_do_table()`, `nft_do_chain()`): which one dropped an skb.
//!
//! All are functions of modules, so kprobes. xtables answers NF_DROP, and the hook's caller frees the skb: the table is
//! noted at the return. So does nft before 6.7; from then on `nft_do_chain()` frees the skb itself (NF_DROP_REASON), and
//! the chain that is at work on this CPU is the one that drops.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str},
    programs::{ProbeContext, RetProbeContext},
};
use netdrop_common::{
    event::{RULED_BY_NFT, RULED_BY_XTABLES, Ruling},
    fields::ABSENT,
    filter::TextRange,
};

use super::calls::{self, Call};
use crate::{
    filter,
    maps::{CHAIN_AT_WORK, TABLES},
    offsets::{
        NF_STATE_FAMILY, NF_STATE_HOOK, NFT_CHAIN_NAME, NFT_CHAIN_TABLE, NFT_PACKET_SKB, NFT_TABLE_FAMILY,
        NFT_TABLE_NAME, Raw, XT_TABLE_NAME,
    },
    rodata::element,
};

/// 1 when a hook at a table may be attached: else nobody needs to look for its notes.
#[unsafe(no_mangle)]
static TABLE_HOOKS: Global<u8> = Global::new(0);

/// Which argument of `ipt_do_table()` is the table: 0 since 5.16 (`priv, skb, state`), 2 before (`skb, state, table`).
#[unsafe(no_mangle)]
static XT_TABLE_ARGUMENT: Global<u8> = Global::new(0);

/// `nft_do_chain()`; empty where its address is not known.
#[unsafe(no_mangle)]
static NFT_DO_CHAIN: Global<[TextRange; 1]> = Global::new([TextRange { start: 0, end: 0 }]);

/// NF_DROP under NF_VERDICT_MASK (include/uapi/linux/netfilter.h).
const VERDICT_MASK: u64 = 0xff;
const NF_DROP: u64 = 0;

/// How long a note counts: the skb is freed a few calls later, and its memory may then be another skb.
const FRESH_NS: u64 = 10_000_000;

/// A table that dropped an skb.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Noted {
    time_ns: u64,
    /// Address of the `xt_table`, or of the `nft_chain`.
    ruler: u64,
    /// `RULED_BY_*`.
    by: u16,
    /// `nf_hook_state.hook`, of xtables.
    hook: u8,
    /// `nf_hook_state.pf`, of xtables.
    family: u8,
    pad: u32,
}

/// The base chain that nft has at hand on this CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct AtWork {
    /// Its skb.
    skb: u64,
    /// Address of the `nft_chain`.
    chain: u64,
}

/// Whether hooks at tables may have left notes.
#[inline(always)]
pub(crate) fn hooked() -> bool {
    TABLE_HOOKS.load() != 0
}

/// `ipt_do_table()` or `ip6t_do_table()` begins.
#[inline(always)]
pub(crate) fn table_entered(ctx: &ProbeContext) {
    let (Some(first), Some(second), Some(third)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) else { return };
    let call = if XT_TABLE_ARGUMENT.load() == 0 {
        Call { skb: second, other: first, more: third }
    } else {
        Call { skb: first, other: third, more: second }
    };
    calls::enter(ctx, call);
}

/// It returns.
#[inline(always)]
pub(crate) fn table_returned(ctx: &RetProbeContext) {
    let Some(call) = calls::leave(ctx) else { return };
    if ctx.ret::<u64>() & VERDICT_MASK != NF_DROP {
        return;
    }
    let state = Raw(call.more);
    let hook = state.load::<u8>(&NF_STATE_HOOK).unwrap_or(u8::MAX);
    let family = state.load::<u8>(&NF_STATE_FAMILY).unwrap_or(0);
    note(call.skb, call.other, RULED_BY_XTABLES, hook, family);
}

/// `nft_do_chain(pkt, priv)` begins; `remember` where its verdict is of interest.
#[inline(always)]
pub(crate) fn chain_entered(ctx: &ProbeContext, remember: bool) {
    if NFT_PACKET_SKB.load() == ABSENT {
        return;
    }
    let (Some(packet), Some(chain)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return };
    let skb = Raw(packet).load(&NFT_PACKET_SKB).unwrap_or(0);
    if let Some(at_work) = CHAIN_AT_WORK.get_ptr_mut(0) {
        // SAFETY: the lookup returned this CPU's value; who interrupts and writes to it has another skb.
        unsafe { *at_work = AtWork { skb, chain } };
    }
    if remember {
        calls::enter(ctx, Call { skb, other: chain, more: 0 });
    }
}

/// It returns.
#[inline(always)]
pub(crate) fn chain_returned(ctx: &RetProbeContext) {
    let Some(call) = calls::leave(ctx) else { return };
    if ctx.ret::<u64>() & VERDICT_MASK == NF_DROP {
        note(call.skb, call.other, RULED_BY_NFT, u8::MAX, 0);
    }
}

#[inline(always)]
fn note(skb: u64, ruler: u64, by: u16, hook: u8, family: u8) {
    // SAFETY: the helper takes nothing and reads a clock.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let _full = TABLES.insert(skb, Noted { time_ns, ruler, by, hook, family, pad: 0 }, 0);
}

/// Writes which table dropped the skb at `skb`, whose drop is at `location`; zeros when no hook saw one.
#[inline(never)]
pub(crate) fn write(to: &mut Ruling, skb: u64, location: u64, now: u64) {
    to.table = [0; _];
    to.chain = [0; _];
    to.by = 0;
    to.hook = u8::MAX;
    to.family = 0;
    to.pad = 0;
    if TABLE_HOOKS.load() == 0 {
        return;
    }
    if filter::within(location, element(&NFT_DO_CHAIN, 0)) {
        let Some(at_work) = CHAIN_AT_WORK.get_ptr_mut(0) else { return };
        // SAFETY: the lookup returned this CPU's value.
        let at_work = unsafe { *at_work };
        if at_work.skb == skb {
            nft(to, Raw(at_work.chain));
        }
        return;
    }
    let Some(noted) = TABLES.get_ptr(skb) else { return };
    // SAFETY: the lookup returned this pointer, so it points at a whole `Noted`.
    let noted = unsafe { *noted };
    let _gone = TABLES.remove(skb);
    if now.wrapping_sub(noted.time_ns) > FRESH_NS {
        return;
    }
    if noted.by == RULED_BY_NFT {
        nft(to, Raw(noted.ruler));
    } else if XT_TABLE_NAME.load() != ABSENT {
        // SAFETY: it goes to a member of the record, of its own width.
        unsafe { Raw(noted.ruler).copy_member(&XT_TABLE_NAME, &raw mut to.table) };
        to.by = noted.by;
        to.hook = noted.hook;
        to.family = noted.family;
    }
}

/// Writes names of an nft chain and its table.
#[inline(always)]
fn nft(to: &mut Ruling, chain: Raw) {
    /// `nft_table.family` has these bits.
    const FAMILY: u8 = 0x3f;
    if NFT_CHAIN_NAME.load() == ABSENT
        || NFT_CHAIN_TABLE.load() == ABSENT
        || NFT_TABLE_NAME.load() == ABSENT
        || NFT_TABLE_FAMILY.load() == ABSENT
    {
        return;
    }
    let (Some(name), Some(table)) = (chain.follow(&NFT_CHAIN_NAME), chain.follow(&NFT_CHAIN_TABLE)) else {
        return;
    };
    let Some(table_name) = table.follow(&NFT_TABLE_NAME) else { return };
    copy_name(&mut to.chain, name);
    copy_name(&mut to.table, table_name);
    to.family = table.load::<u8>(&NFT_TABLE_FAMILY).unwrap_or(0) & FAMILY;
    to.by = RULED_BY_NFT;
}

/// Copies a name that ends with a NUL; a longer one is cut.
#[inline(always)]
fn copy_name<const N: usize>(to: &mut [u8; N], name: Raw) {
    // SAFETY: `to` takes `N` bytes; the helper checks the source.
    let _cut_or_faulted = unsafe {
        bpf_probe_read_kernel_str(to.as_mut_ptr().cast(), N as u32, name.0 as *const core::ffi::c_void)
    };
}
