//! The kernel side's debug channel (aya-log): off unless asked for, and then free of charge.

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::tracer::LoadError;
use crate::say::say;

/// Level of the kernel side's debug messages, as `aya_log` numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// None: the verifier removes the code.
    #[default]
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And notes.
    Info = 3,
    /// And details.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// Writes messages to standard error.
pub(super) struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(format_args!("ebpf {}: {}", record.level().as_str().to_lowercase(), record.args()));
    }

    fn flush(&self) {}
}

/// Opens the channel. It must outlive the loading of programs, which refer to its map.
pub(super) fn open(ebpf: &mut Ebpf) -> Result<EbpfLogger<Stderr>, LoadError> {
    EbpfLogger::init_with_logger(ebpf, Stderr).map_err(|error| LoadError::Log { source: Box::new(error) })
}
