//! The scenarios as a guest's plan, and what comes of it.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use anyhow::{Context, Result, bail};
use netdrop_guest::{
    frame::{Ended, Frame},
    plan::{self, Plan, Step},
};

use super::{
    TARGET,
    initrd::Payload,
    qemu::Accel,
    results::{FileResult, KernelResult},
};
use crate::{
    command,
    scenarios::{self, Rung},
    tally::Tally,
    tools::Tools,
    workspace::{self, Executable},
};

/// One file of scenarios may take this long, after which the next one begins.
const FILE_TIMEOUT: Duration = Duration::from_secs(900);

/// Scenarios with a lot of traffic send this fraction of it in emulation.
const EMULATED_DIVISOR: u32 = 20;

/// How many tests of a file run at the same time: they wait more than they compute.
const THREADS: &str = "2";

/// What a step of the plan is.
enum Part {
    /// Loading modules that no scenario's tools ask for, as those of bridges, which do without rules for bridged
    /// packets, or that doctor looks for. Scenarios skip where they are not to be had: nothing is read from this.
    Module,
    /// `netdrop doctor --json`.
    Doctor,
    /// The tests of a file, all or some of them, on a rung.
    File { rung: Rung, file: String, all: bool },
}

/// The scenarios that are wanted, built for guests.
pub(crate) struct Suite {
    parts: Vec<Part>,
    /// What the guest runs, a step for each part.
    pub(crate) plan: Plan,
    /// What it needs for that.
    pub(crate) payload: Vec<Payload>,
    /// The options ask for more than results.
    pub(crate) verbose: bool,
}

impl Suite {
    /// Builds the scenarios and plans those that `filter` means, on each rung or on one.
    pub(crate) fn build(
        tools: &Tools,
        accel: Accel,
        rung: Option<Rung>,
        filter: &[OsString],
    ) -> Result<Self> {
        let mut build = tools.cargo();
        build.args(["test", "--profile", "guest", "--target", TARGET]);
        build.args(["--package", "netdrop-tests", "--lib", "--tests", "--no-run"]);
        command::announce("build scenarios", &command::shown(&build));
        let executables = workspace::executables(&mut build)?;
        let mut suite = Self::without_tests();
        suite.verbose = filter.iter().any(|argument| argument.as_encoded_bytes().starts_with(b"-"));
        let divisor = if accel == Accel::Tcg { EMULATED_DIVISOR } else { 1 };
        let mut rungs = rung.as_ref().map_or(scenarios::RUNGS, std::slice::from_ref).to_vec();
        if rung.is_none() {
            // What netdrop chooses hides the other rungs of functions, which these kernels have.
            rungs.extend(scenarios::FUNCTION_RUNGS);
        }
        for (number, &rung) in rungs.iter().enumerate() {
            for executable in &executables {
                if rung.concerns(&executable.target, number == 0) {
                    suite.add(executable, rung, divisor, filter)?;
                }
            }
        }
        if suite.payload.is_empty() {
            bail!("no scenario matches; `cargo xtask test scenarios -- --list` shows them all");
        }
        suite.payload.sort_by(|one, other| one.name.cmp(&other.name));
        suite.payload.dedup_by(|one, other| one.name == other.name);
        Ok(suite)
    }

    fn without_tests() -> Self {
        let command = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let module = step(
            command(&[
                "modprobe",
                "-a",
                "br_netfilter",
                "nf_conntrack",
                "nf_tables",
                "ip_tables",
                "ip6_tables",
            ]),
            [],
        );
        let doctor = step(command(&["netdrop", "doctor", "--json"]), []);
        Self {
            parts: vec![Part::Module, Part::Doctor],
            plan: Plan { steps: vec![module, doctor] },
            payload: Vec::new(),
            verbose: false,
        }
    }

    fn add(&mut self, executable: &Executable, rung: Rung, divisor: u32, filter: &[OsString]) -> Result<()> {
        let file = &executable.target;
        let Some(arguments) = scenarios::arguments(filter, file) else { return Ok(()) };
        let all = arguments.is_empty();
        let mut command = vec![format!("{}/{file}", plan::PROGRAMS)];
        for argument in arguments {
            let argument = argument.into_string();
            command.push(argument.ok().context("a filter is not UTF-8, which no test's name needs")?);
        }
        let variables = [
            ("NETDROP_BIN", format!("{}/netdrop", plan::PROGRAMS)),
            ("NETDROP_TESTS_RUNG", rung.name().to_owned()),
            // Guests have every tool.
            ("NETDROP_TESTS_STRICT", "1".to_owned()),
            ("NETDROP_TESTS_DIVISOR", divisor.to_string()),
            ("RUST_BACKTRACE", "1".to_owned()),
            ("RUST_TEST_THREADS", THREADS.to_owned()),
        ];
        self.plan.steps.push(step(command, variables));
        self.parts.push(Part::File { rung, file: file.clone(), all });
        self.payload.push(Payload { name: file.clone(), path: executable.path.clone() });
        Ok(())
    }

    /// Reads what a guest sends while it runs the plan. `say` shows a line about it.
    pub(crate) fn reader<'a>(&'a self, result: &'a mut KernelResult, say: &'a dyn Fn(&str)) -> Reader<'a> {
        Reader { suite: self, result, say, stdout: Vec::new(), stderr: Vec::new() }
    }
}

fn step<const N: usize>(command: Vec<String>, variables: [(&str, String); N]) -> Step {
    let variables: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Step { command, variables, timeout: FILE_TIMEOUT.as_secs() }
}

/// Turns the frames of one guest into results.
pub(crate) struct Reader<'a> {
    suite: &'a Suite,
    result: &'a mut KernelResult,
    say: &'a dyn Fn(&str),
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Reader<'_> {
    /// Takes the next frame.
    pub(crate) fn take(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Begin(_) => {
                self.stdout.clear();
                self.stderr.clear();
            }
            Frame::Stdout(bytes) => self.stdout.extend(bytes),
            Frame::Stderr(bytes) => self.stderr.extend(bytes),
            Frame::End(ended) => {
                let part = self.suite.parts.get(ended.step as usize).context("a step that is not planned")?;
                let (stdout, stderr) = (text(&self.stdout), text(&self.stderr));
                match part {
                    Part::Module => {}
                    Part::Doctor => self.doctor(&stdout, &stderr, ended),
                    Part::File { rung, file, all } => {
                        let result = self.file(*rung, file, &stdout, &stderr, ended);
                        // A part of a file says nothing about the others.
                        if *all {
                            self.result.files.entry(rung.name().to_owned()).or_default().push(result);
                        }
                    }
                }
            }
            Frame::Up(_) | Frame::Exit(_) => {}
        }
        Ok(())
    }

    fn doctor(&mut self, stdout: &str, stderr: &str, ended: Ended) {
        match serde_json::from_str(stdout) {
            Ok(report) => self.result.doctor = report,
            Err(error) => {
                (self.say)(&format!("doctor ended with {}, and its report is none: {error}", ended.code));
                stderr.lines().for_each(|line| (self.say)(line));
                self.result.tally.add_crash("netdrop doctor --json");
            }
        }
    }

    fn file(&mut self, rung: Rung, file: &str, stdout: &str, stderr: &str, ended: Ended) -> FileResult {
        let mut tally = Tally::default();
        stdout.lines().chain(stderr.lines()).for_each(|line| tally.add(line));
        let mut result = FileResult::read(file, stdout, stderr);
        result.seconds = f64::from(ended.milliseconds) / 1000.0;
        if ended.timed_out {
            let what = format!("{file} (killed after {} s)", FILE_TIMEOUT.as_secs());
            tally.add_failure(&what);
            result.failed.push(what);
        } else if ended.code != 0 && tally.reports() == 0 {
            tally.add_crash(file);
            result.failed.push(format!("{file} (crashed with {})", ended.code));
        }
        let failed = tally.check().is_err();
        if tally.total() == 0 && !self.suite.verbose {
            // The filter means no test of this file.
            return result;
        }
        if failed || self.suite.verbose {
            stdout.lines().chain(stderr.lines()).for_each(|line| (self.say)(line));
        } else {
            result
                .skipped
                .iter()
                .for_each(|skip| (self.say)(&format!("skipped {}: {}", skip.test, skip.why)));
        }
        let verdict = if failed { "FAILED" } else { "ok" };
        (self.say)(&format!("{} {file}: {verdict}, {tally} ({:.1} s)", rung.name(), result.seconds));
        tally.place_failures(&format!("{} on {}", rung.name(), self.result.series));
        self.result.tally += tally;
        result
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
