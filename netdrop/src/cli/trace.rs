//! `netdrop trace`.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{block_on, duration, failure::Usage, filter::FilterArgs, privilege, rung::RungArgs};
use crate::{
    bpf::{LogLevel, MIN_BUFFER_BYTES, Tracer},
    cause::Catalogue,
    kernel::{BLIND_IN_INIT, Kernel},
    outlet::Target,
    output::{Sink, SummaryOnly, json::Json, pcapng::Pcapng, style::Page, text::Text},
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

    /// Show what drops cost TCP: segments that are sent again and resets, of connections that lost a packet in the 10 s
    /// before.
    #[arg(long)]
    harm: bool,

    /// Show no events, only the summary at the end: the cheapest way to count.
    #[arg(long)]
    summary_only: bool,

    /// Write the dropped packets to FILE in pcapng, for Wireshark and tshark, and why each was dropped in its
    /// comment. `-` is standard output; the summary then goes to standard error.
    #[arg(long, short = 'w', value_name = "FILE", conflicts_with = "summary_only")]
    pcap: Option<PathBuf>,

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
    let pcap = Pcap::of(arguments)?;
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
        rungs: arguments.rung.rungs(),
        consume: arguments.rung.consume(),
        harm: arguments.harm,
        log: arguments.ebpf_log.into(),
    };
    let (mut json, mut text) = (Json, Text::new(Page::stdout()));
    let mut sums = SummaryOnly(Text::new(Page::stderr()));
    let uname = rustix::system::uname();
    let system = format!("{} {}", uname.sysname().to_string_lossy(), kernel.release);
    let mut capture = Pcapng::new(system, uname.machine().to_string_lossy().into_owned());

    let lines: &mut dyn Sink = if arguments.json { &mut json } else { &mut text };
    // A capture comes first, so that it is written also while the reader of standard output keeps us waiting.
    let outputs: Vec<(&mut dyn Sink, Target)> = match &pcap {
        None => vec![(lines, Target::Stdout)],
        Some(Pcap::Stdout) => vec![(&mut capture, Target::Stdout), (&mut sums, Target::Stderr)],
        Some(Pcap::File(path)) => {
            let target = Target::File(open(path)?, path.clone());
            vec![(&mut capture, target), (lines, Target::Stdout)]
        }
    };
    let ready = |tracer: &Tracer| ready(tracer, &kernel, arguments.rung.doctor());
    let result = block_on(trace::run(&plan, &kernel, &catalogue, outputs, ready))?;
    let left_out = capture.left_out();
    if left_out > 0 {
        say(format_args!(
            "not in the capture: {left_out} of the drops shown, which have no packet bytes (data of local sockets, \
             or no readable network header)"
        ));
    }
    result.map_err(privilege::explained)?;
    Ok(ExitCode::SUCCESS)
}

/// Where `--pcap` writes.
enum Pcap {
    Stdout,
    File(PathBuf),
}

impl Pcap {
    fn of(arguments: &TraceArgs) -> Result<Option<Self>, Usage> {
        let Some(path) = &arguments.pcap else { return Ok(None) };
        if path != Path::new("-") {
            return Ok(Some(Self::File(path.clone())));
        }
        if arguments.json {
            return Err(Usage(
                "`--pcap -` and `--json` both want standard output: give --pcap the name of a file"
                    .to_owned(),
            ));
        }
        if io::stdout().is_terminal() {
            return Err(Usage(
                "`--pcap -` writes binary data, and standard output is a terminal: pipe it, as in \
                 `netdrop trace --pcap - | tshark -r -`, or give --pcap the name of a file"
                    .to_owned(),
            ));
        }
        Ok(Some(Self::Stdout))
    }
}

/// Opens a file for a capture. It is emptied later, when the run is sure to start.
fn open(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.open(path).with_context(|| format!("cannot write to {}", path.display()))
}

/// Said once everything is attached, on standard error as tcpdump does: what this kernel withholds, and
/// last the line that scripts may wait for.
pub(super) fn ready(tracer: &Tracer, kernel: &Kernel, doctor: &str) {
    if kernel.blind_in_init {
        say(BLIND_IN_INIT);
    }
    if let Err(error) = &kernel.symbols {
        say(error);
    }
    for report in tracer.reports().iter().filter(|report| report.essential && !report.is_observed()) {
        say(format_args!(
            "{} is not observed: {}; `{doctor}` says why",
            report.name,
            report.costs.unwrap_or("nothing is counted")
        ));
    }
    say(format_args!("tracing {} on kernel {}, Ctrl-C ends it", trace::hooks(tracer), kernel.release));
}
