//! `cargo xtask vm`: netdrop on other kernels, Debian's, in virtual machines.

mod archive;
mod cpio;
mod debian;
mod initrd;
mod kernel;
mod modules;
mod output;
mod qemu;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    slice,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
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
};
use crate::{build, command, interrupt::Interrupt, tools::Tools, workspace};

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
    /// Machines at the same time; by default one for every two processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Processors of each machine.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Seconds after which a machine is killed.
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    timeout: u64,
    /// What to run as root in each guest; netdrop is in its search path.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command on each kernel; returns its exit code, for several kernels the first that is not 0.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels and tools of the virtual machines are those of x86-64 alone");
    }
    let tools = Tools::for_target(TARGET)?;
    let site = Site::prepare(&tools, args)?;
    let netdrop =
        Payload { name: "netdrop".to_owned(), path: build::release_for(&tools, TARGET, "netdrop")? };
    let step = Step {
        command: args.command.clone(),
        variables: BTreeMap::from([("NETDROP_BIN".to_owned(), format!("{}/netdrop", plan::PROGRAMS))]),
        timeout: args.timeout,
    };
    let plan = Plan { steps: vec![step] };
    let codes = site.on_all(|kernel, output| {
        site.boot(kernel, &plan, slice::from_ref(&netdrop), |frame| output.show(frame))
    })?;
    if codes.len() > 1 {
        let ended = args.kernels.iter().zip(&codes).map(|(series, code)| format!("{series} with {code}"));
        command::announce("ended", &ended.collect::<Vec<_>>().join(", "));
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0).into())
}

/// Everything that the machines of one run share.
struct Site<'a> {
    args: &'a Args,
    cache: PathBuf,
    debian: Debian,
    init: PathBuf,
    accel: Accel,
    interrupt: Interrupt,
}

impl<'a> Site<'a> {
    fn prepare(tools: &Tools, args: &'a Args) -> Result<Self> {
        let cache = workspace::target_dir(tools)?.join("vm-cache");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let debian = {
            let _lock = lock(&cache)?;
            Debian::get(args.update, &cache)?
        };
        Ok(Self {
            args,
            debian,
            accel: args.accel.resolve(),
            init: build::release_for(tools, TARGET, "netdrop-guest")?,
            interrupt: Interrupt::catch(),
            cache,
        })
    }
}

impl Site<'_> {
    /// Does `work` on each kernel, some at the same time. One that fails stops no other; all errors are told.
    fn on_all<T: Send>(&self, work: impl Fn(&Kernel, &mut Output) -> Result<T> + Sync) -> Result<Vec<T>> {
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
                        let mut output = Output::new(&kernel.series.to_string(), kernels.len() > 1);
                        let result = work(kernel, &mut output)
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
        self.args.jobs.map_or((processors / 2).max(1), |jobs| jobs as usize)
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
        initrd::write(&initrd, &self.debian, kernel, &self.init, payload, plan)?;
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
            timeout: Duration::from_secs(self.args.timeout),
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
