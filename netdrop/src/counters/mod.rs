//! Counters that the kernel keeps by itself, a file for each of their sources.

pub mod qdisc;
