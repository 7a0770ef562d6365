//! Running the steps of a plan, with their output sent to the host as it comes.

use std::{
    fs::File,
    io::{Read, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use netdrop_guest::{
    frame::{Ended, Frame},
    plan::{self, Plan, Step},
};
use rustix::process::{Pid, Signal, kill_process_group};

/// Debian's search path for root.
const SEARCH_PATH: &str = "/netdrop:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often a running step is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// How long output may still come after a step has ended: a process that it left behind may hold the pipes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the host.
#[derive(Clone)]
pub(crate) struct Port(Arc<Mutex<File>>);

impl Port {
    /// Opens the serial port, with no line discipline in between.
    pub(crate) fn open() -> Result<Self> {
        let what = || format!("cannot open {}", plan::PORT);
        let port = File::options().write(true).open(plan::PORT).with_context(what)?;
        let mut attributes = rustix::termios::tcgetattr(&port).with_context(what)?;
        attributes.make_raw();
        rustix::termios::tcsetattr(&port, rustix::termios::OptionalActions::Now, &attributes)
            .with_context(what)?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &Frame) -> Result<()> {
        // A thread that panicked while sending leaves the file as usable as it was.
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame.write(&mut *port).with_context(|| format!("cannot write to {}", plan::PORT))
    }

    /// Waits until everything has left.
    pub(crate) fn drain(&self) -> Result<()> {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        port.flush().and_then(|()| Ok(rustix::termios::tcdrain(&*port)?)).context("cannot drain the port")
    }
}

/// Runs all steps; returns the code of the first that failed, or 0.
pub(crate) fn run(plan: &Plan, port: &Port) -> Result<u8> {
    let mut code = 0;
    for (number, step) in (0..).zip(&plan.steps) {
        port.send(&Frame::Begin(number))?;
        let ended = run_step(number, step, port)?;
        port.send(&Frame::End(ended))?;
        if code == 0 {
            code = ended.code;
        }
    }
    Ok(code)
}

fn run_step(number: u32, step: &Step, port: &Port) -> Result<Ended> {
    let start = Instant::now();
    let ended = |code: u8, timed_out: bool| Ended {
        step: number,
        code,
        timed_out,
        milliseconds: u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX),
    };
    let (program, arguments) = step.command.split_first().context("a step without a command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs([("PATH", SEARCH_PATH), ("HOME", "/root"), ("TERM", "dumb")])
        .envs(&step.variables)
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        // A shell's codes.
        Err(error) => {
            let found = error.kind() != std::io::ErrorKind::NotFound;
            let message = format!("cannot start {program} in the guest: {error}\n");
            port.send(&Frame::Stderr(message.into_bytes()))?;
            return Ok(ended(if found { 126 } else { 127 }, false));
        }
    };
    let open = Arc::new(AtomicU32::new(2));
    forward(child.stdout.take(), Frame::Stdout, port, &open);
    forward(child.stderr.take(), Frame::Stderr, port, &open);

    let limit = start + Duration::from_secs(step.timeout);
    let (status, timed_out) = wait(&mut child, limit)?;
    let patience = Instant::now() + PATIENCE;
    // Acquire: pairs with the forwarders' last act, after which they send no more.
    while open.load(Ordering::Acquire) > 0 && Instant::now() < patience {
        thread::sleep(PAUSE);
    }
    Ok(ended(exit_code(status), timed_out))
}

/// Waits for a step; kills it, and all that it started, when its time is up.
fn wait(child: &mut Child, limit: Instant) -> Result<(ExitStatus, bool)> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a step")? {
            return Ok((status, false));
        }
        if Instant::now() > limit {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                // It may have ended since.
                let _ = kill_process_group(group, Signal::KILL);
            }
            return Ok((child.wait().context("cannot wait for a step")?, true));
        }
        thread::sleep(PAUSE);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Sends what comes out of a pipe, on a thread of its own.
fn forward(
    pipe: Option<impl Read + Send + 'static>,
    frame: fn(Vec<u8>) -> Frame,
    port: &Port,
    open: &Arc<AtomicU32>,
) {
    let (port, open) = (port.clone(), Arc::clone(open));
    thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        if let Some(mut pipe) = pipe {
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if let Err(error) = port.send(&frame(buffer[..length].to_vec())) {
                    eprintln!("netdrop-guest: {error:#}");
                }
            }
        }
        open.fetch_sub(1, Ordering::Release);
    });
}
