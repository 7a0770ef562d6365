//! `cargo xtask vm`: netdrop on other kernels, Debian's, in virtual machines.

mod archive;
mod cpio;
mod debian;
mod initrd;
mod kernel;
mod modules;
mod output;
mod page;
mod qemu;
mod results;
mod suite;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    iter,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use netdrop_guest::{
    frame::Frame,
    plan::{self, Plan, Step},
};

use self::{
    debian::Debian,
    initrd::Payload,
    kernel::{Kernel, Series},
    output::Output,
    qemu::{Accel, Machine},
    results::KernelResult,
    suite::Suite,
};
use crate::{build, command, interrupt::Interrupt, scenarios::Rung, tally::Tally, tools::Tools, workspace};

/// What guests are built for: one static binary runs beside any libc.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Memory of a guest in MiB.
const MEMORY: u32 = 2048;

/// Which kernels, and what to run on them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series, such as 6.12, or 7 for the newest 7.x.
    #[arg(value_name = "KERNEL", default_values = kernel::DEFAULT)]
    kernels: Vec<Series>,
    /// Look for newer packages of kernels that are in the cache.
    #[arg(long)]
    update: bool,
    /// Who runs the guests: KVM needs /dev/kvm and a processor's support behind it.
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// Machines at the same time; by default as many as there are processors, for each machine waits a lot.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Processors of each machine.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Seconds after which a machine is killed; by default 600 with a command, 5400 with scenarios.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Run the scenarios on this rung alone, instead of once on each.
    #[arg(long, value_enum, value_name = "RUNG")]
    rung: Option<Rung>,
    /// Which scenarios to run, as in `cargo xtask test scenarios -- FILTER`: part of a test's or a file's name, or
    /// FILE::NAME, or an option of the test executables.
    #[arg(long, value_name = "TEST-FILTER", allow_hyphen_values = true)]
    tests: Vec<OsString>,
    /// What to run as root in each guest, instead of the scenarios; netdrop is in its search path.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["rung", "tests"])]
    command: Vec<String>,
}

/// Runs the command on each kernel and returns its exit code, for several kernels the first that is not 0; or
/// without a command the scenarios, and fails when one of them fails.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels and tools of the virtual machines are those of x86-64 alone");
    }
    let tools = Tools::for_target(TARGET)?;
    if !args.command.is_empty() {
        return run_command(&tools, args);
    }
    let mut tally = Tally::default();
    let result = run_scenarios(&tools, args, &mut tally);
    if tally.total() > 0 {
        writeln!(io::stdout(), "{tally}").context("cannot write to stdout")?;
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn run_command(tools: &Tools, args: &Args) -> Result<ExitCode> {
    let timeout = args.timeout.unwrap_or(600);
    let site = Site::prepare(tools, args, timeout)?;
    let step = Step {
        command: args.command.clone(),
        variables: BTreeMap::from([("NETDROP_BIN".to_owned(), format!("{}/netdrop", plan::PROGRAMS))]),
        timeout,
    };
    let plan = Plan { steps: vec![step] };
    let codes =
        site.on_all(|kernel, mut output| site.boot(kernel, &plan, &[], |frame| output.show(frame)))?;
    if codes.len() > 1 {
        let ended = args.kernels.iter().zip(&codes).map(|(series, code)| format!("{series} with {code}"));
        command::announce("ended", &ended.collect::<Vec<_>>().join(", "));
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0).into())
}

fn run_scenarios(tools: &Tools, args: &Args, tally: &mut Tally) -> Result<()> {
    let suite = Suite::build(tools, args.accel.resolve(), args.rung, &args.tests)?;
    let site = Site::prepare(tools, args, args.timeout.unwrap_or(5400))?;
    let tallies = Mutex::new(tally);
    site.on_all(|kernel, output| {
        let mut result = KernelResult::new(kernel, site.accel.name());
        let start = Instant::now();
        let say = |line: &str| output.say(line);
        let mut reader = suite.reader(&mut result, &say);
        let booted = site.boot(kernel, &suite.plan, &suite.payload, |frame| reader.take(frame));
        result.seconds = start.elapsed().as_secs_f64();
        **tallies.lock().unwrap_or_else(PoisonError::into_inner) += result.tally.clone();
        // Also of a machine that did not come to its end.
        result.keep(&site.cache)?;
        booted?;
        say(&format!("{}: {} in {:.0} s", result.release, result.tally, result.seconds));
        result.tally.check()?;
        if result.tally.reports() > 0 && result.tally.total() == 0 {
            bail!("no scenario matches; `--tests=--list` shows them all");
        }
        Ok(())
    })?;
    Ok(())
}

/// docs/kernels.md, from the results that are kept; `None` unless there are some of every kernel that is run by
/// default, as in a fresh clone.
pub(crate) fn page(tools: &Tools) -> Result<Option<String>> {
    let cache = cache(tools)?;
    let results: Option<Vec<_>> =
        kernel::DEFAULT.iter().map(|series| KernelResult::kept(series, &cache)).collect::<Result<_>>()?;
    Ok(results.map(|results| page::write(&results)))
}

/// Where everything is kept that takes time to get.
fn cache(tools: &Tools) -> Result<PathBuf> {
    Ok(workspace::target_dir(tools)?.join("vm-cache"))
}

/// Everything that the machines of one run share.
struct Site<'a> {
    args: &'a Args,
    timeout: Duration,
    cache: PathBuf,
    debian: Debian,
    netdrop: PathBuf,
    init: PathBuf,
    accel: Accel,
    interrupt: Interrupt,
}

impl<'a> Site<'a> {
    fn prepare(tools: &Tools, args: &'a Args, timeout: u64) -> Result<Self> {
        let cache = cache(tools)?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let debian = {
            let _lock = lock(&cache)?;
            Debian::get(args.update, &cache)?
        };
        Ok(Self {
            args,
            timeout: Duration::from_secs(timeout),
            debian,
            netdrop: build::release_for(tools, TARGET, "netdrop")?,
            accel: args.accel.resolve(),
            init: build::release_for(tools, TARGET, "netdrop-guest")?,
            interrupt: Interrupt::catch(),
            cache,
        })
    }
}

impl Site<'_> {
    /// Does `work` on each kernel, some at the same time. One that fails stops no other; all errors are told.
    fn on_all<T: Send>(&self, work: impl Fn(&Kernel, Output) -> Result<T> + Sync) -> Result<Vec<T>> {
        let kernels = &self.kernels()?;
        let jobs = self.jobs().min(kernels.len());
        let detail = kernels.iter().map(|kernel| kernel.release.as_str()).collect::<Vec<_>>().join(", ");
        let accel = self.accel.name();
        command::announce(
            "boot",
            &format!("{detail} ({accel}, {jobs} at a time, {} processors each)", self.args.cpus),
        );

        let queue = Mutex::new(kernels.iter().enumerate());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (send, results) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..jobs {
                let (send, next, work) = (send.clone(), &next, &work);
                scope.spawn(move || {
                    while let Some((number, kernel)) = next() {
                        let output = Output::new(&kernel.series.to_string(), kernels.len() > 1);
                        let result = work(kernel, output)
                            .with_context(|| format!("kernel {} ({})", kernel.series, kernel.release));
                        // The receiver outlives the scope.
                        let _ = send.send((number, result));
                    }
                });
            }
        });
        drop(send);
        let mut results: Vec<_> = results.into_iter().collect();
        results.sort_by_key(|(number, _)| *number);
        let (done, failed): (Vec<_>, Vec<_>) =
            results.into_iter().map(|(_, result)| result).partition(Result::is_ok);
        let mut errors = failed.into_iter().filter_map(Result::err);
        match errors.next() {
            None => Ok(done.into_iter().flatten().collect()),
            Some(first) => {
                errors.for_each(|error| eprintln!("error: {error:#}"));
                Err(first)
            }
        }
    }

    /// The kernels, all of them fetched.
    fn kernels(&self) -> Result<Vec<Kernel>> {
        let _lock = lock(&self.cache)?;
        let get = |series| Kernel::get(series, self.args.update, &self.debian, &self.cache);
        self.args.kernels.iter().map(get).collect()
    }

    fn jobs(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        self.args.jobs.map_or(processors, |jobs| jobs as usize)
    }

    /// Boots one kernel, runs the plan and returns its exit code.
    fn boot(
        &self,
        kernel: &Kernel,
        plan: &Plan,
        payload: &[Payload],
        take: impl FnMut(Frame) -> Result<()>,
    ) -> Result<u8> {
        let scratch = tempfile::Builder::new().prefix("boot-").tempdir_in(&self.cache);
        let scratch = scratch.context("cannot make room for an initrd")?;
        let initrd = scratch.path().join("initrd");
        let netdrop = Payload { name: "netdrop".to_owned(), path: self.netdrop.clone() };
        initrd::write(&initrd, &self.debian, kernel, &self.init, iter::once(&netdrop).chain(payload), plan)?;
        let consoles = self.cache.join("consoles");
        fs::create_dir_all(&consoles).with_context(|| format!("cannot make {}", consoles.display()))?;
        let machine = Machine {
            debian: &self.debian,
            accel: self.accel,
            cpus: self.args.cpus,
            memory: MEMORY,
            image: kernel.image(),
            initrd,
            console: consoles.join(format!("{}-{}", kernel.series, process::id())),
            timeout: self.timeout,
        };
        machine.run(&self.interrupt, take)
    }
}

/// Keeps others from changing the cache for as long as the file is open.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let what = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(what)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).with_context(what)?;
    Ok(file)
}
