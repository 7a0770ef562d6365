//! Exact counting: every drop adds to one key or one cell, whatever happens to its event.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use netdrop_common::{
    cell,
    key::{DropCount, DropKey},
};

use crate::maps::{CELLS, DROPS};

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
pub(crate) const BPF_NOEXIST: u64 = 1;

/// Adds to a per-CPU value with one instruction: before 6.1 a drop in softirq may run this program
/// inside the same program on one CPU, between a load and a store.
#[inline(always)]
pub(crate) fn add(to: *mut u64, value: u64) {
    // SAFETY: `to` points into a map value that the verifier has checked, aligned to 8.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, value);
    }
}

/// Adds one to a cell.
#[inline(always)]
pub(crate) fn cell(index: u32) {
    cell_by(index, 1);
}

/// Adds to a cell.
#[inline(always)]
pub(crate) fn cell_by(index: u32, value: u64) {
    if let Some(cell) = CELLS.get_ptr_mut(index) {
        add(cell, value);
    }
}

/// Where a matched drop was counted, to note there that its event was lost.
#[derive(Clone, Copy)]
pub(crate) struct Counted(Option<*mut DropCount>);

impl Counted {
    /// Whether the key map was full.
    #[inline(always)]
    pub(crate) fn overflowed(self) -> bool {
        self.0.is_none()
    }

    /// Notes that the ring had no room for this drop's event.
    #[inline(always)]
    pub(crate) fn lost(self) {
        cell(cell::LOST);
        if let Some(count) = self.0 {
            // SAFETY: the pointer comes from a lookup in this run of the program.
            let lost = unsafe { &raw mut (*count).lost };
            add(lost, 1);
        }
    }
}

/// Counts a matched drop under its key.
#[inline(always)]
pub(crate) fn matched(key: &DropKey, segments: u16) -> Counted {
    let found = DROPS.get_ptr_mut(key).or_else(|| {
        // Another CPU may insert the same key first: whoever wins, the second look finds it.
        let empty = DropCount { count: 0, more_segments: 0, lost: 0 };
        let _exists_or_full = DROPS.insert(key, empty, BPF_NOEXIST);
        DROPS.get_ptr_mut(key)
    });
    if let Some(count) = found {
        // SAFETY: the lookup returned this pointer, so it points at a whole `DropCount`.
        let drops = unsafe { &raw mut (*count).count };
        add(drops, 1);
        if segments > 1 {
            // SAFETY: as above.
            let more = unsafe { &raw mut (*count).more_segments };
            add(more, u64::from(segments) - 1);
        }
    } else {
        cell(cell::OVERFLOW);
    }
    Counted(found)
}
