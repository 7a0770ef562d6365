//! Per-CPU cells beside the keyed counters, by index.

/// Drops that a filter excluded.
pub const FILTERED: u32 = 0;
/// Drops that a filter could not judge: unreadable headers, a later fragment, an unknown netns or interface.
pub const UNDECIDABLE: u32 = 1;
/// Matched drops that found the key map full; part of `seen`, under no cause.
pub const OVERFLOW: u32 = 2;
/// Matched drops, under a key or not, whose event found the ring full.
pub const LOST: u32 = 3;
/// Clashes in conntrack that the kernel resolved: no drops.
pub const RESOLVED: u32 = 4;
/// How many cells there are.
pub const COUNT: u32 = 5;
