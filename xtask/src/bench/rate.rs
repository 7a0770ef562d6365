//! Whether events are lost at a steady rate of drops.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    Bench, generator,
    report::{Bar, Part, Table},
    running::Running,
    tool::{NETDROP_READY, Programs, Summary, netdrop},
};
use crate::command;

/// The least share of the wanted rate that proves anything.
const ACHIEVED: f64 = 0.99;

/// What is sent.
pub(super) struct Plan {
    /// Drops a second.
    pub(super) rate: u64,
    /// For how long.
    pub(super) lasting: Duration,
}

/// Drops at a steady rate under `netdrop trace --json` into a file.
pub(super) fn run(bench: &Bench, programs: &Programs, plan: &Plan) -> Result<Part> {
    let wanted = plan.rate as f64;
    command::announce("rate", &format!("{} drops/s for {:?}", plan.rate, plan.lasting));
    let netns = bench.site.path();
    let running = Running::start(
        netdrop(&programs.netdrop, &["--json", "--netns", &netns.to_string_lossy()]),
        NETDROP_READY,
    )?;
    let before = bench.site.dropped()?;
    let sent = generator::steady(&bench.socket, plan.rate, plan.lasting, &bench.interrupt)?;
    let dropped = bench.site.dropped()? - before;
    if bench.interrupt.is_set() {
        bail!("interrupted");
    }
    let finished = running.stop()?;
    let summary = Summary::read(&finished)?;
    let mut lines = 0_u64;
    finished.stdout.for_each_line(|_| lines += 1)?;

    let achieved = sent.count as f64 / sent.elapsed.as_secs_f64();
    let [seen, shown, lost, missed] = ["seen", "shown", "lost", "missed"].map(|name| summary.number(name));
    let (seen, shown, lost, missed) = (seen?, shown?, lost?, missed?);
    let cpu = finished.usage.cpu.as_secs_f64() / sent.elapsed.as_secs_f64();
    let mut table =
        Table::new(&["DROPS/s", "DROPPED", "SEEN", "SHOWN", "LINES", "LOST", "MISSED", "CPU", "PEAK MiB"]);
    table.row(vec![
        format!("{achieved:.0}"),
        dropped.to_string(),
        seen.to_string(),
        shown.to_string(),
        lines.to_string(),
        lost.to_string(),
        missed.to_string(),
        format!("{:.0} %", cpu * 100.0),
        (finished.usage.peak_memory >> 20).to_string(),
    ]);
    // The last line is the summary.
    let complete = lost == 0 && shown == dropped && lines == shown + 1;
    let reached = achieved >= wanted * ACHIEVED;
    let mut text =
        format!("every event shown at {} drops/s: {} missing", plan.rate, dropped - shown.min(dropped));
    if !reached {
        text.push_str(&format!(", but only {achieved:.0} drops/s were reached: the machine is busy"));
    }
    Ok(Part {
        name: "rate",
        about: format!("netdrop trace --json into a file, at {} drops/s for {:?}", plan.rate, plan.lasting),
        table,
        bars: vec![Bar { met: complete && reached, text }],
        json: json!({
            "wanted_per_second": plan.rate, "drops_per_second": achieved, "dropped": dropped, "seen": seen,
            "shown": shown, "lines": lines, "lost": lost, "missed": missed, "cpu": cpu,
            "peak_memory_bytes": finished.usage.peak_memory,
        }),
        notes: Vec::new(),
    })
}
