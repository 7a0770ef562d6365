//! `netdrop top`.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{block_on, duration, filter::FilterArgs, privilege, rung::RungArgs};
use crate::{
    bpf::Tracer,
    cause::Catalogue,
    output::style::Page,
    top::{self, Format, Plan},
};

/// Arguments of `netdrop top`.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Print one table after the other instead of redrawing the screen; so it is anyway where standard output
    /// is no terminal.
    #[arg(long)]
    batch: bool,

    /// Time between two tables: 500ms, 1s, 1m.
    #[arg(long, short = 'd', value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,

    /// End after this many tables.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    /// One JSON object per table.
    #[arg(long)]
    json: bool,

    /// Show benign drops too: normal housekeeping, otherwise counted but not shown.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    rung: RungArgs,

    // Last: its heading would hold for what follows.
    #[command(flatten)]
    filter: FilterArgs,
}

pub(super) fn run(arguments: &TopArgs) -> anyhow::Result<ExitCode> {
    let catalogue = Catalogue::builtin()?;
    let kernel = privilege::kernel()?;
    let page = Page::stdout();
    let format = if arguments.json {
        Format::Json
    } else if arguments.batch || page.columns.is_none() {
        Format::Tables(page)
    } else {
        Format::Screen(page)
    };
    let filter = arguments.filter.resolve(&kernel, &catalogue)?;
    let plan = Plan {
        // Who names a cause wants to see it, benign or not.
        all: arguments.all || !filter.causes.is_empty(),
        filter,
        interval: arguments.interval,
        iterations: arguments.iterations,
        rungs: arguments.rung.rungs(),
        consume: arguments.rung.consume(),
        format,
    };
    let ready = |tracer: &Tracer| {
        if !matches!(plan.format, Format::Screen(_)) {
            super::trace::ready(tracer, &kernel, arguments.rung.doctor());
        }
    };
    block_on(top::run(&plan, &kernel, &catalogue, ready))?.map_err(privilege::explained)?;
    Ok(ExitCode::SUCCESS)
}
