//! The netdrop binary under test: where it is, and runs that end by themselves.

use std::env;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::Value;

use crate::reason::receiver_is_told;
use crate::wait;

/// Names the binary to test instead of the one of this build.
pub const BINARY: &str = "NETDROP_BIN";

/// Names the rung that every trace must run on: `tp_btf` is netdrop's own choice and has to come unasked, any
/// other is asked for with `--rung`.
pub const RUNG: &str = "NETDROP_TESTS_RUNG";

/// What netdrop chooses where the kernel has it, as all that it supports do.
const BEST_RUNG: &str = "tp_btf";

/// The rung that the tracepoint must be observed on, if that matters.
pub(crate) fn tracepoint_rung() -> Option<&'static str> {
    // Typed programs may be fatal on kernels that do not tell the receiver, so netdrop leaves them out there.
    let best = if receiver_is_told() { BEST_RUNG } else { "raw_tp" };
    match rung()?.as_str() {
        BEST_RUNG => Some(best),
        "raw_tp" => Some("raw_tp"),
        // A rung of functions says nothing of it.
        _ => None,
    }
}

/// The rung that every trace must run on, if that matters.
pub(crate) fn rung() -> Option<String> {
    env::var(RUNG).ok().filter(|rung| !rung.is_empty())
}

/// The binary: `NETDROP_BIN`, else the one built beside the test executable.
#[track_caller]
pub fn path() -> PathBuf {
    if let Some(path) = env::var_os(BINARY) {
        return path.into();
    }
    let test = env::current_exe().expect("the kernel tells a process its executable");
    // target/PROFILE/deps/TEST
    let built = test.ancestors().nth(2).map(|profile| profile.join("netdrop"));
    built.filter(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "no netdrop beside {}: run `cargo build -p netdrop` with the same profile, or set {BINARY}",
            test.display()
        )
    })
}

/// A command that runs netdrop with nothing on stdin, on the rung under test.
#[track_caller]
pub fn command<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new(path());
    command.args(args.iter().map(AsRef::as_ref)).stdin(Stdio::null());
    let traces = args.first().is_some_and(|task| ["trace", "top", "doctor"].contains(&task.as_ref()));
    if traces && let Some(rung) = rung().filter(|rung| rung != BEST_RUNG) {
        command.args(["--rung", &rung]);
    }
    command
}

/// A run that has ended.
pub struct Finished {
    /// Command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

impl Finished {
    /// Panics with both outputs unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}: {}\n--- stdout\n{}--- stderr\n{}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Every line of stdout as JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{}: {error} in {line}", self.command))
            })
            .collect()
    }
}

/// Runs netdrop to its end.
#[track_caller]
pub fn run(args: &[&str]) -> Finished {
    run_command(&mut command(args))
}

/// Runs a prepared netdrop command to its end; kills it and panics when it does not end in time.
#[track_caller]
pub fn run_command(command: &mut Command) -> Finished {
    let spelled = format!("{command:?}");
    let mut child = Killed::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = collect(child.0.stdout.take());
    let stderr = collect(child.0.stderr.take());
    let status = wait::until(&format!("{spelled} ends"), || ended(&mut child.0));
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("the reader does not panic");
    Finished { command: spelled, status, stdout: text(stdout), stderr: text(stderr) }
}

/// Reads a pipe to its end on a thread.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text).expect("output is UTF-8");
        }
        text
    })
}

/// The exit status of a child that has ended.
pub(crate) fn ended(child: &mut Child) -> Result<ExitStatus, String> {
    match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err("still running".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A child that is killed and reaped when a test gives up on it.
pub struct Killed(pub(crate) Child);

impl Killed {
    /// Starts a command that also dies with the test.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        die_with_parent(command);
        Self(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the kernel kill the child when the thread that started it ends without `Drop`, as after Ctrl-C.
fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
