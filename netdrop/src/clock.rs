//! Kernel time to wall-clock time.

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Converts `bpf_ktime_get_ns` (CLOCK_MONOTONIC) to the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall clock minus monotonic clock, nanoseconds.
    offset: i128,
}

impl Clock {
    /// Compares the two clocks now; again for each batch of records, because the wall clock can be set.
    #[must_use]
    pub fn now() -> Self {
        let monotonic = nanoseconds(clock_gettime(ClockId::Monotonic));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        Self { offset: wall - monotonic }
    }

    /// The wall-clock time of a monotonic one.
    #[must_use]
    pub fn wall(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.offset + i128::from(monotonic_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
