//! netdrop names every packet the Linux kernel drops: which packet, whose container, which kernel function,
//! why, and what to change.
//!
//! An event's road, one room a step: the kernel side counts and emits ([`bpf`]), [`decode`] checks the
//! record, [`attribute`] finds whose packet it is, [`judge`] and [`cause`] say why it was dropped, and a sink
//! in [`output`] writes it down. [`kernel`] finds out once, at start, what the running kernel offers.

pub mod attribute;
pub mod bpf;
pub mod capture;
pub mod cause;
pub mod cli;
pub mod clock;
pub mod counters;
pub mod decode;
pub mod doctor;
pub mod event;
pub mod evidence;
pub mod filter;
pub mod firewall;
pub mod harm;
pub mod inside;
pub mod judge;
pub mod kernel;
mod netlink;
pub mod outlet;
pub mod output;
pub mod outputs;
pub mod packet;
pub mod process;
pub mod refusal;
pub mod rules;
pub mod say;
pub mod signals;
pub mod summary;
pub mod top;
pub mod totals;
pub mod trace;
