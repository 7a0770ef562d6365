//! `netdrop trace`.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{duration, filter::FilterArgs, privilege, runtime};
use crate::{
    bpf::{LogLevel, MIN_BUFFER_BYTES, Tracer},
    cause::Catalogue,
    kernel::Kernel,
    output::{Sink, json::Json, style::Page, text::Text},
    say::say,
    trace::{self, Plan, TraceError},
};

/// Arguments of `netdrop trace`.
#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// One JSON object per line.
    #[arg(long)]
    json: bool,

    /// Show benign drops too: normal housekeeping, otherwise counted but not shown.
    #[arg(long)]
    all: bool,

    /// Show no events, only the summary at the end: the cheapest way to count.
    #[arg(long)]
    summary_only: bool,

    /// End after this many shown events.
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "summary_only")]
    count: Option<u64>,

    /// End after this long: 500ms, 30s, 2m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Size of the event buffer in KiB; rounded up to a power of two of pages.
    #[arg(long, short = 'B', value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    buffer_size: u32,

    /// Debug messages of the kernel side, on standard error.
    #[arg(long, value_name = "LEVEL", default_value = "off", hide_possible_values = false)]
    ebpf_log: Level,

    // Last: its heading would hold for what follows.
    #[command(flatten)]
    filter: FilterArgs,
}

/// See [`LogLevel`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// The smallest buffer the command line takes is one page.
const _: () = assert!(MIN_BUFFER_BYTES == 4 * 1024);

pub(super) fn run(arguments: &TraceArgs) -> anyhow::Result<ExitCode> {
    let catalogue = Catalogue::builtin()?;
    let kernel = privilege::kernel()?;
    let plan = Plan {
        filter: arguments.filter.resolve(&kernel, &catalogue)?,
        events: !arguments.summary_only,
        all: arguments.all,
        count: arguments.count,
        duration: arguments.duration,
        buffer_bytes: arguments.buffer_size * 1024,
        log: arguments.ebpf_log.into(),
    };
    let mut json = Json;
    let mut text = Text::new(Page::stdout());
    let sink: &mut dyn Sink = if arguments.json { &mut json } else { &mut text };
    let ready = |tracer: &Tracer| say(ready_line(tracer, &kernel));
    runtime()?.block_on(trace::run(&plan, &kernel, &catalogue, sink, ready)).map_err(
        |error| match error {
            TraceError::Load(error) => privilege::refused(error),
            error => error.into(),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Said once everything is attached, on standard error as tcpdump does: scripts may wait for it.
pub(super) fn ready_line(tracer: &Tracer, kernel: &Kernel) -> String {
    format!("tracing {} on kernel {}, Ctrl-C ends it", trace::hooks(tracer), kernel.release)
}
