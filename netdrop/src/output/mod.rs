//! Sinks: an event or a sum in, bytes out. They know neither BPF nor where the bytes go.

pub mod catalogue;
mod evidence;
pub mod json;
pub mod markdown;
pub mod pcapng;
pub mod prose;
mod rule;
pub mod style;
pub mod table;
pub mod text;

use bytes::BytesMut;

use crate::{event::Event, harm::Consequence, refusal::Refusal, summary::Summary};

/// A format of a live run.
pub trait Sink {
    /// What comes before the first event.
    fn begin(&mut self, out: &mut BytesMut);

    /// One drop.
    fn event(&mut self, out: &mut BytesMut, event: &Event);

    /// What a drop cost, where that was asked for and the format has a place for it.
    fn harm(&mut self, _out: &mut BytesMut, _harm: &Consequence) {}

    /// One refused call.
    fn refusal(&mut self, out: &mut BytesMut, refusal: &Refusal);

    /// Events were lost since the last such line. `false` when the line does not belong among the results,
    /// and was not written.
    fn loss(&mut self, out: &mut BytesMut, lost: u64) -> bool;

    /// The end of the run.
    fn summary(&mut self, out: &mut BytesMut, summary: &Summary);
}

/// A format of which only the end of the run is shown.
#[derive(Debug)]
pub struct SummaryOnly<S>(pub S);

impl<S: Sink> Sink for SummaryOnly<S> {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn event(&mut self, _out: &mut BytesMut, _event: &Event) {}

    fn refusal(&mut self, _out: &mut BytesMut, _refusal: &Refusal) {}

    fn loss(&mut self, _out: &mut BytesMut, _lost: u64) -> bool {
        false
    }

    fn summary(&mut self, out: &mut BytesMut, summary: &Summary) {
        self.0.summary(out, summary);
    }
}
