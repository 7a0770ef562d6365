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
};

use super::pod::{Count, Key};

/// Totals of all keys and cells, over all CPUs.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Matched drops by key.
    pub drops: HashMap<DropKey, DropCount>,
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
}

/// The two counter maps.
pub(super) struct CounterMaps {
    drops: PerCpuHashMap<MapData, Key, Count>,
    cells: PerCpuArray<MapData, u64>,
}

impl CounterMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            drops: super::tracer::take_map(ebpf, "DROPS")?,
            cells: super::tracer::take_map(ebpf, "CELLS")?,
        })
    }

    /// Sums every counter over all CPUs. While hooks run, this is a moment's view; after detaching it is exact.
    pub(super) fn read(&self) -> Result<(HashMap<DropKey, DropCount>, Cells), MapError> {
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
        let cell = |index| Ok::<u64, MapError>(self.cells.get(&index, 0)?.iter().sum());
        let cells = Cells {
            filtered: cell(cell::FILTERED)?,
            undecidable: cell(cell::UNDECIDABLE)?,
            overflow: cell(cell::OVERFLOW)?,
            lost: cell(cell::LOST)?,
        };
        Ok((drops, cells))
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
