//! Sums of refused calls, which are no drops and have totals of their own.

use super::{RefusalTally, Row, wanted};
use crate::{
    attribute::netns::NetnsId,
    bpf::Counters,
    cause::Class,
    packet::Protocol,
    refusal::{RefusalJudge, Refusing},
};

/// One kind of refused call in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRow {
    /// Cause id; nothing for those that found the key map full.
    pub cause: Option<String>,
    /// Class.
    pub class: Class,
    /// The call and what it answered.
    pub call: Refusing,
    /// Protocol; nothing when unknown.
    pub proto: Option<Protocol>,
    /// Namespace; nothing when unknown.
    pub netns: Option<NetnsId>,
    /// Calls.
    pub count: u64,
}

/// Refused calls of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalTotals {
    /// Those that met the filters: `shown + hidden + lost + counted_only`.
    pub count: u64,
    /// See [`super::Tally`].
    pub shown: u64,
    /// See [`super::Tally`].
    pub hidden: u64,
    /// Events that found the ring full.
    pub lost: u64,
    /// Counted without an event to show.
    pub counted_only: u64,
    /// Excluded by filters.
    pub filtered: u64,
    /// Not to be judged by the filters.
    pub undecidable: u64,
    /// By cause, call and namespace, most first.
    pub rows: Vec<RefusalRow>,
}

impl RefusalTotals {
    pub(super) fn new(
        counters: &Counters,
        judge: &mut RefusalJudge<'_>,
        causes: &[String],
        tally: Option<RefusalTally>,
    ) -> Self {
        let cells = &counters.cells;
        let mut totals = Self {
            filtered: cells.refusals_filtered,
            undecidable: cells.refusals_undecidable,
            ..Self::default()
        };
        let mut keyed_lost = 0;
        for (key, refused) in &counters.refusals {
            let judged = judge.judge(key);
            keyed_lost += refused.lost;
            if !wanted(causes, &judged.cause) {
                totals.filtered += refused.count;
                continue;
            }
            totals.count += refused.count;
            totals.lost += refused.lost;
            totals.rows.push(RefusalRow {
                cause: Some(judged.cause.clone()),
                class: judged.class,
                call: judged.call,
                proto: (key.protocol != 0).then_some(Protocol::Ip(key.protocol)),
                netns: NetnsId::of_refusal(key),
                count: refused.count,
            });
        }
        totals.add_overflow(cells.refusals_overflow, causes, cells.refusals_lost.saturating_sub(keyed_lost));
        totals.rows.sort_by(|a, b| {
            b.count.cmp(&a.count).then_with(|| (&a.cause, a.call.name).cmp(&(&b.cause, b.call.name)))
        });
        match tally {
            Some(tally) => {
                (totals.shown, totals.hidden, totals.counted_only) =
                    (tally.shown, tally.hidden, tally.counted_only);
            }
            None => totals.counted_only = totals.count,
        }
        totals
    }

    /// Those without a key have no cause, so a filter on causes cannot judge them.
    fn add_overflow(&mut self, overflow: u64, causes: &[String], lost: u64) {
        if overflow == 0 {
            return;
        }
        if !causes.is_empty() {
            self.undecidable += overflow;
            return;
        }
        self.count += overflow;
        self.lost += lost;
        self.rows.push(RefusalRow {
            cause: None,
            class: Class::Suspect,
            call: Refusing { name: None, errno: None },
            proto: None,
            netns: None,
            count: overflow,
        });
    }

    /// The rows by cause and namespace alone, as drops have them.
    pub(super) fn rows_of_causes(&self) -> Vec<Row> {
        let mut sums: Vec<Row> = Vec::new();
        for row in &self.rows {
            let same = |sum: &&mut Row| (&sum.cause, sum.netns) == (&row.cause, row.netns);
            match sums.iter_mut().find(same) {
                Some(sum) => {
                    sum.count += row.count;
                    sum.segments += row.count;
                }
                None => sums.push(Row {
                    cause: row.cause.clone(),
                    class: row.class,
                    netns: row.netns,
                    count: row.count,
                    segments: row.count,
                    refused: true,
                }),
            }
        }
        sums
    }
}
