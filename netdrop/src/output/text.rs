//! Text for people: one drop a line where the page is wide, two where it is not.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;
use jiff::tz::TimeZone;

use super::{
    Sink,
    evidence::{brief, owner, refused},
    style::Page,
    table::{fit, summary_table},
};
use crate::{
    attribute::{Attribution, netns::NetnsId, untrusted::printable},
    cause::{Class, Confidence},
    event::{Event, Interface},
    harm::{Consequence, HarmTotals},
    refusal::Refusal,
    summary::{Summary, seconds},
};

/// Columns from which a drop gets one line.
const WIDE: usize = 150;

/// Width of the longest cause id.
const CAUSE_WIDTH: usize = 26;

/// Width of a container's or namespace's name.
const WHO_WIDTH: usize = 16;

/// Width of a device's name.
const NAME_WIDTH: usize = 12;

/// Width of device and direction.
const DEVICE_WIDTH: usize = NAME_WIDTH + 1 + "forward".len();

/// Columns from which the device stands on the first line.
const ROOMY: usize = 80;

/// Indent of a drop's further lines.
const INDENT: usize = 4;

/// The text sink.
#[derive(Debug)]
pub struct Text {
    page: Page,
    zone: TimeZone,
}

impl Text {
    /// For this page, in the machine's time zone.
    #[must_use]
    pub fn new(page: Page) -> Self {
        Self { page, zone: TimeZone::system() }
    }

    fn wide(&self) -> bool {
        self.page.columns.is_none_or(|columns| columns >= WIDE)
    }

    /// Columns for a name: what time and cause leave of a narrow page.
    fn who_width(&self) -> usize {
        /// Time, cause and the gaps.
        const BEFORE: usize = 12 + 2 + CAUSE_WIDTH + 2;
        /// Less of a name is no name.
        const FEWEST: usize = 8;
        self.page.columns.map_or(WHO_WIDTH, |columns| columns.saturating_sub(BEFORE).clamp(FEWEST, WHO_WIDTH))
    }

    fn roomy(&self) -> bool {
        self.page.columns.is_none_or(|columns| columns >= ROOMY)
    }
}

/// Whose packet: container, else namespace, else what is known of it.
#[must_use]
pub fn who(netns: Option<NetnsId>, attribution: &Attribution) -> String {
    if let Some(container) = &attribution.container {
        return container.label().to_owned();
    }
    match (&attribution.netns_name, netns) {
        (Some(name), _) => name.to_string(),
        (None, Some(netns)) => format!("net:[{}]", netns.inode),
        (None, None) => "?".to_owned(),
    }
}

/// "1 drop", "2 drops".
pub(super) fn drops(count: u64) -> String {
    format!("{count} {}", if count == 1 { "drop" } else { "drops" })
}

/// ", 2 refusals"; nothing of none.
pub(super) fn and_refusals(count: u64) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 refusal".to_owned(),
        _ => format!(", {count} refusals"),
    }
}

/// Device and direction: `eth0 in`. A container names its own devices.
fn device(event: &Event) -> String {
    let name = match &event.interface {
        Some(Interface { name: Some(name), .. }) => fit(&printable(name), NAME_WIDTH),
        Some(Interface { name: None, index }) => format!("if#{index}"),
        None => "-".to_owned(),
    };
    match event.direction {
        Some(direction) => format!("{name} {}", direction.as_str()),
        None => name,
    }
}

/// Reason, function and proof: `NO_SOCKET at __udp4_lib_rcv`.
fn proof(event: &Event) -> String {
    let judged = &event.judged;
    let mut text = match judged.reason.qualified() {
        Some(reason) => format!("{reason} at {}", judged.location),
        None => format!("at {}", judged.location),
    };
    let evidence: Vec<_> =
        [brief(&event.evidence), event.process.as_ref().map(owner)].into_iter().flatten().collect();
    if !evidence.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({})", evidence.join(", "));
    }
    if judged.confidence == Confidence::Inferred {
        text.push_str(" (inferred)");
    }
    text
}

/// What TCP did on the whole machine, and how much of it drops account for.
fn cost(harm: &HarmTotals) -> String {
    let part = |what: &str, seen: Option<u64>, joined: Option<u64>| match (seen, joined) {
        (Some(seen), Some(joined)) => format!("{what} {seen}, {joined} after a drop"),
        _ => format!("{what} not observed"),
    };
    [
        part("harm: segments sent again", harm.retransmits, harm.joined_retransmits),
        part("SYN-ACKs sent again", harm.synack_retransmits, harm.joined_synack_retransmits),
        part("resets sent", harm.resets_sent, harm.joined_resets_sent),
        part("resets received", harm.resets_received, harm.joined_resets_received),
    ]
    .join("; ")
}

/// No address.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A short time as people read it: `1.03 s`, `31 ms`, `40 µs`, `at once`.
fn span(time: Duration) -> String {
    match time.as_micros() {
        0 => "at once".to_owned(),
        1_000_000.. => format!("{:.2} s", time.as_secs_f64()),
        micros @ 1_000.. => format!("{} ms", micros / 1_000),
        micros => format!("{micros} µs"),
    }
}

impl Sink for Text {
    fn begin(&mut self, out: &mut BytesMut) {
        let style = self.page.heading();
        let _ =
            write!(out, "{style}{:12}  {:CAUSE_WIDTH$}  {:WHO_WIDTH$}", "TIME", "CAUSE", "CONTAINER/NETNS");
        if self.roomy() {
            let width = if self.wide() { DEVICE_WIDTH } else { 0 };
            let _ = write!(out, "  {:width$}", "DEVICE");
        }
        let _ = writeln!(out, "{}{style:#}", if self.wide() { "  PACKET, REASON at function" } else { "" });
    }

    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        let time = event.time.to_zoned(self.zone.clone()).strftime("%H:%M:%S.%3f").to_string();
        let who = fit(&who(event.netns, &event.attribution), self.who_width());
        self.head(out, &time, &event.judged.cause, event.judged.class, &who);
        self.rest(out, &device(event), &event.packet.to_string(), &proof(event));
        self.stack(out, event);
    }

    fn harm(&mut self, out: &mut BytesMut, harm: &Consequence) {
        let packet = &harm.packet;
        let end = |ip: Option<_>, port: Option<u16>| SocketAddr::new(ip.unwrap_or(ANY), port.unwrap_or(0));
        let (from, to) = (end(packet.src, packet.sport), end(packet.dst, packet.dport));
        let faint = self.page.faint();
        let _ = writeln!(
            out,
            "  └ cost {from} > {to} {}: {} {faint}({}){faint:#}",
            span(harm.after),
            harm.told(),
            harm.judged.cause
        );
    }

    fn refusal(&mut self, out: &mut BytesMut, refusal: &Refusal) {
        let time = refusal.time.to_zoned(self.zone.clone()).strftime("%H:%M:%S.%3f").to_string();
        let who = fit(&who(refusal.netns, &refusal.attribution), self.who_width());
        self.head(out, &time, &refusal.judged.cause, refusal.judged.class, &who);
        let (asked, proof) = refused(refusal);
        self.rest(out, "-", &asked, &proof);
    }

    fn loss(&mut self, _out: &mut BytesMut, _lost: u64) -> bool {
        false
    }

    fn summary(&mut self, out: &mut BytesMut, summary: &Summary) {
        let totals = &summary.totals;
        let heading = self.page.heading();
        let _ = writeln!(
            out,
            "\n{heading}{}{} in {}{heading:#}, kernel {}, {}",
            drops(totals.seen),
            and_refusals(totals.refusals.count),
            seconds(totals.elapsed),
            summary.kernel,
            summary.hooks
        );
        summary_table(out, self.page, summary);
        let _ = writeln!(
            out,
            "total {} = seen {} + filtered {} + undecidable {} + missed {}",
            totals.total, totals.seen, totals.filtered, totals.undecidable, totals.missed
        );
        let _ = writeln!(
            out,
            "seen {} = shown {} + hidden {} + lost {} + counted only {}",
            totals.seen, totals.shown, totals.hidden, totals.lost, totals.counted_only
        );
        self.notes(out, summary);
    }
}

impl Text {
    /// Time, cause, and who is concerned.
    fn head(&self, out: &mut BytesMut, time: &str, cause: &str, class: Class, who: &str) {
        let class = self.page.class(class);
        let who_width = self.who_width();
        let _ = write!(out, "{time}  {class}{cause:CAUSE_WIDTH$}{class:#}  {who:who_width$}");
    }

    /// Device, packet and proof, on as many lines as they need.
    fn rest(&self, out: &mut BytesMut, device: &str, packet: &str, proof: &str) {
        let faint = self.page.faint();
        if self.wide() {
            let _ = writeln!(out, "  {device:DEVICE_WIDTH$}  {packet}  {faint}{proof}{faint:#}");
            return;
        }
        let columns = self.page.columns.unwrap_or(usize::MAX);
        let mut column = INDENT;
        if self.roomy() {
            let _ = write!(out, "  {device}\n{:INDENT$}", "");
        } else {
            let _ = write!(out, "\n{:INDENT$}{device}  ", "");
            column += device.chars().count() + 2;
        }
        // The proof goes beside the packet where it fits.
        let _ = if column + packet.chars().count() + 2 + proof.chars().count() <= columns {
            writeln!(out, "{packet}  {faint}{proof}{faint:#}")
        } else {
            writeln!(out, "{packet}\n{:INDENT$}{faint}{proof}{faint:#}", "")
        };
    }

    /// The kernel stack, a function a line.
    fn stack(&self, out: &mut BytesMut, event: &Event) {
        let faint = self.page.faint();
        for function in event.stack.iter().flatten() {
            let _ = writeln!(out, "{:1$}{faint}{function}{faint:#}", "", INDENT + 4);
        }
    }

    /// What a figure that is not 0 means, and the next thing to type.
    fn notes(&self, out: &mut BytesMut, summary: &Summary) {
        let totals = &summary.totals;
        let faint = self.page.faint();
        let mut note = |text: &str| {
            let _ = writeln!(out, "{faint}{text}{faint:#}");
        };
        if totals.missed > 0 {
            note(
                "missed: the kernel skips a tracing program that interrupts itself on one CPU; these drops have no cause",
            );
        }
        if let Some(resolved @ 1..) = summary.resolved_clashes {
            note(&format!(
                "conntrack resolved {resolved} clashes of new connections: no packet was lost by them"
            ));
        }
        if let Some(harm) = &summary.harm {
            note(&cost(harm));
        }
        if totals.undecidable > 0 {
            note(
                "undecidable: a filter could not judge them (unreadable header, later fragment, unknown namespace or device)",
            );
        }
        if totals.lost > 0 {
            note(
                "lost: counted exactly, but the buffer had no room for their events; --buffer-size makes it larger",
            );
        }
        if totals.refusals.count > 0 {
            note("refusals: calls that the kernel refused before there was a packet; they are no drops");
        }
        if totals.refusals.lost > 0 {
            note(&format!(
                "of the refusals {} are counted only: the buffer had no room",
                totals.refusals.lost
            ));
        }
        if totals.overflow > 0 {
            note("no key: more kinds of drops than the kernel side has keys for; a filter makes fewer");
        }
        let worst =
            summary.rows.iter().find(|row| row.class == Class::Harmful).or_else(|| {
                summary.rows.iter().find(|row| row.class == Class::Suspect && row.cause.is_some())
            });
        if let Some(cause) = worst.and_then(|row| row.cause.as_deref()) {
            note(&format!("next: netdrop explain {cause}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_a_drop_and_what_it_cost() {
        let spans = [0, 43_000, 31_500_000, 1_031_000_000, 63_000_000_000]
            .map(|nanos| span(Duration::from_nanos(nanos)));
        assert_eq!(spans, ["at once", "43 µs", "31 ms", "1.03 s", "63.00 s"]);
    }

    #[test]
    fn what_was_not_observed_is_not_counted() {
        let harm = HarmTotals::new([(5, 2), (0, 0), (1, 1), (0, 0)], [true, true, true, false], 0);
        assert_eq!(
            cost(&harm),
            "harm: segments sent again 5, 2 after a drop; SYN-ACKs sent again 0, 0 after a drop; resets sent 1, 1 after a \
             drop; resets received not observed"
        );
    }
}
