//! What a tool adds to each drop: the dropping CPU's time with it minus without, paired back to back.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    Bench,
    generator::{self, Sent},
    ratio::Ratio,
    report::{Part, Table},
    scene::Scene,
    stats::Sample,
    tool::{Programs, Rung, Seen, Tool},
};
use crate::command;

/// Datagrams of each burst that come before the clock starts: caches and the tool's first pages.
const WARM_UP: u64 = 5_000;

/// What is measured.
pub(super) struct Plan {
    /// Bursts with each tool, and as many without.
    pub(super) pairs: u32,
    /// Datagrams of a burst.
    pub(super) drops: u64,
}

/// One tool's pairs so far.
struct Row {
    tool: Tool,
    /// Nanoseconds added to a drop, by pair.
    added: Vec<f64>,
    /// Drops a second, by pair.
    rate: Vec<f64>,
    /// CPU time of the tool, and the most memory it had.
    cpu: Duration,
    peak_memory: u64,
    drops: u64,
    seen: Option<Seen>,
}

/// One burst.
struct Burst {
    /// Nanoseconds of the sender's CPU for each drop.
    each: f64,
    /// Drops a second.
    rate: f64,
}

/// Measures all tools, in turn: what disturbs the machine for a while disturbs them alike.
pub(super) fn run(bench: &Bench, programs: &Programs, plan: &Plan) -> Result<Part> {
    let mut notes = Vec::new();
    let mut rows = usable(bench, programs, &mut notes)?;
    let mut base = Vec::new();
    'pairs: for pair in 0..plan.pairs {
        command::announce("cost", &format!("pair {} of {}", pair + 1, plan.pairs));
        for (position, row) in rows.iter_mut().enumerate() {
            // What drifts, drifts against each order alike.
            let alone_first = (pair as usize + position).is_multiple_of(2);
            let measured = row.pair(bench, programs, plan.drops, alone_first);
            if bench.interrupt.is_set() {
                notes.push(format!("interrupted in pair {}: these are the figures until then", pair + 1));
                break 'pairs;
            }
            base.push(measured?);
        }
    }
    Ok(report(bench.site.scene(), &rows, &base, plan, notes))
}

/// The tools that run here; what keeps the others from it is noted.
fn usable(bench: &Bench, programs: &Programs, notes: &mut Vec<String>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &tool in Tool::of(bench.site.scene()) {
        match tool.start(programs) {
            Ok(Some(running)) => drop(running),
            Ok(None) => continue,
            // Without it there is nothing to measure.
            Err(error) if matches!(tool, Tool::Count(Rung::Best) | Tool::Events(Rung::Best)) => {
                return Err(error);
            }
            Err(error) => {
                notes.push(format!("left out: {}: {error:#}", tool.name()));
                continue;
            }
        }
        if bench.interrupt.is_set() {
            bail!("interrupted");
        }
        rows.push(Row::new(tool));
    }
    if programs.bpftrace.is_none() {
        notes
            .push("bpftrace is not installed, so nothing is compared: `apt-get install bpftrace`".to_owned());
    }
    Ok(rows)
}

/// A burst without any tool.
fn burst(bench: &Bench, drops: u64) -> Result<Burst> {
    generator::burst(&bench.socket, WARM_UP, &bench.interrupt)?;
    let before = bench.site.dropped()?;
    let sent = generator::burst(&bench.socket, drops, &bench.interrupt)?;
    let dropped = bench.site.dropped()? - before;
    // What was sent and not dropped would be another cost.
    if dropped != sent.count {
        bail!("{} datagrams were sent and {dropped} dropped by the rule", sent.count);
    }
    Ok(Burst::of(&sent))
}

impl Burst {
    fn of(sent: &Sent) -> Self {
        let drops = sent.count.max(1) as f64;
        Self { each: sent.cpu.as_nanos() as f64 / drops, rate: drops / sent.elapsed.as_secs_f64() }
    }
}

impl Row {
    fn new(tool: Tool) -> Self {
        Self {
            tool,
            added: Vec::new(),
            rate: Vec::new(),
            cpu: Duration::ZERO,
            peak_memory: 0,
            drops: 0,
            seen: None,
        }
    }

    /// A burst with the tool and one without; returns the nanoseconds of a drop without.
    fn pair(&mut self, bench: &Bench, programs: &Programs, drops: u64, alone_first: bool) -> Result<f64> {
        let alone = || burst(bench, drops).map(|burst| burst.each);
        let (without, with) = if alone_first {
            (alone()?, self.burst(bench, programs, drops)?)
        } else {
            let with = self.burst(bench, programs, drops)?;
            (alone()?, with)
        };
        self.added.push(with - without);
        Ok(without)
    }

    /// A burst with the tool; returns the nanoseconds of a drop.
    fn burst(&mut self, bench: &Bench, programs: &Programs, drops: u64) -> Result<f64> {
        let Some(running) = self.tool.start(programs)? else { bail!("{} has gone", self.tool.name()) };
        let before = bench.site.dropped()?;
        let burst = burst(bench, drops)?;
        let finished = running.stop()?;
        let dropped = bench.site.dropped()? - before;
        if let Some(seen) = self.tool.seen(&finished, &bench.site)? {
            let sum = self.seen.get_or_insert_default();
            sum.seen += seen.seen;
            sum.lost += seen.lost;
        }
        self.drops += dropped;
        self.cpu += finished.usage.cpu;
        self.peak_memory = self.peak_memory.max(finished.usage.peak_memory);
        self.rate.push(burst.rate);
        Ok(burst.each)
    }

    /// A count as a share of all drops.
    fn share(&self, count: u64) -> f64 {
        count as f64 / self.drops.max(1) as f64
    }
}

/// Table, bars and JSON.
fn report(scene: Scene, rows: &[Row], base: &[f64], plan: &Plan, notes: Vec<String>) -> Part {
    let mut table = Table::new(&[
        "TOOL",
        "ADDED ns",
        "QUARTILES",
        "MIN..MAX",
        "DROPS/s",
        "SEEN",
        "LOST",
        "CPU s/10^6",
        "PEAK MiB",
    ]);
    let mut json = Vec::new();
    for row in rows {
        let Some(added) = Sample::new(row.added.clone()) else { continue };
        let rate = Sample::new(row.rate.clone()).map_or(0.0, |rate| rate.median());
        let ((low, high), (min, max)) = (added.quartiles(), added.range());
        let cpu = row.cpu.as_secs_f64() / row.drops.max(1) as f64 * 1e6;
        let share = |count: fn(&Seen) -> u64| row.seen.map(|seen| row.share(count(&seen)));
        let (seen, lost) = (share(|seen| seen.seen), share(|seen| seen.lost));
        table.row(vec![
            row.tool.name().to_owned(),
            format!("{:+.0}", added.median()),
            format!("{low:+.0}..{high:+.0}"),
            format!("{min:+.0}..{max:+.0}"),
            format!("{rate:.0}"),
            percent(seen),
            percent(lost),
            format!("{cpu:.2}"),
            format!("{}", row.peak_memory >> 20),
        ]);
        json.push(json!({
            "tool": row.tool.name(), "added_ns": added.median(), "quartiles_ns": [low, high],
            "range_ns": [min, max], "pairs": row.added.len(), "drops_per_second": rate, "seen": seen, "lost": lost,
            "cpu_s_per_million": cpu, "peak_memory_bytes": row.peak_memory,
        }));
    }
    let alone = Sample::new(base.to_vec());
    let alone_text = alone.as_ref().map_or_else(String::new, |alone| {
        let (low, high) = alone.quartiles();
        format!("; a drop without any costs {:.0} (quartiles {low:.0}..{high:.0})", alone.median())
    });
    let pairs = rows.iter().map(|row| row.added.len()).min().unwrap_or(0);
    let added = |tool| rows.iter().find(|row| row.tool == tool).map(|row| row.added.as_slice());
    Part {
        name: "cost",
        about: format!(
            "nanoseconds of the dropping CPU that a tool adds to each drop by a rule of {}, medians of {pairs} pairs \
             of {} drops{alone_text}",
            scene.name(),
            plan.drops
        ),
        table,
        bars: Ratio::of(scene).iter().filter_map(|ratio| ratio.judge(added)).collect(),
        json: json!({
            "scene": scene.name(), "drops": plan.drops, "pairs": pairs, "alone_ns": alone.map(|alone| alone.median()), "tools": json,
        }),
        notes,
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
