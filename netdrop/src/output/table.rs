//! Aligned columns.

use std::fmt::Write as _;

use bytes::BytesMut;
use jiff::tz::TimeZone;

use super::{
    style::Page,
    text::{and_refusals, drops, who},
};
use crate::{cause::Class, summary::Summary, top::Table};

/// Cuts a text to a width and marks the cut.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('~');
    cut
}

/// A name in the last column, which begins after `start` others, cut where the terminal ends.
fn last_column(page: Page, start: usize, name: &str) -> String {
    /// Less of a name is no name.
    const FEWEST: usize = 12;
    match page.columns {
        Some(columns) => fit(name, columns.saturating_sub(start).max(FEWEST)),
        None => name.to_owned(),
    }
}

/// The summary's rows; benign ones as one line unless they are shown.
pub(super) fn summary_table(out: &mut BytesMut, page: Page, summary: &Summary) {
    if summary.rows.is_empty() {
        return;
    }
    let heading = page.heading();
    // Writing to memory cannot fail.
    let _ =
        writeln!(out, "{heading}{:>10}  {:26}  {:8}  CONTAINER/NETNS{heading:#}", "COUNT", "CAUSE", "CLASS");
    for row in &summary.rows {
        if row.class == Class::Benign && !summary.show_benign {
            continue;
        }
        let class = page.class(row.class);
        let cause = row.cause.as_deref().unwrap_or("(no key)");
        let who = last_column(page, 50, &who(row.netns, &row.attribution));
        let _ = write!(out, "{:>10}  {class}{cause:26}  {:8}{class:#}  {who}", row.count, row.class.as_str());
        if row.segments > row.count {
            let _ = write!(out, " ({} packets)", row.segments);
        }
        if row.refused {
            let _ = write!(out, " (calls refused)");
        }
        let _ = writeln!(out);
    }
    let benign = summary.of_class(Class::Benign);
    if benign > 0 && !summary.show_benign {
        let faint = page.faint();
        let _ = writeln!(out, "{benign:>10}  {faint}normal housekeeping, --all shows it{faint:#}");
    }
}

/// One table of `netdrop top`: rows that moved since the table before come first.
pub fn top(out: &mut BytesMut, page: Page, table: &Table) {
    let summary = &table.summary;
    let totals = &summary.totals;
    let heading = page.heading();
    let faint = page.faint();
    let _ = writeln!(
        out,
        "{heading}netdrop top{heading:#}  {}  {} since the start{}, filtered {}, undecidable {}, missed {}",
        table.time.to_zoned(TimeZone::system()).strftime("%H:%M:%S"),
        drops(totals.seen),
        and_refusals(totals.refusals.count),
        totals.filtered,
        totals.undecidable,
        totals.missed
    );
    let _ = writeln!(
        out,
        "{heading}{:>10}  {:>9}  {:26}  {:8}  CONTAINER/NETNS{heading:#}",
        "COUNT", "PER SEC", "CAUSE", "CLASS"
    );
    let mut rows: Vec<_> = summary.rows.iter().zip(&table.added).collect();
    rows.sort_by_key(|(row, added)| std::cmp::Reverse((**added, row.count)));
    for (row, added) in rows {
        if row.class == Class::Benign && !summary.show_benign {
            continue;
        }
        let class = page.class(row.class);
        let cause = row.cause.as_deref().unwrap_or("(no key)");
        let rate = *added as f64 / table.span.as_secs_f64();
        let _ = writeln!(
            out,
            "{:>10}  {rate:>9.1}  {class}{cause:26}  {:8}{class:#}  {}",
            row.count,
            row.class.as_str(),
            last_column(page, 61, &who(row.netns, &row.attribution))
        );
    }
    let benign = summary.of_class(Class::Benign);
    if benign > 0 && !summary.show_benign {
        let _ = writeln!(out, "{benign:>10}  {:>9}  {faint}normal housekeeping, --all shows it{faint:#}", "");
    }
    let _ = writeln!(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_visibly() {
        assert_eq!(fit("web", 5), "web");
        assert_eq!(fit("webserver", 5), "webs~");
        assert_eq!(fit("wébsérver", 5), "wébs~");
    }
}
