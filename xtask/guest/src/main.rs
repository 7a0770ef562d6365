//! The first process of a test VM: prepares the guest, runs the host's plan, ends the machine.

mod mounts;
mod power;
mod steps;

use std::{
    env, fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use netdrop_guest::{frame::Frame, plan};

/// This program as its own child: the first process of a machine inherits orphans, and does nothing but that.
const RUN: &str = "run";

/// What no plan ends with: something here went wrong, as the console says.
const BROKEN: u8 = 125;

fn main() -> ExitCode {
    if env::args().nth(1).is_some_and(|argument| argument == RUN) {
        return match run() {
            Ok(code) => code.into(),
            Err(error) => {
                eprintln!("netdrop-guest: {error:#}");
                BROKEN.into()
            }
        };
    }
    let code = match prepare().and_then(|()| wait_for_steps()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("netdrop-guest: {error:#}");
            BROKEN
        }
    };
    power::off(code)
}

/// Makes the guest a place where network tools feel at home.
fn prepare() -> Result<()> {
    mounts::make()?;
    rustix::system::sethostname(b"guest").context("cannot set the host name")?;
    let status = Command::new("/sbin/ip").args(["link", "set", "lo", "up"]).status();
    anyhow::ensure!(status.context("cannot run ip")?.success(), "cannot bring lo up");
    Ok(())
}

/// Runs the plan in a child, and buries every process that is left to this one meanwhile.
fn wait_for_steps() -> Result<u8> {
    let child = Command::new("/proc/self/exe").arg(RUN).spawn().context("cannot start the plan")?;
    let child = i32::try_from(child.id()).context("a process id is too large")?;
    loop {
        let ended = rustix::process::wait(rustix::process::WaitOptions::empty())
            .context("cannot wait for the plan")?;
        if let Some((pid, status)) = ended
            && pid.as_raw_nonzero().get() == child
        {
            return Ok(status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(BROKEN));
        }
    }
}

/// Runs the plan's steps and tells the host about them.
fn run() -> Result<u8> {
    let text = fs::read(plan::PATH).with_context(|| format!("cannot read {}", plan::PATH))?;
    let plan: plan::Plan =
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", plan::PATH))?;
    let port = steps::Port::open()?;
    port.send(&Frame::Up(uptime_ms()?))?;
    let code = steps::run(&plan, &port)?;
    port.send(&Frame::Exit(code))?;
    port.drain()?;
    Ok(code)
}

fn uptime_ms() -> Result<u32> {
    let text = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let seconds: f64 = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .context("/proc/uptime makes no sense")?;
    Ok((seconds * 1000.0) as u32)
}
