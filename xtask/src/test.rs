//! `cargo xtask test`: lints, unit tests, scenarios; stops at the first part that fails.

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    lint,
    privilege::Privilege,
    scenarios::{self, Rung},
    tally::Tally,
    tools::Tools,
    unit,
};

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The parts to run, all of them by default.
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Run the scenarios on this rung alone, instead of once on each.
    #[arg(long, value_enum, value_name = "RUNG")]
    rung: Option<Rung>,
    /// What to run: part of a test's or a file's name, or FILE::NAME; and options of the test executables, such as
    /// `--nocapture`.
    #[arg(last = true, value_name = "TEST-FILTER")]
    filter: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Formatting and clippy, for the host and for the BPF target.
    Lint,
    /// Tests without root.
    Unit,
    /// Real drops on this machine's kernel, as root, in namespaces of their own.
    Scenarios,
}

/// Runs the chosen parts and prints how many tests passed, failed and were skipped.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut tally = Tally::default();
    let result = run_parts(args, &mut tally);
    if tally.total() > 0 {
        // For those who read the log, CI among them: one plain line, also after a failure.
        writeln!(io::stdout(), "{tally}").context("cannot write to stdout")?;
    }
    result
}

fn run_parts(args: &Args, tally: &mut Tally) -> Result<()> {
    let wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    // Now, not after minutes of building.
    let privilege = match wanted(Part::Scenarios) {
        true => Some(
            Privilege::acquire("running the scenarios")
                .context("cannot start; `cargo xtask test lint unit` leaves the scenarios out")?,
        ),
        false => None,
    };
    let tools = if wanted(Part::Lint) { Tools::for_lint()? } else { Tools::for_build()? };

    if wanted(Part::Lint) {
        lint::run(&tools).with_context(|| failed("lint"))?;
    }
    if wanted(Part::Unit) {
        unit::run(&tools, &args.filter, tally).with_context(|| failed("unit"))?;
    }
    if let Some(privilege) = privilege {
        scenarios::run(&tools, privilege, args.rung, &args.filter, tally)
            .with_context(|| failed("scenarios"))?;
    }
    Ok(())
}

fn failed(part: &str) -> String {
    format!("{part} failed; to run this part alone: `cargo xtask test {part}`")
}
