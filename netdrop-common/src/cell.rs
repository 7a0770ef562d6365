//! Per-CPU cells beside the keyed counters, by index.

use crate::harm::HARMS;

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
/// Retransmits and resets, a cell for each kind of [`crate::harm::Harm`].
pub const HARM_SEEN: u32 = 5;
/// Of them, those that followed a drop of the same connection.
pub const HARM_JOINED: u32 = HARM_SEEN + HARMS;
/// Of those, the ones whose record found the ring full.
pub const HARM_LOST: u32 = HARM_JOINED + HARMS;
/// Refusals that a filter excluded.
pub const REFUSALS_FILTERED: u32 = HARM_LOST + 1;
/// Refusals that a filter could not judge.
pub const REFUSALS_UNDECIDABLE: u32 = REFUSALS_FILTERED + 1;
/// Matched refusals that found the key map full.
pub const REFUSALS_OVERFLOW: u32 = REFUSALS_UNDECIDABLE + 1;
/// Matched refusals whose event found the ring full.
pub const REFUSALS_LOST: u32 = REFUSALS_OVERFLOW + 1;
/// How many cells there are.
pub const COUNT: u32 = REFUSALS_LOST + 1;
