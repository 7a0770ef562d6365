//! The event ring: waiting for records and taking them out.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

/// How long the ring must have been quiet before the reader sleeps until woken. The kernel side leaves a
/// reader alone that it woke in the last 10 ms (`WAKE_INTERVAL_NS`): polling for twice as long sees
/// every record that woke nobody.
const RING_QUIET: Duration = Duration::from_millis(20);

/// Pause between two looks at a ring that is not quiet yet: long enough for a batch, too short to notice.
const POLL: Duration = Duration::from_millis(4);

/// The reading end of the event ring.
pub(super) struct EventRing {
    ring: AsyncFd<RingBuf<MapData>>,
    last_record: Option<Instant>,
}

impl EventRing {
    /// Registers the ring with the running tokio reactor.
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: `RingBuf` owns its descriptor and returns the same one for as long as it lives, and
        // `AsyncFd` owns the `RingBuf`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(std::io::Error::from)?;
        Ok(Self { ring, last_record: None })
    }

    /// Waits until there may be records.
    pub(super) async fn wait(&mut self) -> std::io::Result<()> {
        let polling = self.last_record.is_some_and(|last| last.elapsed() < RING_QUIET);
        // Readiness is cleared before the ring is drained: what comes later sets it again.
        if polling {
            tokio::select! {
                () = sleep(POLL) => {}
                ready = self.ring.readable() => ready?.clear_ready(),
            }
        } else {
            self.ring.readable().await?.clear_ready();
        }
        Ok(())
    }

    /// Hands up to `limit` records to `take` and says how many there were.
    pub(super) fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut records = 0;
        while records < limit {
            let Some(record) = self.ring.get_mut().next() else { break };
            take(&record);
            records += 1;
        }
        if records > 0 {
            self.last_record = Some(Instant::now());
        }
        records
    }
}
