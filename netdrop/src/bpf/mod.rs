//! The kernel side, loaded: the only room that knows aya.
//!
//! [`Tracer::start`] loads and attaches, [`Tracer::drain`] yields records, [`Tracer::detach`] stops the
//! hooks, and the counters are read last: detach, drain, count is the order in which nothing moves behind
//! the reader's back.

mod counters;
mod fdinfo;
mod globals;
mod harm;
mod hook;
mod log;
mod pod;
mod probe;
mod refusals;
mod ring;
mod tracer;
mod witness;

pub use counters::{Cells, Counters};
pub use fdinfo::missed_by_running_programs;
pub use globals::{MIN_BUFFER_BYTES, Settings};
pub use log::LogLevel;
pub use probe::{ProbeReport, Rung};
pub use tracer::{LoadError, Tracer, counter_memory};
