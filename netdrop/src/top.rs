//! Live counts by cause and container, from the kernel side's counters alone: no event is streamed, so this
//! is the cheapest way to watch.

use std::{collections::HashMap, time::Duration};

use bytes::BytesMut;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    attribute::{Attributor, HostPaths, netns::NetnsId},
    bpf::{LogLevel, MIN_BUFFER_BYTES, Rung, Settings, Tracer},
    cause::{Catalogue, Class},
    filter::Filter,
    judge::{Judge, gather_table},
    kernel::Kernel,
    outlet::{Outlet, Written},
    output::{self, style::Page},
    refusal::RefusalJudge,
    signals::Signals,
    summary::Summary,
    totals::Totals,
    trace::{TEND_INTERVAL, TraceError, hooks},
};

/// How tables are written.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// One after the other.
    Tables(Page),
    /// Each in place of the one before.
    Screen(Page),
    /// One JSON object each.
    Json,
}

/// What to count and how often to say it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which drops.
    pub filter: Filter,
    /// Show benign drops too.
    pub all: bool,
    /// Time between two tables.
    pub interval: Duration,
    /// End after this many.
    pub iterations: Option<u64>,
    /// The rungs to use, for probe points that have one of them; empty for the best that loads.
    pub rungs: Vec<Rung>,
    /// Whether hooks may be used that run for each packet.
    pub consume: bool,
    /// How.
    pub format: Format,
}

/// One table: sums since the start, and what each row added since the table before.
pub struct Table {
    /// Sums since the start.
    pub summary: Summary,
    /// Added by each row of the summary.
    pub added: Vec<u64>,
    /// When it was read.
    pub time: Timestamp,
    /// Time since the table before.
    pub span: Duration,
}

/// What a row is recognised by from one table to the next.
type RowKey = (Option<String>, Class, Option<NetnsId>);

/// Counts until the plan or a signal ends it.
///
/// # Errors
///
/// When the kernel side cannot be loaded or the output cannot be written.
pub async fn run(
    plan: &Plan,
    kernel: &Kernel,
    catalogue: &Catalogue,
    ready: impl FnOnce(&Tracer),
) -> Result<(), TraceError> {
    let settings = Settings {
        filter: plan.filter.clone(),
        gather: gather_table(catalogue, kernel),
        events: false,
        stack: false,
        buffer_bytes: MIN_BUFFER_BYTES,
        max_keys: None,
        rungs: plan.rungs.clone(),
        consume: plan.consume,
        refusals: plan.filter.takes_refusals(|cause| catalogue.is_of_refusals(cause)),
        harm: false,
    };
    let mut judge = Judge::new(catalogue, kernel);
    let mut refusals = RefusalJudge::new(catalogue);
    let mut attributor = Attributor::new(HostPaths::default());
    let mut signals = Signals::new().map_err(TraceError::Signals)?;
    let mut outlet = Outlet::stdout();
    let mut tracer = Tracer::start(&settings, LogLevel::Off, kernel)?;
    let started = Instant::now();
    ready(&tracer);

    let mut ticks = interval_at(started + plan.interval, plan.interval);
    // A reader that was slow gets the next table at the next tick, not two at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before: HashMap<RowKey, u64> = HashMap::new();
    let mut last = started;
    let mut last_tend = started;
    let mut printed = 0;
    while plan.iterations.is_none_or(|most| printed < most) {
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = outlet.closed() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let last_one = plan.iterations == Some(printed + 1) || signals.caught() > 0;
        if last_one {
            // The last table is exact.
            tracer.detach()?;
        }
        if last_tend.elapsed() >= TEND_INTERVAL {
            tracer.tend();
            last_tend = Instant::now();
        }
        let now = Instant::now();
        let resolved_clashes = tracer.resolved_clashes(last_one);
        let totals = Totals::new(
            &tracer.counters()?,
            &mut judge,
            &mut refusals,
            &plan.filter.causes,
            None,
            now - started,
        );
        let summary = Summary::new(
            totals,
            |id| attributor.lookup(id),
            plan.all,
            kernel.release.clone(),
            hooks(&tracer),
            resolved_clashes,
        );
        let added = added(&summary, &mut before);
        let table = Table { summary, added, time: Timestamp::now(), span: now - last };
        write(&mut outlet.buffer, plan, &table);
        last = now;
        printed += 1;
        if outlet
            .flush(&mut signals)
            .await
            .map_err(|source| TraceError::Output { target: outlet.name().to_owned(), source })?
            != Written::All
            || signals.caught() > 0
        {
            break;
        }
    }
    Ok(())
}

/// What each row added since `before`, which becomes the summary's counts.
fn added(summary: &Summary, before: &mut HashMap<RowKey, u64>) -> Vec<u64> {
    summary
        .rows
        .iter()
        .map(|row| {
            let last = before.insert((row.cause.clone(), row.class, row.netns), row.count);
            row.count - last.unwrap_or(0).min(row.count)
        })
        .collect()
}

fn write(out: &mut BytesMut, plan: &Plan, table: &Table) {
    match plan.format {
        Format::Json => output::json::table(out, table),
        Format::Tables(page) => output::table::top(out, page, table),
        Format::Screen(page) => {
            /// Erase the screen, cursor to its first cell (ECMA-48 ED, CUP).
            const CLEAR: &[u8] = b"\x1b[2J\x1b[H";
            out.extend_from_slice(CLEAR);
            output::table::top(out, page, table);
        }
    }
}
