//! Reading the exact counters.

use std::collections::HashMap;

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use netdrop_common::{
    cell,
    harm::{HARMS, Harm},
    key::{DropCount, DropKey},
    refusal::{RefusalCount, RefusalKey},
};

use super::pod::{Asked, Count, Key, Refusals};

/// Totals of all keys and cells, over all CPUs.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Matched drops by key.
    pub drops: HashMap<DropKey, DropCount>,
    /// Matched refusals by key.
    pub refusals: HashMap<RefusalKey, RefusalCount>,
    /// The rest.
    pub cells: Cells,
    /// Runs the kernel skipped; 0 where it does not count them.
    pub missed: u64,
}

/// See `netdrop_common::cell`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cells {
    /// Excluded by a filter.
    pub filtered: u64,
    /// Not to be judged by a filter.
    pub undecidable: u64,
    /// Matched, but the key map was full.
    pub overflow: u64,
    /// Matched, but the ring had no room for the event.
    pub lost: u64,
    /// Refusals that a filter excluded.
    pub refusals_filtered: u64,
    /// Refusals that a filter could not judge.
    pub refusals_undecidable: u64,
    /// Refusals that matched, but the key map was full.
    pub refusals_overflow: u64,
    /// Refusals that matched, but the ring had no room for the event.
    pub refusals_lost: u64,
}

/// The two counter maps.
pub(super) struct CounterMaps {
    drops: PerCpuHashMap<MapData, Key, Count>,
    refusals: PerCpuHashMap<MapData, Asked, Refusals>,
    cells: PerCpuArray<MapData, u64>,
}

impl CounterMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            drops: super::tracer::take_map(ebpf, "DROPS")?,
            refusals: super::tracer::take_map(ebpf, "REFUSALS")?,
            cells: super::tracer::take_map(ebpf, "CELLS")?,
        })
    }

    /// Sums every counter over all CPUs. While hooks run, this is a moment's view; after detaching it is exact. What
    /// the kernel skipped is not among them.
    pub(super) fn read(&self) -> Result<Counters, MapError> {
        let mut drops = HashMap::new();
        for entry in self.drops.iter() {
            let (Key(key), values) = entry?;
            let total = values.iter().fold(DropCount::default(), |sum, Count(cpu)| DropCount {
                count: sum.count + cpu.count,
                more_segments: sum.more_segments + cpu.more_segments,
                lost: sum.lost + cpu.lost,
            });
            // A key that lost its insertion race still stands with zeros until its first count.
            if total.count != 0 {
                drops.insert(key, total);
            }
        }
        let mut refusals = HashMap::new();
        for entry in self.refusals.iter() {
            let (Asked(key), values) = entry?;
            let total = values.iter().fold(RefusalCount::default(), |sum, Refusals(cpu)| RefusalCount {
                count: sum.count + cpu.count,
                lost: sum.lost + cpu.lost,
            });
            if total.count != 0 {
                refusals.insert(key, total);
            }
        }
        let cell = |index| Ok::<u64, MapError>(self.cells.get(&index, 0)?.iter().sum());
        let cells = Cells {
            filtered: cell(cell::FILTERED)?,
            undecidable: cell(cell::UNDECIDABLE)?,
            overflow: cell(cell::OVERFLOW)?,
            lost: cell(cell::LOST)?,
            refusals_filtered: cell(cell::REFUSALS_FILTERED)?,
            refusals_undecidable: cell(cell::REFUSALS_UNDECIDABLE)?,
            refusals_overflow: cell(cell::REFUSALS_OVERFLOW)?,
            refusals_lost: cell(cell::REFUSALS_LOST)?,
        };
        Ok(Counters { drops, refusals, cells, missed: 0 })
    }

    /// Retransmits and resets by number of [`Harm`], seen and joined to a drop, and how many of those were not told.
    pub(super) fn harm(&self) -> Result<([(u64, u64); HARMS as usize], u64), MapError> {
        let cell = |index| Ok::<u64, MapError>(self.cells.get(&index, 0)?.iter().sum());
        let mut counts = [(0, 0); HARMS as usize];
        for what in Harm::ALL {
            counts[what as usize] = (cell(what.seen())?, cell(what.joined())?);
        }
        Ok((counts, cell(cell::HARM_LOST)?))
    }

    /// Resolved clashes alone.
    pub(super) fn resolved(&self) -> Result<u64, MapError> {
        Ok(self.cells.get(&cell::RESOLVED, 0)?.iter().sum())
    }

    /// Lost events alone: what a `loss` line needs while the run goes on.
    pub(super) fn lost(&self) -> Result<u64, MapError> {
        Ok(self.cells.get(&cell::LOST, 0)?.iter().sum())
    }
}
