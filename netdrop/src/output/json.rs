//! JSON, one object per line: the contract that scripts rely on. Unknown is `null`, never absent.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::Sink;
use crate::{
    attribute::{Container, netns::NetnsId},
    cause::Confidence,
    event::{Direction, Event, Interface},
    evidence::Evidence,
    harm::{Consequence, HarmTotals},
    judge::Location,
    packet::{Packet, Protocol},
    process::Process,
    refusal::{Refusal, RefusalEvidence},
    summary::Summary,
    top::Table,
};

/// Version of the event schema: it only grows.
pub const VERSION: u8 = 1;

/// The JSON sink.
#[derive(Debug, Default)]
pub struct Json;

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    kind: &'static str,
    time: String,
    cause: Cause<'a>,
    reason: Option<&'a str>,
    reason_code: Option<u32>,
    reason_subsystem: Option<&'a str>,
    location: Option<&'a Location>,
    packet: &'a Packet,
    direction: Option<Direction>,
    netns: Netns<'a>,
    container: Option<&'a Container>,
    interface: Option<&'a Interface>,
    process: Option<&'a Process>,
    source: Option<()>,
    destination: Option<()>,
    evidence: Figures<'a>,
    stack: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Figures<'a> {
    Drop(&'a Evidence),
    Refusal(&'a RefusalEvidence),
}

#[derive(Serialize)]
struct Cause<'a> {
    id: &'a str,
    title: &'a str,
    class: &'a str,
    confidence: &'a str,
    why: &'a str,
}

/// A namespace; all fields `null` when the kernel side could not tell.
#[derive(Serialize)]
pub(crate) struct Netns<'a> {
    inode: Option<u32>,
    cookie: Option<u64>,
    name: Option<&'a str>,
}

impl<'a> Netns<'a> {
    pub(crate) fn new(id: Option<NetnsId>, name: Option<&'a str>) -> Self {
        Self {
            inode: id.map(|id| id.inode),
            cookie: id.map(|id| id.cookie).filter(|cookie| *cookie != 0),
            name,
        }
    }
}

/// What a drop cost.
#[derive(Serialize)]
struct Cost<'a> {
    v: u8,
    kind: &'static str,
    time: String,
    what: &'static str,
    packet: &'a Packet,
    netns: Netns<'a>,
    container: Option<&'a Container>,
    after_s: f64,
    drop: Blamed<'a>,
}

/// The drop that it is laid to.
#[derive(Serialize)]
struct Blamed<'a> {
    cause: &'a str,
    time: String,
}

#[derive(Serialize)]
struct Loss {
    v: u8,
    kind: &'static str,
    lost: u64,
}

#[derive(Serialize)]
struct End<'a> {
    v: u8,
    kind: &'static str,
    total: u64,
    seen: u64,
    shown: u64,
    hidden: u64,
    lost: u64,
    counted_only: u64,
    filtered: u64,
    undecidable: u64,
    missed: u64,
    refusals: u64,
    refused: Refused<'a>,
    resolved_clashes: Option<u64>,
    harm: Option<HarmTotals>,
    overflow: u64,
    elapsed_s: f64,
    causes: Vec<CauseCount<'a>>,
    netns: Vec<NetnsCount<'a>>,
}

/// Refused calls, apart from drops.
#[derive(Serialize)]
struct Refused<'a> {
    shown: u64,
    hidden: u64,
    lost: u64,
    counted_only: u64,
    filtered: u64,
    undecidable: u64,
    rows: Vec<RefusedRow<'a>>,
}

#[derive(Serialize)]
struct RefusedRow<'a> {
    cause: Option<&'a str>,
    class: &'a str,
    call: Option<&'a str>,
    errno: Option<&'a str>,
    proto: Option<Protocol>,
    netns: Netns<'a>,
    count: u64,
}

impl<'a> Refused<'a> {
    fn new(summary: &'a Summary) -> Self {
        let refusals = &summary.totals.refusals;
        let named = |netns| summary.rows.iter().find(|row| row.netns == netns);
        let rows = refusals.rows.iter().map(|row| RefusedRow {
            cause: row.cause.as_deref(),
            class: row.class.as_str(),
            call: row.call.name,
            errno: row.call.errno,
            proto: row.proto,
            netns: Netns::new(
                row.netns,
                named(row.netns).and_then(|named| named.attribution.netns_name.as_deref()),
            ),
            count: row.count,
        });
        Self {
            shown: refusals.shown,
            hidden: refusals.hidden,
            lost: refusals.lost,
            counted_only: refusals.counted_only,
            filtered: refusals.filtered,
            undecidable: refusals.undecidable,
            rows: rows.collect(),
        }
    }
}

#[derive(Serialize)]
struct CauseCount<'a> {
    id: Option<&'a str>,
    class: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct NetnsCount<'a> {
    #[serde(flatten)]
    netns: Netns<'a>,
    container: Option<&'a Container>,
    count: u64,
}

/// Appends a value and a newline.
pub(crate) fn write_line(out: &mut BytesMut, value: &impl Serialize) {
    // Writing to memory cannot fail, and every map key here is a string.
    serde_json::to_writer(out.writer(), value).expect("plain data serialises");
    out.put_u8(b'\n');
}

/// RFC 3339 with nanoseconds.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    format!("{time:.9}")
}

impl Sink for Json {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        let judged = &event.judged;
        let line = Line {
            v: VERSION,
            kind: "drop",
            time: rfc3339(event.time),
            cause: Cause {
                id: &judged.cause,
                title: &judged.title,
                class: judged.class.as_str(),
                confidence: judged.confidence.as_str(),
                why: &judged.why,
            },
            reason: judged.reason.name.as_deref(),
            reason_code: judged.reason.code,
            reason_subsystem: judged.reason.subsystem.as_deref(),
            location: Some(&judged.location),
            packet: &event.packet,
            direction: event.direction,
            netns: Netns::new(event.netns, event.attribution.netns_name.as_deref()),
            container: event.attribution.container.as_deref(),
            interface: event.interface.as_ref(),
            process: event.process.as_ref(),
            source: None,
            destination: None,
            evidence: Figures::Drop(&event.evidence),
            stack: event.stack.as_deref(),
        };
        write_line(out, &line);
    }

    fn harm(&mut self, out: &mut BytesMut, harm: &Consequence) {
        let line = Cost {
            v: VERSION,
            kind: "harm",
            time: rfc3339(harm.time),
            what: harm.kind(),
            packet: &harm.packet,
            netns: Netns::new(harm.netns, harm.attribution.netns_name.as_deref()),
            container: harm.attribution.container.as_deref(),
            after_s: harm.after.as_secs_f64(),
            drop: Blamed { cause: &harm.judged.cause, time: rfc3339(harm.drop_time) },
        };
        write_line(out, &line);
    }

    fn refusal(&mut self, out: &mut BytesMut, refusal: &Refusal) {
        let judged = &refusal.judged;
        let line = Line {
            v: VERSION,
            kind: "refusal",
            time: rfc3339(refusal.time),
            cause: Cause {
                id: &judged.cause,
                title: &judged.title,
                class: judged.class.as_str(),
                confidence: Confidence::Observed.as_str(),
                why: &refusal.why,
            },
            reason: None,
            reason_code: None,
            reason_subsystem: None,
            location: None,
            packet: &refusal.packet,
            direction: refusal.direction,
            netns: Netns::new(refusal.netns, refusal.attribution.netns_name.as_deref()),
            container: refusal.attribution.container.as_deref(),
            interface: None,
            process: Some(&refusal.process),
            source: None,
            destination: None,
            evidence: Figures::Refusal(&refusal.evidence),
            stack: None,
        };
        write_line(out, &line);
    }

    fn loss(&mut self, out: &mut BytesMut, lost: u64) -> bool {
        write_line(out, &Loss { v: VERSION, kind: "loss", lost });
        true
    }

    fn summary(&mut self, out: &mut BytesMut, summary: &Summary) {
        let totals = &summary.totals;
        let end = End {
            v: VERSION,
            kind: "summary",
            total: totals.total,
            seen: totals.seen,
            shown: totals.shown,
            hidden: totals.hidden,
            lost: totals.lost,
            counted_only: totals.counted_only,
            filtered: totals.filtered,
            undecidable: totals.undecidable,
            missed: totals.missed,
            refusals: totals.refusals.count,
            refused: Refused::new(summary),
            resolved_clashes: summary.resolved_clashes,
            harm: summary.harm,
            overflow: totals.overflow,
            elapsed_s: totals.elapsed.as_secs_f64(),
            causes: summary
                .by_cause()
                .into_iter()
                .map(|(id, class, count)| CauseCount { id, class: class.as_str(), count })
                .collect(),
            netns: summary
                .by_netns()
                .into_iter()
                .map(|(id, attribution, count)| NetnsCount {
                    netns: Netns::new(id, attribution.netns_name.as_deref()),
                    container: attribution.container.as_deref(),
                    count,
                })
                .collect(),
        };
        write_line(out, &end);
    }
}

#[derive(Serialize)]
struct TopLine<'a> {
    v: u8,
    kind: &'static str,
    time: String,
    elapsed_s: f64,
    interval_s: f64,
    total: u64,
    seen: u64,
    filtered: u64,
    undecidable: u64,
    missed: u64,
    refusals: u64,
    resolved_clashes: Option<u64>,
    overflow: u64,
    rows: Vec<TopRow<'a>>,
}

#[derive(Serialize)]
struct TopRow<'a> {
    cause: CauseCount<'a>,
    netns: Netns<'a>,
    container: Option<&'a Container>,
    segments: u64,
    added: u64,
    per_second: f64,
}

/// One table of `netdrop top`.
pub fn table(out: &mut BytesMut, table: &Table) {
    let summary = &table.summary;
    let totals = &summary.totals;
    let interval_s = table.span.as_secs_f64();
    let rows = summary
        .rows
        .iter()
        .zip(&table.added)
        .map(|(row, added)| TopRow {
            cause: CauseCount { id: row.cause.as_deref(), class: row.class.as_str(), count: row.count },
            netns: Netns::new(row.netns, row.attribution.netns_name.as_deref()),
            container: row.attribution.container.as_deref(),
            segments: row.segments,
            added: *added,
            per_second: *added as f64 / interval_s,
        })
        .collect();
    let line = TopLine {
        v: VERSION,
        kind: "top",
        time: rfc3339(table.time),
        elapsed_s: totals.elapsed.as_secs_f64(),
        interval_s,
        total: totals.total,
        seen: totals.seen,
        filtered: totals.filtered,
        undecidable: totals.undecidable,
        missed: totals.missed,
        refusals: totals.refusals.count,
        resolved_clashes: summary.resolved_clashes,
        overflow: totals.overflow,
        rows,
    };
    write_line(out, &line);
}
