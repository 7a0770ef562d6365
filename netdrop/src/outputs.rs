//! All outputs of a live run: each event goes to every one of them.

use std::future;

use bytes::BytesMut;

use crate::{
    event::Event,
    harm::Consequence,
    outlet::{Outlet, Target, Written},
    output::Sink,
    refusal::Refusal,
    signals::Signals,
    summary::Summary,
    trace::TraceError,
};

/// A format and where it goes.
struct Output<'s> {
    sink: &'s mut dyn Sink,
    outlet: Outlet,
}

/// The outputs that still work, and the error of the one that failed.
pub struct Outputs<'s> {
    working: Vec<Output<'s>>,
    failure: Option<TraceError>,
}

impl<'s> Outputs<'s> {
    /// Opens the targets. Needs a running tokio reactor.
    ///
    /// # Errors
    ///
    /// When a file cannot be emptied.
    pub fn open(outputs: Vec<(&'s mut dyn Sink, Target)>) -> Result<Self, TraceError> {
        let opened = outputs.into_iter().map(|(sink, target)| {
            let name = target.to_string();
            let outlet =
                Outlet::open(target).map_err(|source| TraceError::Output { target: name, source })?;
            Ok(Output { sink, outlet })
        });
        Ok(Self { working: opened.collect::<Result<_, TraceError>>()?, failure: None })
    }

    fn each(&mut self, mut write: impl FnMut(&mut dyn Sink, &mut BytesMut)) {
        for Output { sink, outlet } in &mut self.working {
            write(*sink, &mut outlet.buffer);
        }
    }

    /// What comes before the first event.
    pub fn begin(&mut self) {
        self.each(|sink, out| sink.begin(out));
    }

    /// One drop.
    pub fn event(&mut self, event: &Event) {
        self.each(|sink, out| sink.event(out, event));
    }

    /// What a drop cost.
    pub fn harm(&mut self, harm: &Consequence) {
        self.each(|sink, out| sink.harm(out, harm));
    }

    /// One refused call.
    pub fn refusal(&mut self, refusal: &Refusal) {
        self.each(|sink, out| sink.refusal(out, refusal));
    }

    /// Events were lost; `false` when no output says so.
    pub fn loss(&mut self, lost: u64) -> bool {
        let mut said = false;
        self.each(|sink, out| said |= sink.loss(out, lost));
        said
    }

    /// The end of the run.
    pub fn summary(&mut self, summary: &Summary) {
        self.each(|sink, out| sink.summary(out, summary));
    }

    /// Writes out what has come together. An output that fails is given up; the others go on.
    pub async fn flush(&mut self, signals: &mut Signals) -> Written {
        let mut end = Written::All;
        let mut index = 0;
        while let Some(output) = self.working.get_mut(index) {
            match output.outlet.flush(signals).await {
                Ok(Written::All) => index += 1,
                Ok(early) => return early,
                Err(source) => {
                    let target = output.outlet.name().to_owned();
                    self.failure.get_or_insert(TraceError::Output { target, source });
                    self.working.remove(index);
                    end = Written::Failed;
                }
            }
        }
        end
    }

    /// Waits until nobody reads standard output any more; for ever where it is no pipe.
    pub async fn closed(&self) {
        match self.working.iter().find(|output| output.outlet.is_watched()) {
            Some(output) => output.outlet.closed().await,
            None => future::pending().await,
        }
    }

    /// Whether all went well.
    ///
    /// # Errors
    ///
    /// The first failure of an output.
    pub fn result(self) -> Result<(), TraceError> {
        self.failure.map_or(Ok(()), Err)
    }
}
