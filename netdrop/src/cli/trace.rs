//! `netdrop trace`.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{block_on, duration, filter::FilterArgs, privilege, rung::RungArgs};
use crate::{
    bpf::{LogLevel, MIN_BUFFER_BYTES, Tracer},
    cause::Catalogue,
    kernel::{BLIND_IN_INIT, Kernel},
    output::{Sink, json::Json, style::Page, text::Text},
    say::say,
    trace::{self, Plan},
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

    /// Show the kernel's call stack of each drop, from the function that dropped outwards.
    #[arg(long, conflicts_with = "summary_only")]
    stack: bool,

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

    /// Keys of the counter map: a full one is provoked with few.
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_keys: Option<u32>,

    /// Debug messages of the kernel side, on standard error.
    #[arg(long, value_name = "LEVEL", default_value = "off", hide_possible_values = false)]
    ebpf_log: Level,

    #[command(flatten)]
    rung: RungArgs,

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
    let filter = arguments.filter.resolve(&kernel, &catalogue)?;
    let plan = Plan {
        events: !arguments.summary_only,
        stack: arguments.stack,
        // Who names a cause wants to see it, benign or not.
        all: arguments.all || !filter.causes.is_empty(),
        filter,
        count: arguments.count,
        duration: arguments.duration,
        buffer_bytes: arguments.buffer_size * 1024,
        max_keys: arguments.max_keys,
        rung: arguments.rung.rung(),
        log: arguments.ebpf_log.into(),
    };
    let mut json = Json;
    let mut text = Text::new(Page::stdout());
    let sink: &mut dyn Sink = if arguments.json { &mut json } else { &mut text };
    let ready = |tracer: &Tracer| ready(tracer, &kernel);
    block_on(trace::run(&plan, &kernel, &catalogue, sink, ready))?.map_err(privilege::explained)?;
    Ok(ExitCode::SUCCESS)
}

/// Said once everything is attached, on standard error as tcpdump does: what this kernel withholds, and
/// last the line that scripts may wait for.
pub(super) fn ready(tracer: &Tracer, kernel: &Kernel) {
    if kernel.blind_in_init {
        say(BLIND_IN_INIT);
    }
    if let Err(error) = &kernel.symbols {
        say(error);
    }
    say(format_args!("tracing {} on kernel {}, Ctrl-C ends it", trace::hooks(tracer), kernel.release));
}
