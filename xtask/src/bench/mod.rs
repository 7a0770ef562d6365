//! `cargo xtask bench`: what tracing drops costs, beside an empty program and bpftrace, and what it costs others.

mod bulk;
mod cost;
mod cpus;
mod generator;
mod nat;
mod rate;
mod ratio;
mod report;
mod running;
mod scene;
mod server;
mod site;
mod start;
mod stats;
mod storm;
mod tool;
mod turns;

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

use self::{report::Part, scene::Scene, site::Site, tool::Programs};
use crate::{
    build, command,
    interrupt::Interrupt,
    packages,
    privilege::{Privilege, find_program},
    tools::Tools,
};

/// Start of the name of every namespace of a bench.
const PREFIX: &str = "ndb-";

/// What to measure, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The parts to run, all of them by default.
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Measure>,
    /// cost: which rule drops, each in turn by default.
    #[arg(long, value_enum, value_name = "SCENE")]
    scene: Option<Scene>,
    /// cost: bursts with each tool, storm: bursts with netdrop, bulk: transfers with netdrop; and as many without.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// cost: drops of a burst.
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..))]
    drops: u64,
    /// storm: connections of a burst.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    connections: u64,
    /// bulk: GiB of a transfer.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    gib: u64,
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
    /// How much slower new connections through NAT become.
    Storm,
    /// Whether an established connection through NAT becomes slower.
    Bulk,
}

/// One part and its scene, where it has several.
#[derive(Clone, Copy)]
enum Job {
    Cost(Scene),
    Rate,
    Start,
    Storm,
    Bulk,
}

/// What the parts that drop datagrams share.
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
    packages::ensure(&args.programs(), privilege)?;
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

impl Args {
    /// What was asked for, in the order it is measured in.
    fn jobs(&self) -> Vec<Job> {
        let scene = |scene: &Scene| self.scene.is_none_or(|wanted| wanted == *scene);
        let wanted = |measure: &&Measure| self.parts.is_empty() || self.parts.contains(measure);
        let jobs = |measure: &Measure| match measure {
            Measure::Cost => Scene::value_variants().iter().copied().filter(scene).map(Job::Cost).collect(),
            Measure::Rate => vec![Job::Rate],
            Measure::Start => vec![Job::Start],
            Measure::Storm => vec![Job::Storm],
            Measure::Bulk => vec![Job::Bulk],
        };
        Measure::value_variants().iter().filter(wanted).flat_map(jobs).collect()
    }

    /// What has to be installed for it.
    fn programs(&self) -> Vec<packages::Program> {
        let mut programs = vec![packages::IP, packages::NFT];
        if self.jobs().iter().any(|job| matches!(job, Job::Cost(Scene::Iptables))) {
            programs.push(packages::IPTABLES);
        }
        programs
    }
}

impl Bench {
    fn at(scene: Scene, interrupt: Interrupt) -> Result<Self> {
        let site = Site::build(scene)?;
        Ok(Self { socket: site.socket()?, site, interrupt })
    }
}

fn measure(args: &Args, netdrop: PathBuf) -> Result<()> {
    let interrupt = Interrupt::catch();
    let bpftrace = args.bpftrace.clone().or_else(|| find_program("bpftrace"));
    let programs = Programs { netdrop, bpftrace };

    let machine = machine();
    if !args.json {
        print(&format!("{machine}\n"))?;
    }
    let (mut parts, mut bars_met) = (Vec::new(), true);
    for job in args.jobs() {
        let part = match job.run(args, &programs, interrupt) {
            Err(_) if interrupt.is_set() => bail!("interrupted"),
            part => part?,
        };
        bars_met &= part.bars.iter().all(|bar| bar.met);
        if !args.json {
            print(&format!("\n{part}"))?;
        }
        parts.push(part.to_json());
        if interrupt.is_set() {
            break;
        }
    }
    if args.json {
        print(&format!("{}\n", json!({ "v": 1, "machine": machine, "parts": parts })))?;
    }
    if interrupt.is_set() {
        bail!("interrupted");
    }
    if !bars_met {
        bail!("a figure does not keep its bar: see FAIL");
    }
    Ok(())
}

impl Job {
    fn run(self, args: &Args, programs: &Programs, interrupt: Interrupt) -> Result<Part> {
        let pairs = args.pairs;
        match self {
            Self::Cost(scene) => {
                let plan = cost::Plan { pairs, drops: args.drops };
                cost::run(&Bench::at(scene, interrupt)?, programs, &plan)
            }
            Self::Rate => {
                let plan = rate::Plan { rate: args.rate, lasting: Duration::from_secs(args.seconds) };
                rate::run(&Bench::at(Scene::Nft, interrupt)?, programs, &plan)
            }
            Self::Start => start::run(&Bench::at(Scene::Nft, interrupt)?, programs),
            Self::Storm => {
                storm::run(interrupt, programs, &storm::Plan { pairs, connections: args.connections })
            }
            Self::Bulk => bulk::run(interrupt, programs, &bulk::Plan { pairs, gib: args.gib }),
        }
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
