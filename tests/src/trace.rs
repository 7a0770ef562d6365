//! A running `netdrop trace --json`: started, watched while traffic flows, ended.

use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::{self, Killed, ended};
use crate::netns::Netns;
use crate::outcome::Outcome;
use crate::reason;
use crate::wait::{self, DEADLINE};

/// The line on stderr that says that every hook is attached.
const READY: &str = "netdrop: tracing";

/// A trace to be started.
#[derive(Clone, Debug)]
pub struct Trace {
    args: Vec<String>,
    read_lines: usize,
    keep_events: usize,
    stalled: bool,
    every_cause_known: bool,
}

impl Default for Trace {
    fn default() -> Self {
        let args = ["trace", "--json"].map(str::to_owned).to_vec();
        Self {
            args,
            read_lines: usize::MAX,
            keep_events: usize::MAX,
            stalled: false,
            every_cause_known: false,
        }
    }
}

impl Trace {
    /// A trace of one namespace: what else happens on the machine does not disturb it. Every drop there must
    /// have a cause, see [`Trace::may_be_unknown`].
    pub fn of(netns: &Netns) -> Self {
        let trace = Self { every_cause_known: true, ..Self::default() };
        trace.args(&["--netns", &netns.path().to_string_lossy()])
    }

    /// Lets drops be `unknown`. The scenario says why nothing better can be said of them.
    #[must_use]
    pub fn may_be_unknown(mut self, _why: &'static str) -> Self {
        self.every_cause_known = false;
        self
    }

    /// A trace of the whole machine: its totals hold what other tests do at the same time.
    pub fn everywhere() -> Self {
        Self::default()
    }

    /// `netdrop top --json` over one namespace: its lines are read with [`Tracing::finish_raw`].
    pub fn top_of(netns: &Netns) -> Self {
        let args = ["top", "--batch", "--json"].map(str::to_owned).to_vec();
        Self { args, ..Self::default() }.args(&["--netns", &netns.path().to_string_lossy()])
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Closes netdrop's stdout after this many lines, as `head` does.
    #[must_use]
    pub fn close_stdout_after(mut self, lines: usize) -> Self {
        self.read_lines = lines;
        self
    }

    /// Keeps only the first events of a flood and counts the others: a million of them would fill memory.
    #[must_use]
    pub fn keep_events(mut self, events: usize) -> Self {
        self.keep_events = events;
        self
    }

    /// Leaves netdrop's stdout open and never reads it, as a stopped pager does.
    #[must_use]
    pub fn stall_stdout(mut self) -> Self {
        self.stalled = true;
        self
    }

    /// Starts netdrop and waits until all its hooks are attached.
    #[track_caller]
    pub fn start(self) -> Tracing {
        let mut command = binary::command(&self.args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spelled = format!("{command:?}");
        let mut child = Killed::start(&mut command);
        let shared = Arc::new(Shared::default());
        let keep_events = self.keep_events;
        // What is not taken here stays open in the child's handle.
        let pipe = if self.stalled { None } else { child.0.stdout.take() };
        let stdout = read_lines(pipe, &shared, self.read_lines, move |seen, line| {
            if is_event(&line) {
                seen.events += 1;
                if seen.events > keep_events as u64 {
                    return;
                }
            }
            seen.stdout.push(line);
        });
        let stderr =
            read_lines(child.0.stderr.take(), &shared, usize::MAX, |seen, line| seen.stderr.push(line));
        let mut tracing = Tracing {
            child,
            command: spelled,
            shared,
            readers: vec![stdout, stderr],
            every_cause_known: self.every_cause_known,
            ended: false,
        };
        tracing.await_ready();
        tracing
    }
}

/// What has been read so far.
#[derive(Default)]
struct Seen {
    /// Kept lines of stdout.
    stdout: Vec<String>,
    /// Events on stdout, kept or not.
    events: u64,
    stderr: Vec<String>,
}

/// Output, and a bell that rings on every new line.
#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    bell: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A test that panicked with the lock in hand still wants to print what was read.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A netdrop that traces. Killed in `Drop` when the test does not stop it.
pub struct Tracing {
    child: Killed,
    command: String,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    every_cause_known: bool,
    ended: bool,
}

impl Tracing {
    #[track_caller]
    fn await_ready(&mut self) {
        wait::until(&format!("`{READY}` from {}", self.command), || {
            let stderr = self.shared.lock().stderr.clone();
            if let Some(ready) = stderr.iter().find(|line| line.starts_with(READY)) {
                let on_rung = |rung: &str| ready.contains(&format!(" by {rung} "));
                assert!(binary::tracepoint_rung().is_none_or(on_rung), "not on the rung under test: {ready}");
                return Ok(());
            }
            if let Ok(status) = ended(&mut self.child.0) {
                panic!("{} ended before it traced: {status}\n{}", self.command, stderr.join("\n"));
            }
            Err(stderr.join("\n"))
        });
    }

    /// The first event so far that `wanted` accepts.
    #[track_caller]
    pub fn find_event(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let seen = self.shared.lock();
        seen.stdout.iter().map(|line| parsed(line)).find(|event| event["kind"] == "drop" && wanted(event))
    }

    /// Waits for an event that `wanted` accepts and returns the first one.
    #[track_caller]
    pub fn await_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.await_events(what, 1, wanted).remove(0)
    }

    /// Waits until `count` events were accepted by `wanted` and returns them.
    #[track_caller]
    pub fn await_events(&self, what: &str, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.await_lines("drop", what, count, wanted)
    }

    /// The same for lines of another `kind`.
    #[track_caller]
    pub fn await_lines(
        &self,
        kind: &str,
        what: &str,
        count: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let end = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        let mut read = 0;
        let mut seen = self.shared.lock();
        loop {
            for line in &seen.stdout[read..] {
                let event = parsed(line);
                if event["kind"] == kind && wanted(&event) {
                    found.push(event);
                }
            }
            read = seen.stdout.len();
            if found.len() >= count {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "{what}: {} of {count} events within {DEADLINE:?}", found.len());
            (seen, _) = self.shared.bell.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child.0);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.command));
    }

    /// Bytes that wait in the pipe of [`Trace::stall_stdout`].
    #[track_caller]
    pub fn unread(&self) -> u64 {
        let pipe = self.child.0.stdout.as_ref().expect("stdout is stalled");
        rustix::io::ioctl_fionread(pipe).unwrap_or_else(|error| panic!("FIONREAD: {error}"))
    }

    /// Whether netdrop has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        ended(&mut self.child.0).is_ok()
    }

    /// Ends the trace as Ctrl-C does, and checks what it printed against the contract.
    #[track_caller]
    pub fn stop(self) -> Outcome {
        self.signal(Signal::INT);
        self.finish()
    }

    /// Waits for the end of the trace, and checks what it printed against the contract.
    #[track_caller]
    pub fn finish(self) -> Outcome {
        let every_cause_known = self.every_cause_known;
        let outcome = Outcome::new(self.finish_raw());
        if every_cause_known && !reason::lacks_some() {
            assert_eq!(outcome.cause_count("unknown"), 0, "drops without a cause; see Trace::may_be_unknown");
        }
        outcome
    }

    /// Waits for the end of a trace that need not follow the contract, as after a closed pipe.
    #[track_caller]
    pub fn finish_raw(mut self) -> Ended {
        let status = wait::until(&format!("{} ends", self.command), || ended(&mut self.child.0));
        self.ended = true;
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        let mut seen = self.shared.lock();
        Ended {
            command: self.command.clone(),
            status,
            stdout: mem::take(&mut seen.stdout),
            events: seen.events,
            stderr: mem::take(&mut seen.stderr),
        }
    }
}

/// Everything a trace that has ended printed.
pub struct Ended {
    /// Command line.
    pub command: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Kept lines of stdout.
    pub stdout: Vec<String>,
    /// Events on stdout, kept or not.
    pub events: u64,
    /// Lines of stderr.
    pub stderr: Vec<String>,
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if !self.ended && thread::panicking() {
            let seen = self.shared.lock();
            let first: Vec<&str> = seen.stdout.iter().take(20).map(String::as_str).collect();
            eprintln!(
                "--- {} was still running\n--- stdout, first 20 of {} lines\n{}\n--- stderr\n{}",
                self.command,
                seen.stdout.len(),
                first.join("\n"),
                seen.stderr.join("\n")
            );
        }
    }
}

/// A line of stdout as JSON.
#[track_caller]
fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in line: {line}"))
}

/// Whether a line of stdout is an event, found without parsing it.
fn is_event(line: &str) -> bool {
    line.get(..40).is_some_and(|start| start.contains(r#""drop""#))
}

/// Reads a pipe line by line on a thread, `limit` lines at most, and closes it then.
fn read_lines(
    pipe: Option<impl Read + Send + 'static>,
    shared: &Arc<Shared>,
    limit: usize,
    take: impl Fn(&mut Seen, String) + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).lines().take(limit) {
            let Ok(line) = line else { return };
            take(&mut shared.lock(), line);
            shared.bell.notify_all();
        }
    })
}
