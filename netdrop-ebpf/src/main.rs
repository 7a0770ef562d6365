//! netdrop's kernel side: the programs, a few lines each.
#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "atomic_xadd is the one way to a locked add on BPF before core::sync::atomic"
)]
#![feature(adt_const_params, core_intrinsics)]

mod connection;
mod count;
mod emit;
mod evidence;
mod filter;
mod headers;
mod hooks;
mod maps;
mod offsets;
mod record;
mod refuse;
mod rodata;
mod scratch;
mod skb;
mod task;
mod veth;
mod witness;

use core::ptr::null;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint, tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext, TracePointContext,
    },
};
use netdrop_common::{harm::Harm, refusal::Call};

use crate::{
    hooks::{
        announce::note,
        conntrack, harm,
        kfree_skb::{NO_REASON, kfree_skb},
        listen, prime, queues, refusal, tables, tcp_drop as discard,
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

/// Arguments: skb; before 6.3.
#[btf_tracepoint(function = "consume_skb")]
fn consume_skb_1(ctx: BtfTracePointContext) -> i32 {
    listen::consumed::<Checked, _>(&ctx, ctx.arg(0), None);
    0
}

/// Arguments: skb, location.
#[btf_tracepoint(function = "consume_skb")]
fn consume_skb_2(ctx: BtfTracePointContext) -> i32 {
    listen::consumed::<Checked, _>(&ctx, ctx.arg(0), Some(ctx.arg(1)));
    0
}

/// See [`consume_skb_1`].
#[raw_tracepoint(tracepoint = "consume_skb")]
fn consume_skb_1_raw(ctx: RawTracePointContext) -> i32 {
    listen::consumed::<Probed, _>(&ctx, ctx.arg(0), None);
    0
}

/// See [`consume_skb_2`].
#[raw_tracepoint(tracepoint = "consume_skb")]
fn consume_skb_2_raw(ctx: RawTracePointContext) -> i32 {
    listen::consumed::<Probed, _>(&ctx, ctx.arg(0), Some(ctx.arg(1)));
    0
}

/// Arguments: rsk_ops, af_ops, sk, skb.
#[fentry(function = "tcp_conn_request")]
fn tcp_conn_request_fentry(ctx: FEntryContext) -> i32 {
    listen::entered::<Checked>(ctx.arg(2));
    0
}

/// See [`tcp_conn_request_fentry`].
#[fexit(function = "tcp_conn_request")]
fn tcp_conn_request_fexit(ctx: FExitContext) -> i32 {
    listen::returned::<Checked, _>(&ctx, ctx.arg(2), ctx.arg(3));
    0
}

/// See [`tcp_conn_request_fentry`].
#[kprobe]
fn tcp_conn_request_kprobe(ctx: ProbeContext) -> u32 {
    listen::probe_entered(&ctx);
    0
}

/// See [`tcp_conn_request_fentry`].
#[kretprobe]
fn tcp_conn_request_kretprobe(ctx: RetProbeContext) -> u32 {
    listen::probe_returned(&ctx);
    0
}

/// Arguments: skb.
#[kprobe]
fn nf_conntrack_confirm_kprobe(ctx: ProbeContext) -> u32 {
    conntrack::confirm(&ctx);
    0
}

/// See [`nf_conntrack_confirm_kprobe`].
#[kretprobe]
fn nf_conntrack_confirm_kretprobe(ctx: RetProbeContext) -> u32 {
    conntrack::confirmed(&ctx);
    0
}

/// Arguments: skb, h, reply_hash.
#[kprobe]
fn nf_ct_resolve_clash_kprobe(ctx: ProbeContext) -> u32 {
    conntrack::resolve(&ctx);
    0
}

/// See [`nf_ct_resolve_clash_kprobe`].
#[kretprobe]
fn nf_ct_resolve_clash_kretprobe(ctx: RetProbeContext) -> u32 {
    conntrack::resolved(&ctx);
    0
}

/// Attached to every function of xtables that goes through a table. Arguments: see `tables`.
#[kprobe]
fn xt_do_table_kprobe(ctx: ProbeContext) -> u32 {
    tables::table_entered(&ctx);
    0
}

/// See [`xt_do_table_kprobe`].
#[kretprobe]
fn xt_do_table_kretprobe(ctx: RetProbeContext) -> u32 {
    tables::table_returned(&ctx);
    0
}

/// Arguments: pkt, priv. From 6.7.
#[kprobe]
fn nft_do_chain_kprobe(ctx: ProbeContext) -> u32 {
    tables::chain_entered(&ctx, false);
    0
}

/// Arguments: pkt, priv. Before 6.7.
#[kprobe]
fn nft_do_chain_call_kprobe(ctx: ProbeContext) -> u32 {
    tables::chain_entered(&ctx, true);
    0
}

/// See [`nft_do_chain_call_kprobe`].
#[kretprobe]
fn nft_do_chain_call_kretprobe(ctx: RetProbeContext) -> u32 {
    tables::chain_returned(&ctx);
    0
}

/// Attached to the enqueue functions of all kinds of qdiscs. Arguments: skb, sch, to_free.
#[kprobe]
fn qdisc_enqueue_kprobe(ctx: ProbeContext) -> u32 {
    queues::entered(&ctx);
    0
}

/// See [`qdisc_enqueue_kprobe`].
#[kretprobe]
fn qdisc_enqueue_kretprobe(ctx: RetProbeContext) -> u32 {
    queues::returned(&ctx);
    0
}

/// Arguments: qdisc, txq, dev, skb, reason.
#[btf_tracepoint(function = "qdisc_drop")]
fn qdisc_drop(ctx: BtfTracePointContext) -> i32 {
    queues::reasoned(ctx.arg::<*const u8>(3) as u64, ctx.arg(4));
    0
}

/// See [`qdisc_drop`].
#[raw_tracepoint(tracepoint = "qdisc_drop")]
fn qdisc_drop_raw(ctx: RawTracePointContext) -> i32 {
    queues::reasoned(ctx.arg::<*const u8>(3) as u64, ctx.arg(4));
    0
}

/// Arguments: sk, skb.
#[kprobe]
fn tcp_drop_kprobe(ctx: ProbeContext) -> u32 {
    discard::discarded(&ctx);
    0
}

/// Arguments: sk, skb.
#[kprobe]
fn tcp_data_queue_kprobe(ctx: ProbeContext) -> u32 {
    discard::receiving(&ctx);
    0
}

/// See [`tcp_data_queue_kprobe`].
#[kretprobe]
fn tcp_data_queue_kretprobe(ctx: RetProbeContext) -> u32 {
    discard::received(&ctx);
    0
}

/// Arguments: skb.
#[kprobe]
fn kfree_skb_kprobe(ctx: ProbeContext) -> u32 {
    discard::freed(&ctx);
    0
}

/// Arguments: sk, skb; from 6.17 also err.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: RawTracePointContext) -> i32 {
    harm::sent_again(ctx.arg(0), Harm::Retransmit);
    0
}

/// Arguments: sk, req.
#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: RawTracePointContext) -> i32 {
    harm::sent_again(ctx.arg(1), Harm::SynackRetransmit);
    0
}

/// Arguments: sk, skb; from 6.10 also the reason. Either may be null.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    harm::reset_sent(ctx.arg(0), ctx.arg(1));
    0
}

/// Arguments: sk.
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
fn tcp_receive_reset(ctx: RawTracePointContext) -> i32 {
    harm::reset_received(ctx.arg(0));
    0
}

/// Arguments: sk, old state, new state.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    refusal::state_changed(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// See [`inet_sock_set_state`].
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn inet_sock_set_state_raw(ctx: RawTracePointContext) -> i32 {
    refusal::state_changed(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Arguments: sk, snum; then the result.
#[fexit(function = "inet_csk_get_port")]
fn inet_csk_get_port_fexit(ctx: FExitContext) -> i32 {
    refusal::port_refused(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Arguments: sk, snum, hash2_nulladdr; then the result.
#[fexit(function = "udp_lib_get_port")]
fn udp_lib_get_port_fexit(ctx: FExitContext) -> i32 {
    refusal::port_refused(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

macro_rules! get_port {
    ($($entry:ident, $return:ident;)*) => {
        $(
            /// Arguments: sk, snum.
            #[kprobe]
            fn $entry(ctx: ProbeContext) -> u32 {
                refusal::probe_entered(&ctx);
                0
            }

            /// See the entry.
            #[kretprobe]
            fn $return(ctx: RetProbeContext) -> u32 {
                refusal::probe_returned(&ctx);
                0
            }
        )*
    };
}

get_port! {
    inet_csk_get_port_kprobe, inet_csk_get_port_kretprobe;
    udp_lib_get_port_kprobe, udp_lib_get_port_kretprobe;
}

macro_rules! sys_exit {
    ($($name:ident, $call:ident, $tcp:literal;)*) => {
        $(
            /// The end of a system call, for sockets of one protocol.
            #[tracepoint]
            fn $name(ctx: TracePointContext) -> u32 {
                refusal::returned(&ctx, Call::$call, $tcp);
                0
            }
        )*
    };
}

sys_exit! {
    tcp_bind_exit, Bind, true;
    tcp_listen_exit, Listen, true;
    udp_bind_exit, Bind, false;
    udp_connect_exit, Connect, false;
    udp_sendto_exit, Sendto, false;
    udp_sendmsg_exit, Sendmsg, false;
}

/// Attached nowhere: userspace runs it.
#[raw_tracepoint(tracepoint = "prime")]
fn prime(ctx: RawTracePointContext) -> i32 {
    prime::step(&ctx);
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
