//! Events that found the ring full, as the run goes on.

use tokio::time::Instant;

use super::{LOSS_INTERVAL, Pipeline, TraceError};
use crate::{bpf::Tracer, outputs::Outputs, say::say};

/// Reports lost events soon after they were lost, at a bounded rate, and never on an idle machine.
#[derive(Default)]
pub(super) struct Losses {
    reported: u64,
    pub(super) due: Option<Instant>,
}

impl Losses {
    /// Records came: look for losses soon.
    pub(super) fn schedule(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + LOSS_INTERVAL);
    }

    pub(super) fn report(
        &mut self,
        tracer: &Tracer,
        pipeline: &mut Pipeline<'_>,
        outputs: &mut Outputs<'_>,
    ) -> Result<(), TraceError> {
        self.due = None;
        let lost = pipeline.lost(tracer)?;
        let new = lost.saturating_sub(self.reported);
        if new > 0 {
            self.reported = lost;
            if !outputs.loss(new) {
                say(format_args!("lost {new} events (counted, not shown): the buffer was full"));
            }
        }
        Ok(())
    }
}
