//! `cargo xtask demo`: real drops for a newcomer on an idle machine, traced for some seconds.

mod site;
mod traffic;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use self::{site::Site, traffic::Traffic};
use crate::{
    build,
    command::{self, Owned},
    interrupt::Interrupt,
    packages,
    privilege::Privilege,
    run::KEPT_ENVIRONMENT,
    tools::Tools,
};

/// How the demo goes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to trace.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The netdrop to trace with; how the demo calls itself as root.
    #[arg(long, hide = true, value_name = "PATH")]
    netdrop: Option<PathBuf>,
}

/// Between two drops: slow enough to read along, and the whole demo fits on a screen.
const PACE: Duration = Duration::from_millis(400);

/// How long netdrop may take to end by itself once it was asked to.
const PATIENCE: Duration = Duration::from_secs(3);

/// Builds as the user, then drops and traces as root.
pub(crate) fn run(args: &Args) -> Result<()> {
    let privilege = Privilege::find("the demo")?;
    if let (Some(netdrop), Privilege::Root) = (&args.netdrop, privilege) {
        return show(netdrop, args.seconds);
    }
    let netdrop = build::release(&Tools::for_build()?)?;
    packages::ensure(&[packages::IP], privilege)?;
    match privilege {
        Privilege::Root => show(&netdrop, args.seconds),
        Privilege::Sudo => {
            let myself = env::current_exe().context("cannot find my own executable")?;
            let mut demo = privilege.command(myself, &[], &KEPT_ENVIRONMENT);
            demo.arg("demo").arg("--seconds").arg(args.seconds.to_string()).arg("--netdrop").arg(netdrop);
            // It tidies up after Ctrl-C, and is waited for meanwhile.
            let _interrupt = Interrupt::catch();
            command::step("demo", &mut demo)
        }
    }
}

fn show(netdrop: &Path, seconds: u64) -> Result<()> {
    let interrupt = Interrupt::catch();
    let site = Site::build()?;
    let mut traffic = Traffic::prepare(&site)?;
    command::announce(
        "demo",
        &format!("two hosts on one wire, namespaces {} and {}", site.client(), site.server()),
    );
    for kind in traffic.kinds() {
        eprintln!("      {kind}");
    }

    let mut trace = Command::new(netdrop);
    trace.args(["trace", "--netns", site.server(), "--duration", &format!("{seconds}s")]);
    command::announce("trace", &command::shown(&trace));
    let mut netdrop = Traced::start(&mut trace)?;
    while !netdrop.ended()? {
        traffic.send_next();
        interrupt.wait(PACE);
        if interrupt.is_set() {
            netdrop.stop()?;
        }
    }
    let status = netdrop.0.0.wait()?;
    if !status.success() {
        bail!("netdrop ended with {status}; `cargo xtask run -- doctor` tells what this machine lacks");
    }
    Ok(())
}

/// A running netdrop, which ends with the demo however that ends.
struct Traced(Owned);

impl Traced {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start `{}`", command::shown(command)))?;
        Ok(Self(Owned(child)))
    }

    fn ended(&mut self) -> Result<bool> {
        Ok(self.0.0.try_wait().context("cannot wait for netdrop")?.is_some())
    }

    /// Waits for netdrop to end after Ctrl-C, which the terminal sends to it as well. What interrupted the
    /// demo alone has not reached it: then it is told.
    fn stop(&mut self) -> Result<()> {
        let asked = Instant::now();
        let mut told = false;
        while !self.ended()? {
            if !told && asked.elapsed() > PATIENCE / 3 {
                kill_process(Pid::from_child(&self.0.0), Signal::TERM).context("cannot stop netdrop")?;
                told = true;
            }
            if asked.elapsed() > PATIENCE {
                self.0.0.kill().context("cannot kill netdrop")?;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
