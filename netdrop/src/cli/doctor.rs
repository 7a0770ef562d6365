//! `netdrop doctor`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{block_on, failure::Unsupported, privilege, rung::RungArgs};
use crate::{
    bpf::Rung,
    cause::{Catalogue, Class},
    doctor::{Report, State, examine},
    output::{prose::wrap, style::Page},
};

/// Arguments of `netdrop doctor`.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// One JSON object.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    rung: RungArgs,
}

pub(super) fn run(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let catalogue = Catalogue::builtin()?;
    let rung = &arguments.rung;
    // The ring registers with the loop's reactor.
    let report =
        block_on(async { examine(&catalogue, rung.rungs(), rung.consume(), privilege::without_kernel) })?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let mut value = serde_json::to_value(&report)?;
        value["v"] = 1.into();
        writeln!(out, "{value}")?;
    } else {
        text(&mut out, &report, Page::stdout())?;
    }
    out.flush()?;
    if report.usable {
        return Ok(ExitCode::SUCCESS);
    }
    privilege::check()?;
    Err(Unsupported("no drop can be observed here; see above for what is missing".to_owned()).into())
}

fn text(out: &mut impl Write, report: &Report, page: Page) -> io::Result<()> {
    let heading = page.heading();
    writeln!(out, "{heading}Kernel {} {}{heading:#}", report.kernel, report.machine)?;
    writeln!(out, "\n{heading}Probe points{heading:#}")?;
    for probe in &report.probes {
        let (state, found) = match probe.rung {
            Some(rung) if rung != Rung::Inference.as_str() => {
                let mut programs = probe.programs.join(", ");
                if let Some(count) = probe.instructions {
                    programs.push_str(&format!(", {count} instructions"));
                }
                let programs = if programs.is_empty() { programs } else { format!(" ({programs})") };
                (State::Ok, format!("by {rung}{programs}: {}", probe.shows))
            }
            Some(_) => (State::Limited, "not observed: no hook, no counters".to_owned()),
            None => {
                let state = if probe.costs.is_some() { State::Limited } else { State::Missing };
                (state, "not observed".to_owned())
            }
        };
        entry(out, page, state, probe.point, &found)?;
        if let Some(error) = &probe.error {
            page.paragraphs(out, INDENT, &format!("why: {error}"))?;
        }
        if let Some(price) = probe.price {
            page.paragraphs(out, INDENT, &format!("price: {price}"))?;
        }
        let unobserved = probe.rung.is_none_or(|rung| rung == Rung::Inference.as_str());
        if let Some(costs) = probe.costs.filter(|_| unobserved) {
            page.paragraphs(out, INDENT, &format!("costs: {costs}"))?;
        }
    }
    writeln!(out, "\n{heading}Kernel and privileges{heading:#}")?;
    for check in &report.checks {
        entry(out, page, check.state, check.name, &check.found)?;
        if let Some(costs) = &check.costs {
            page.paragraphs(out, INDENT, &format!("costs: {costs}"))?;
        }
        if let Some(remedy) = &check.remedy {
            page.paragraphs(out, INDENT, &format!("to get it: {remedy}"))?;
        }
    }
    let end =
        if report.usable { "`netdrop trace` works here." } else { "`netdrop trace` does not work here." };
    writeln!(out, "\n{end}")
}

/// Columns before an entry's text.
const INDENT: usize = 30;

fn entry(out: &mut impl Write, page: Page, state: State, name: &str, found: &str) -> io::Result<()> {
    let (word, class) = match state {
        State::Ok => ("ok", page.good()),
        State::Limited => ("limited", page.class(Class::Suspect)),
        State::Missing => ("missing", page.class(Class::Harmful)),
    };
    let mut lines = wrap(found, page.prose_width().saturating_sub(INDENT)).into_iter();
    let first = lines.next().unwrap_or_default();
    writeln!(out, "  {class}{word:7}{class:#}  {name:18} {first}")?;
    lines.try_for_each(|line| writeln!(out, "{:INDENT$}{line}", ""))
}
