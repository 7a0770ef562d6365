//! netdrop's kernel side: the programs, a few lines each.
#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "atomic_xadd is the one way to a locked add on BPF before core::sync::atomic"
)]
#![feature(adt_const_params, core_intrinsics)]

mod count;
mod emit;
mod evidence;
mod filter;
mod headers;
mod hooks;
mod maps;
mod offsets;
mod record;
mod rodata;
mod scratch;
mod skb;
mod veth;

use core::ptr::null;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    hooks::{
        announce::note,
        kfree_skb::{NO_REASON, kfree_skb},
    },
    offsets::{Checked, Probed},
};

/// The programs of one probe point: `$name` with the best rung, `$raw` with the second.
macro_rules! kfree_skb {
    ($(#[$doc:meta])* $name:ident, $raw:ident, |$ctx:ident| $reason:expr, $receiver:expr) => {
        $(#[$doc])*
        #[btf_tracepoint(function = "kfree_skb")]
        fn $name($ctx: BtfTracePointContext) -> i32 {
            kfree_skb::<Checked, _>(&$ctx, $ctx.arg(0), $ctx.arg(1), $reason, $receiver);
            0
        }

        $(#[$doc])*
        #[raw_tracepoint(tracepoint = "kfree_skb")]
        fn $raw($ctx: RawTracePointContext) -> i32 {
            kfree_skb::<Probed, _>(&$ctx, $ctx.arg(0), $ctx.arg(1), $reason, $receiver);
            0
        }
    };
}

kfree_skb! {
    /// Before 5.17.
    kfree_skb_2, kfree_skb_2_raw, |ctx| NO_REASON, null()
}

kfree_skb! {
    /// From 5.17.
    kfree_skb_3, kfree_skb_3_raw, |ctx| ctx.arg(2), null()
}

kfree_skb! {
    /// From 6.11.
    kfree_skb_4, kfree_skb_4_raw, |ctx| ctx.arg(2), ctx.arg(3)
}

/// Arguments: skb, type, code.
#[btf_tracepoint(function = "icmp_send")]
fn icmp_send(ctx: BtfTracePointContext) -> i32 {
    note(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// See [`icmp_send`].
#[raw_tracepoint(tracepoint = "icmp_send")]
fn icmp_send_raw(ctx: RawTracePointContext) -> i32 {
    note(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Does nothing: what a drop costs when any program at all is attached.
#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// Some helpers are for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
