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
mod filter;
mod headers;
mod hooks;
mod maps;
mod offsets;
mod rodata;
mod scratch;
mod skb;

use core::ptr::null;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::hooks::kfree_skb::{NO_REASON, kfree_skb};

/// Before 5.17.
#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_2(ctx: BtfTracePointContext) -> i32 {
    kfree_skb(&ctx, ctx.arg(0), ctx.arg(1), NO_REASON, null());
    0
}

/// From 5.17.
#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_3(ctx: BtfTracePointContext) -> i32 {
    kfree_skb(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2), null());
    0
}

/// From 6.11.
#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_4(ctx: BtfTracePointContext) -> i32 {
    kfree_skb(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
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
