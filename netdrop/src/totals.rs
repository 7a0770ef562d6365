//! Sums of a run from the exact counters: what the summary says, and that it adds up.

mod refusals;

use std::{collections::BTreeMap, time::Duration};

pub use refusals::{RefusalRow, RefusalTotals};

use crate::{attribute::netns::NetnsId, bpf::Counters, cause::Class, judge::Judge, refusal::RefusalJudge};

/// What userspace did with the events it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Printed.
    pub shown: u64,
    /// Benign, and not asked for.
    pub hidden: u64,
    /// Received, but no longer to be shown: after `--count`.
    pub counted_only: u64,
    /// Records that could not be read; they count as lost.
    pub unreadable: u64,
    /// The same of refusals.
    pub refusals: RefusalTally,
}

/// What userspace did with the events of refused calls; as [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalTally {
    /// Printed.
    pub shown: u64,
    /// Benign, and not asked for.
    pub hidden: u64,
    /// Received, but no longer to be shown.
    pub counted_only: u64,
}

/// One line of the summary: a cause, in one class, in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Cause id; nothing for drops that found the key map full.
    pub cause: Option<String>,
    /// Class.
    pub class: Class,
    /// Namespace; nothing when unknown.
    pub netns: Option<NetnsId>,
    /// skbs.
    pub count: u64,
    /// Packets in them.
    pub segments: u64,
    /// Whether these are refused calls: no drops, and not among the drops that were seen.
    pub refused: bool,
}

/// The sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// `seen + filtered + undecidable + missed`.
    pub total: u64,
    /// Drops that met the filters: `shown + hidden + lost + counted_only`.
    pub seen: u64,
    /// See [`Tally`].
    pub shown: u64,
    /// See [`Tally`].
    pub hidden: u64,
    /// Events that found the ring full, or could not be read.
    pub lost: u64,
    /// Counted without an event to show.
    pub counted_only: u64,
    /// Excluded by filters.
    pub filtered: u64,
    /// Not to be judged by the filters.
    pub undecidable: u64,
    /// Skipped by the kernel, `recursion_misses`.
    pub missed: u64,
    /// Drops counted without a key, because the key map was full; part of `seen`.
    pub overflow: u64,
    /// Refused calls, which are no drops.
    pub refusals: RefusalTotals,
    /// Length of the run.
    pub elapsed: Duration,
    /// By cause and namespace, most first.
    pub rows: Vec<Row>,
}

impl Totals {
    /// Sums up. `causes` holds the ids asked for with `--cause`, empty for all; `tally` is nothing for a
    /// run without events.
    pub fn new(
        counters: &Counters,
        judge: &mut Judge<'_>,
        refusals: &mut RefusalJudge<'_>,
        causes: &[String],
        tally: Option<Tally>,
        elapsed: Duration,
    ) -> Self {
        let mut totals = Self {
            filtered: counters.cells.filtered,
            undecidable: counters.cells.undecidable,
            missed: counters.missed,
            elapsed,
            ..Self::default()
        };
        let mut rows: BTreeMap<(String, &str, u32, u64), Row> = BTreeMap::new();
        let mut keyed_lost = 0;
        for (key, drop) in &counters.drops {
            let judged = judge.judge(key);
            keyed_lost += drop.lost;
            if !wanted(causes, &judged.cause) {
                totals.filtered += drop.count;
                continue;
            }
            totals.seen += drop.count;
            totals.lost += drop.lost;
            let row = rows
                .entry((judged.cause.clone(), judged.class.as_str(), key.netns_inode, key.netns_cookie))
                .or_insert_with(|| Row {
                    cause: Some(judged.cause.clone()),
                    class: judged.class,
                    netns: NetnsId::of(key),
                    count: 0,
                    segments: 0,
                    refused: false,
                });
            row.count += drop.count;
            row.segments += drop.count + drop.more_segments;
        }
        totals.rows = rows.into_values().collect();
        totals.add_overflow(counters, causes, keyed_lost);
        totals.refusals = RefusalTotals::new(counters, refusals, causes, tally.map(|tally| tally.refusals));
        totals.rows.extend(totals.refusals.rows_of_causes());
        totals.rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.cause.cmp(&b.cause)));
        match tally {
            Some(tally) => {
                totals.shown = tally.shown;
                totals.hidden = tally.hidden;
                totals.counted_only = tally.counted_only;
                totals.lost += tally.unreadable;
            }
            None => totals.counted_only = totals.seen,
        }
        totals.total = totals.seen + totals.filtered + totals.undecidable + totals.missed;
        totals
    }

    /// Drops without a key have no cause, so a filter on causes cannot judge them.
    fn add_overflow(&mut self, counters: &Counters, causes: &[String], keyed_lost: u64) {
        let overflow = counters.cells.overflow;
        if overflow == 0 {
            return;
        }
        if !causes.is_empty() {
            self.undecidable += overflow;
            return;
        }
        self.overflow = overflow;
        self.seen += overflow;
        self.lost += counters.cells.lost.saturating_sub(keyed_lost);
        self.rows.push(Row {
            cause: None,
            class: Class::Suspect,
            netns: None,
            count: overflow,
            segments: overflow,
            refused: false,
        });
    }

    /// Difference between drops seen and drops accounted for; 0 unless netdrop is wrong.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let accounted = self.shown + self.hidden + self.lost + self.counted_only;
        i128::from(self.seen) - i128::from(accounted)
    }
}

/// Whether a cause was asked for.
#[must_use]
pub fn wanted(causes: &[String], cause: &str) -> bool {
    causes.is_empty() || causes.iter().any(|wanted| wanted == cause)
}
