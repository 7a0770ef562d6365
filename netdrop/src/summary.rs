//! The end of a run: sums with names.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    attribute::{Attribution, netns::NetnsId},
    cause::Class,
    harm::HarmTotals,
    totals::Totals,
};

/// A row of [`Totals`] with its names.
#[derive(Clone, Debug)]
pub struct NamedRow {
    /// Cause id; nothing for drops that found the key map full.
    pub cause: Option<String>,
    /// Class.
    pub class: Class,
    /// Namespace; nothing when unknown.
    pub netns: Option<NetnsId>,
    /// Its names.
    pub attribution: Attribution,
    /// skbs.
    pub count: u64,
    /// Packets in them.
    pub segments: u64,
    /// Whether these are refused calls, which are no drops.
    pub refused: bool,
}

/// What a run ends with.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The sums; their rows have moved to `rows`.
    pub totals: Totals,
    /// Rows, most first.
    pub rows: Vec<NamedRow>,
    /// Whether benign rows are shown in text.
    pub show_benign: bool,
    /// Kernel release.
    pub kernel: String,
    /// The probe point that counts and its rung, `skb:kfree_skb by tp_btf`.
    pub hooks: String,
    /// Clashes in conntrack that the kernel resolved, which are no drops; nothing where that is not known.
    pub resolved_clashes: Option<u64>,
    /// What TCP did about lost packets; nothing where that was not asked for.
    pub harm: Option<HarmTotals>,
}

impl Summary {
    /// Names the rows.
    pub fn new(
        mut totals: Totals,
        mut attribute: impl FnMut(NetnsId) -> Attribution,
        show_benign: bool,
        kernel: String,
        hooks: String,
        resolved_clashes: Option<u64>,
    ) -> Self {
        let rows = std::mem::take(&mut totals.rows)
            .into_iter()
            .map(|row| NamedRow {
                attribution: row.netns.map(&mut attribute).unwrap_or_default(),
                cause: row.cause,
                class: row.class,
                netns: row.netns,
                count: row.count,
                segments: row.segments,
                refused: row.refused,
            })
            .collect();
        Self { totals, rows, show_benign, kernel, hooks, resolved_clashes, harm: None }
    }

    /// Counts by cause and class, most first.
    #[must_use]
    pub fn by_cause(&self) -> Vec<(Option<&str>, Class, u64)> {
        let mut sums: BTreeMap<(Option<&str>, &str), (Class, u64)> = BTreeMap::new();
        for row in &self.rows {
            sums.entry((row.cause.as_deref(), row.class.as_str())).or_insert((row.class, 0)).1 += row.count;
        }
        let mut causes: Vec<_> =
            sums.into_iter().map(|((cause, _), (class, count))| (cause, class, count)).collect();
        causes.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        causes
    }

    /// Counts by namespace, most first.
    #[must_use]
    pub fn by_netns(&self) -> Vec<(Option<NetnsId>, &Attribution, u64)> {
        let mut sums: Vec<(Option<NetnsId>, &Attribution, u64)> = Vec::new();
        for row in &self.rows {
            match sums.iter_mut().find(|(netns, ..)| *netns == row.netns) {
                Some((_, _, count)) => *count += row.count,
                None => sums.push((row.netns, &row.attribution, row.count)),
            }
        }
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.2));
        sums
    }

    /// Drops in rows of this class.
    #[must_use]
    pub fn of_class(&self, class: Class) -> u64 {
        self.rows.iter().filter(|row| row.class == class).map(|row| row.count).sum()
    }
}

/// A duration as people read it.
#[must_use]
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}
