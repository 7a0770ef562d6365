//! `cargo xtask bench`: what tracing drops costs, beside an empty program and bpftrace.

mod cost;
mod cpus;
mod generator;
mod rate;
mod report;
mod running;
mod site;
mod start;
mod stats;
mod tool;

use std::{
    env, fs,
    io::{self, Write as _},
    net::UdpSocket,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use self::{report::Part, site::Site, tool::Programs};
use crate::{
    build, command,
    interrupt::Interrupt,
    packages,
    privilege::{Privilege, find_program},
    tools::Tools,
};

/// What to measure, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The parts to run, all of them by default.
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Measure>,
    /// cost: bursts with each tool, and as many without.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// cost: drops of a burst.
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..))]
    drops: u64,
    /// rate: drops a second.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// rate: how long.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The bpftrace to compare with, where it is not the one in the search path.
    #[arg(long, value_name = "PATH")]
    bpftrace: Option<PathBuf>,
    /// The figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// The netdrop to measure; how the bench calls itself as root.
    #[arg(long, hide = true, value_name = "PATH")]
    netdrop: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Measure {
    /// What a tool adds to each drop.
    Cost,
    /// Whether events are lost at a steady rate.
    Rate,
    /// How soon a drop is shown, and what netdrop takes while idle.
    Start,
}

/// What all parts share.
struct Bench {
    site: Site,
    socket: UdpSocket,
    interrupt: Interrupt,
}

/// Builds as the user, then measures as root.
pub(crate) fn run(args: &Args) -> Result<()> {
    let privilege = Privilege::find("the bench")?;
    if let (Some(netdrop), Privilege::Root) = (&args.netdrop, privilege) {
        return measure(args, netdrop.clone());
    }
    let netdrop = build::release(&Tools::for_build()?)?;
    packages::ensure(&[packages::IP, packages::NFT], privilege)?;
    match privilege {
        Privilege::Root => measure(args, netdrop),
        Privilege::Sudo => {
            let myself = env::current_exe().context("cannot find my own executable")?;
            let mut bench = privilege.command(myself, &[], &["RUST_BACKTRACE"]);
            bench.arg("bench").args(env::args_os().skip(2)).arg("--netdrop").arg(netdrop);
            // It tidies up after Ctrl-C, and is waited for meanwhile.
            let _interrupt = Interrupt::catch();
            command::step("bench", &mut bench)
        }
    }
}

fn measure(args: &Args, netdrop: PathBuf) -> Result<()> {
    let interrupt = Interrupt::catch();
    let site = Site::build()?;
    let bench = Bench { socket: site.socket()?, site, interrupt };
    let bpftrace = args.bpftrace.clone().or_else(|| find_program("bpftrace"));
    let programs = Programs { netdrop, bpftrace };

    let machine = machine();
    if !args.json {
        print(&format!("{machine}\n"))?;
    }
    let (mut parts, mut bars_met) = (Vec::new(), true);
    for measure in Measure::value_variants() {
        if !args.parts.is_empty() && !args.parts.contains(measure) {
            continue;
        }
        let part = match measure_part(*measure, args, &bench, &programs) {
            Err(_) if bench.interrupt.is_set() => bail!("interrupted"),
            part => part?,
        };
        bars_met &= part.bars.iter().all(|bar| bar.met);
        if !args.json {
            print(&format!("\n{part}"))?;
        }
        parts.push(part.to_json());
        if bench.interrupt.is_set() {
            break;
        }
    }
    if args.json {
        print(&format!("{}\n", json!({ "v": 1, "machine": machine, "parts": parts })))?;
    }
    if bench.interrupt.is_set() {
        bail!("interrupted");
    }
    if !bars_met {
        bail!("a figure does not keep its bar: see FAIL");
    }
    Ok(())
}

fn measure_part(measure: Measure, args: &Args, bench: &Bench, programs: &Programs) -> Result<Part> {
    match measure {
        Measure::Cost => cost::run(bench, programs, &cost::Plan { pairs: args.pairs, drops: args.drops }),
        Measure::Rate => {
            let lasting = Duration::from_secs(args.seconds);
            rate::run(bench, programs, &rate::Plan { rate: args.rate, lasting })
        }
        Measure::Start => start::run(bench, programs),
    }
}

/// The machine in a line: figures mean little without it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "kernel {}, {cpus} CPUs ({}), load {} before",
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or("unknown").trim(),
        load.split(' ').next().unwrap_or_default(),
    )
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}
