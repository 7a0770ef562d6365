//! The maps shared with userspace.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap, RingBuf},
};
use netdrop_common::{
    cell,
    key::{DropCount, DropKey, MAX_KEYS},
};

use crate::{
    hooks::announce::Announcement,
    scratch::{LEVELS, Scratch},
};

/// Ring of records, `DropEvent` or `Stacked`; userspace sets the size before loading.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Exact counts of matched drops.
#[map]
pub(crate) static DROPS: PerCpuHashMap<DropKey, DropCount> = PerCpuHashMap::with_max_entries(MAX_KEYS, 0);

/// Counts beside the keys, see `netdrop_common::cell`.
#[map]
pub(crate) static CELLS: PerCpuArray<u64> = PerCpuArray::with_max_entries(cell::COUNT, 0);

/// When this CPU last woke the reader, CLOCK_MONOTONIC nanoseconds.
#[map]
pub(crate) static LAST_WAKE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Until when this CPU's stacks are paid for, CLOCK_MONOTONIC nanoseconds.
#[map]
pub(crate) static STACKS_PAID: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Runs in progress on this CPU.
#[map]
pub(crate) static DEPTH: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Working memory of each of them.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(LEVELS, 0);

/// The last skb on this CPU whose sender was told.
#[map]
pub(crate) static ANNOUNCED: PerCpuArray<Announcement> = PerCpuArray::with_max_entries(1, 0);
