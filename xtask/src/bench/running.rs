//! A tool under test while it runs: started, waited for, stopped, and what it cost.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, set_parent_process_death_signal, waitid,
};

use crate::command::{self, Owned};

/// How long a tool may take to attach: bpftrace compiles first.
const ATTACH: Duration = Duration::from_secs(20);

/// How long a tool may take to end after it was asked to.
const END: Duration = Duration::from_secs(60);

/// After how long it is asked again: bpftrace does not hear a signal that comes just before it begins to wait.
const AGAIN: Duration = Duration::from_secs(10);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// A running tool, killed when dropped.
pub(super) struct Running {
    child: Owned,
    shown: String,
    stdout: Output,
    stderr: Output,
    cpu_when_ready: Duration,
}

/// What a tool left.
pub(super) struct Finished {
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) usage: Usage,
}

/// What a tool took of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// CPU time of all its threads, from attached to ended.
    pub(super) cpu: Duration,
    /// Most memory it had at any time, in bytes.
    pub(super) peak_memory: u64,
}

impl Running {
    /// Starts a tool with its outputs in files, and waits until one of them says `ready`.
    pub(super) fn start(mut command: Command, ready: &str) -> Result<Self> {
        let (stdout, stderr) = (Output::new()?, Output::new()?);
        command.stdout(stdout.writer()?).stderr(stderr.writer()?);
        let shown = command::shown(&command);
        let child = Owned(spawn(&mut command)?);
        let mut running = Self { child, shown, stdout, stderr, cpu_when_ready: Duration::ZERO };
        let end = Instant::now() + ATTACH;
        while !running.says(ready)? {
            if let Some(status) = running.child.0.try_wait()? {
                bail!("`{}` ended with {status}: {}", running.shown, running.words()?);
            }
            if Instant::now() > end {
                bail!("`{}` was not ready within {ATTACH:?}: {}", running.shown, running.words()?);
            }
            thread::sleep(PAUSE);
        }
        running.cpu_when_ready = cpu(&running.child.0)?;
        Ok(running)
    }

    fn says(&self, ready: &str) -> Result<bool> {
        Ok(self.stdout.start()?.contains(ready) || self.stderr.start()?.contains(ready))
    }

    /// What the tool complains about: its first line, the rest is advice.
    fn words(&self) -> Result<String> {
        Ok(self.stderr.start()?.lines().next().unwrap_or("without a word").to_owned())
    }

    /// CPU time of all its threads so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu(&self.child.0)
    }

    /// Memory it has now, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        status(&self.child.0, "VmRSS")
    }

    /// Ends the tool as Ctrl-C does, and waits until it has shown all it had to show.
    pub(super) fn stop(mut self) -> Result<Finished> {
        let peak_memory = status(&self.child.0, "VmHWM")?;
        let end = Instant::now() + END;
        let mut ask = Instant::now();
        while !has_ended(&self.child.0)? {
            if Instant::now() > end {
                bail!("`{}` did not end within {END:?}", self.shown);
            }
            if Instant::now() >= ask {
                kill_process(Pid::from_child(&self.child.0), Signal::INT)
                    .with_context(|| format!("cannot stop `{}`", self.shown))?;
                ask += AGAIN;
            }
            thread::sleep(PAUSE);
        }
        // Known until it is reaped.
        let cpu = cpu(&self.child.0)?.saturating_sub(self.cpu_when_ready);
        let status = self.child.0.wait()?;
        if !status.success() {
            bail!("`{}` ended with {status}: {}", self.shown, self.words()?);
        }
        Ok(Finished { stdout: self.stdout, stderr: self.stderr, usage: Usage { cpu, peak_memory } })
    }
}

/// Starts `command`, which dies with the calling thread however that ends.
pub(super) fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null());
    // SAFETY: the closure makes one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn().with_context(|| format!("cannot start `{}`", command::shown(command)))
}

/// Whether a child has ended; leaves it to be reaped.
fn has_ended(child: &Child) -> Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), options).context("waitid")?.is_some())
}

/// CPU time of all threads of a child, also of those that have ended.
fn cpu(child: &Child) -> Result<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the call writes to the integer that it is given.
    let found = unsafe { libc::clock_getcpuclockid(child.id() as libc::pid_t, &raw mut clock) };
    if found != 0 {
        return Err(io::Error::from_raw_os_error(found)).context("clock_getcpuclockid");
    }
    // SAFETY: the call writes to the `timespec` that it is given.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).context("clock_gettime");
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// A size in `/proc/PID/status`, in bytes.
fn status(child: &Child, field: &str) -> Result<u64> {
    let path = format!("/proc/{}/status", child.id());
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {field} in {path}; has it ended?"))? * 1024)
}

/// A file without a name, which goes away with its last user.
pub(super) struct Output(File);

impl Output {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempfile().context("cannot create a temporary file")?))
    }

    fn writer(&self) -> Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    /// The first lines, as far as they are written.
    pub(super) fn start(&self) -> Result<String> {
        let mut bytes = Vec::new();
        self.reader().take(8192).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Hands each line to `take`.
    pub(super) fn for_each_line(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, self.reader());
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            take(line.trim_ascii_end());
            line.clear();
        }
        Ok(())
    }

    fn reader(&self) -> Reader<'_> {
        Reader { file: &self.0, at: 0 }
    }
}

/// Reads without moving the offset, which belongs to the tool that writes.
struct Reader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_tool_is_awaited_stopped_and_measured() {
        let script = "trap 'echo end; exit 0' INT; echo ready >&2; while :; do sleep 0.01; done";
        let running = Running::start(shell(script), "ready").unwrap();
        assert!(running.memory().unwrap() > 0);
        let finished = running.stop().unwrap();
        let mut lines = Vec::new();
        finished.stdout.for_each_line(|line| lines.push(line.to_vec())).unwrap();
        assert_eq!(lines, [b"end"]);
        assert!(finished.usage.peak_memory > 0);
    }

    #[test]
    fn a_tool_that_ends_early_is_quoted() {
        let error = Running::start(shell("echo no such probe >&2; exit 3"), "ready").err().unwrap();
        assert!(error.to_string().contains("no such probe"), "{error}");
    }

    #[test]
    fn a_dropped_tool_is_gone() {
        let running = Running::start(shell("echo ready; exec sleep 600"), "ready").unwrap();
        let process = format!("/proc/{}", running.child.0.id());
        drop(running);
        assert!(!fs::exists(process).unwrap());
    }
}
