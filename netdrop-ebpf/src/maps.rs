//! The maps shared with userspace.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use netdrop_common::{
    cell,
    harm::HARM_CONNECTIONS,
    key::{DropCount, DropKey, MAX_KEYS},
    refusal::{MAX_REFUSAL_KEYS, RefusalCount, RefusalKey},
    witness::{Remembered, Step, WITNESS_KEYS, WitnessKey},
};

use crate::{
    hooks::{
        announce::Announcement,
        calls::Call,
        harm::{Answered, Blames, Ends, Work},
        queues::{QueueDrop, QueueReason},
        tables,
        tcp_drop::Receiving,
        verdict::Noted,
    },
    offsets::PerCpu,
    scratch::{LEVELS, Scratch},
};

/// Ring of records, `DropEvent` or `Stacked`; userspace sets the size before loading.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Exact counts of matched drops.
#[map]
pub(crate) static DROPS: PerCpuHashMap<DropKey, DropCount> = PerCpuHashMap::with_max_entries(MAX_KEYS, 0);

/// Exact counts of matched refusals.
#[map]
pub(crate) static REFUSALS: PerCpuHashMap<RefusalKey, RefusalCount> =
    PerCpuHashMap::with_max_entries(MAX_REFUSAL_KEYS, 0);

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

/// Counters as they were last seen.
#[map]
pub(crate) static WITNESSED: HashMap<WitnessKey, Remembered> = HashMap::with_max_entries(WITNESS_KEYS, 0);

/// 1 once the counters of every namespace that was there before are in [`WITNESSED`]: from then on one that is not
/// there is new, and its counters began at 0.
#[map]
pub(crate) static PRIMED: Array<u32> = Array::with_max_entries(1, 0);

/// The answer of the last step over the list of namespaces.
#[map]
pub(crate) static STEP: Array<Step> = Array::with_max_entries(1, 0);

/// This CPU's part of per-CPU memory.
#[map]
pub(crate) static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

/// Calls of hooked functions that have not returned yet, by stack pointer. Those whose return is never seen give way.
#[map]
pub(crate) static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(1024, 0);

/// What hooks found out of an skb that is about to be freed, by its address.
#[map]
pub(crate) static VERDICTS: LruHashMap<u64, Noted> = LruHashMap::with_max_entries(1024, 0);

/// The segment that `tcp_data_queue()` has at hand on this CPU.
#[map]
pub(crate) static RECEIVING: PerCpuArray<Receiving> = PerCpuArray::with_max_entries(1, 0);

/// Tables whose rules are about to have an skb dropped, by its address.
#[map]
pub(crate) static TABLES: LruHashMap<u64, tables::Noted> = LruHashMap::with_max_entries(1024, 0);

/// The chain that nft has at hand on this CPU.
#[map]
pub(crate) static CHAIN_AT_WORK: PerCpuArray<tables::AtWork> = PerCpuArray::with_max_entries(1, 0);

/// The last drop by an enqueue function on this CPU.
#[map]
pub(crate) static QUEUE_DROPS: PerCpuArray<QueueDrop> = PerCpuArray::with_max_entries(1, 0);

/// The last `qdisc:qdisc_drop` on this CPU.
#[map]
pub(crate) static QUEUE_REASONS: PerCpuArray<QueueReason> = PerCpuArray::with_max_entries(1, 0);

/// The last drops of TCP connections, for `--harm`; made smaller where that is not asked for.
#[map]
pub(crate) static HARMED: LruHashMap<Ends, Blames> = LruHashMap::with_max_entries(HARM_CONNECTIONS, 0);

/// Working memory of the hooks of `--harm`.
#[map]
pub(crate) static HARM_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// The last skb on this CPU that was answered with a reset.
#[map]
pub(crate) static ANSWERED: PerCpuArray<Answered> = PerCpuArray::with_max_entries(1, 0);
