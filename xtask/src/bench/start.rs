//! How soon netdrop shows a drop, and what it costs while there are none.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    Bench, generator,
    report::{Part, Table},
    running::{Running, spawn},
    stats::Sample,
    tool::{NETDROP_READY, Programs, Summary, netdrop},
};
use crate::command::{self, Owned};

/// Starts that are timed.
const STARTS: usize = 10;

/// Between two drops while the first event is awaited.
const EVERY: Duration = Duration::from_millis(1);

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Silence after which a reader sleeps until it is woken: what follows is a lone drop.
const SILENCE: Duration = Duration::from_millis(300);

/// How long netdrop is watched doing nothing.
const IDLE: Duration = Duration::from_secs(5);

/// Times starts, then watches an idle netdrop.
pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Part> {
    let netns = bench.site.path();
    let trace = || netdrop(&programs.netdrop, &["--json", "--netns", &netns.to_string_lossy()]);
    command::announce("start", &format!("{STARTS} starts, each until the first event"));
    let (mut first, mut lone) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = first_events(bench, trace())?;
        first.push(start.0);
        lone.push(start.1);
    }
    command::announce("start", &format!("idle for {IDLE:?}"));
    let running = Running::start(trace(), NETDROP_READY)?;
    let before = running.cpu()?;
    bench.interrupt.wait(IDLE);
    let idle = running.cpu()?.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    let memory = running.memory()?;
    generator::burst(&bench.socket, 1, &bench.interrupt)?;
    if bench.interrupt.is_set() {
        bail!("interrupted");
    }
    let finished = running.stop()?;
    // An idle netdrop that does not trace would cost nothing, too.
    if Summary::read(&finished)?.number("shown")? != 1 {
        bail!("the idle netdrop did not see the drop that ended its rest");
    }

    let mut table = Table::new(&["", "MEDIAN", "MIN..MAX"]);
    let mut time = |name: &str, figures: Vec<f64>| {
        let Some(sample) = Sample::new(figures) else { return json!(null) };
        let (min, max) = sample.range();
        table.row(vec![name.to_owned(), ms(sample.median()), format!("{min:.1}..{max:.1}")]);
        json!({ "median_ms": sample.median(), "range_ms": [min, max] })
    };
    let first = time("from start to the first event", first);
    let lone = time("from a lone drop to its line", lone);
    table.row(vec!["CPU while nothing is dropped".to_owned(), format!("{:.3} %", idle * 100.0)]);
    table.row(vec!["memory meanwhile".to_owned(), format!("{} MiB", memory >> 20)]);
    let peak = finished.usage.peak_memory;
    table.row(vec!["most memory until then".to_owned(), format!("{} MiB", peak >> 20)]);
    Ok(Part {
        name: "start",
        about: format!("netdrop trace --json, {STARTS} starts and {IDLE:?} without a drop"),
        table,
        bars: Vec::new(),
        json: json!({
            "first_event": first, "lone_drop": lone, "idle_cpu": idle, "memory_bytes": memory,
            "peak_memory_bytes": peak,
        }),
        notes: Vec::new(),
    })
}

fn ms(milliseconds: f64) -> String {
    format!("{milliseconds:.1} ms")
}

/// Starts a tracer among drops; returns milliseconds from its start to the first event, and, once
/// there was silence, from a lone drop to its line.
fn first_events(bench: &Bench, mut command: Command) -> Result<(f64, f64)> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let started = Instant::now();
    let mut tracer = Owned(spawn(&mut command)?);
    let lines = lines(tracer.0.stdout.take().context("a piped stdout is missing")?);
    let first = loop {
        generator::burst(&bench.socket, 1, &bench.interrupt)?;
        match lines.recv_timeout(EVERY) {
            Ok(at) => break at.duration_since(started),
            Err(RecvTimeoutError::Timeout) if started.elapsed() < PATIENCE => {}
            Err(_) => bail!("`{}` showed no event within {PATIENCE:?}", command::shown(&command)),
        }
        if bench.interrupt.is_set() {
            bail!("interrupted");
        }
    };
    while lines.recv_timeout(SILENCE).is_ok() {}
    let dropped = Instant::now();
    generator::burst(&bench.socket, 1, &bench.interrupt)?;
    let line = lines.recv_timeout(PATIENCE).context("a lone drop was not shown")?;
    Ok((millis(first), millis(line.duration_since(dropped))))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// When each line was read.
fn lines(from: impl Read + Send + 'static) -> Receiver<Instant> {
    let (line, lines) = mpsc::channel();
    thread::spawn(move || {
        for text in BufReader::new(from).lines() {
            if text.is_err() || line.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    lines
}
