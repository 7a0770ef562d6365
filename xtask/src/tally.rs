//! How many tests passed, failed and were skipped, read from what test executables print.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read, Write},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::command;

/// How a scenario that cannot run here says so, on stderr. The test runner counts it as passed.
pub(crate) const SKIP: &str = "SKIP: ";

/// How the test runner closes the report of one executable.
const RESULT: &str = "test result: ";

/// Once a test program has ended, its output is complete after this much silence …
const SILENCE: Duration = Duration::from_millis(500);

/// … or after this long, when a child that it left behind keeps talking.
const PATIENCE: Duration = Duration::from_secs(10);

/// Test results of any number of executables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// As the test runner sees it: with the scenarios that said `SKIP`.
    returned: u64,
    failed: u64,
    ignored: u64,
    skips: u64,
    reports: u64,
    /// Names of failed tests, as far as they could be read.
    failures: Vec<String>,
}

impl Tally {
    /// Runs a test program, showing its output as it comes, and adds up what it reports.
    pub(crate) fn run(&mut self, program: &mut Command) -> Result<ExitStatus> {
        self.run_showing(program, io::stdout(), io::stderr())
    }

    fn run_showing(
        &mut self,
        program: &mut Command,
        to_stdout: impl Write + Send + 'static,
        to_stderr: impl Write + Send + 'static,
    ) -> Result<ExitStatus> {
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            program.spawn().with_context(|| format!("cannot start `{}`", command::shown(program)))?;
        let (lines, received) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            let lines = lines.clone();
            thread::spawn(move || forward(stdout, to_stdout, &lines));
        }
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || forward(stderr, to_stderr, &lines));
        }

        // Not read to the end of the pipes: a process that a test left behind may hold them open.
        let status = child.wait()?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let Ok(line) = received.recv_timeout(SILENCE) else { break };
            self.add(&line);
        }
        Ok(status)
    }

    /// Takes a line of a test program's output.
    pub(crate) fn add(&mut self, line: &str) {
        if line.starts_with(SKIP) {
            self.skips += 1;
        } else if let Some((_, counts)) = line.split_once(RESULT) {
            self.returned += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
            self.reports += 1;
        } else if let Some(name) = line.trim_end().strip_suffix(" ... FAILED") {
            self.failures.push(name.trim_start_matches("test ").to_owned());
        }
    }

    /// Counts the test program `name`, which ended without a report, by a crash or a signal, as a failure.
    pub(crate) fn add_crash(&mut self, name: &str) {
        self.add_failure(&format!("{name} (crashed)"));
    }

    /// Counts a failure of which no test program tells.
    pub(crate) fn add_failure(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// Adds `place` to the names of the failed tests: the same test may have failed elsewhere.
    pub(crate) fn place_failures(&mut self, place: &str) {
        for name in &mut self.failures {
            *name = format!("{name} on {place}");
        }
    }

    /// Executables that reported to the end.
    pub(crate) fn reports(&self) -> u64 {
        self.reports
    }

    /// Tests of which anything is known.
    pub(crate) fn total(&self) -> u64 {
        self.returned + self.failed + self.ignored
    }

    /// Fails, naming the tests, if any of them failed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} of {} tests failed: {}", self.failed, self.total(), self.failures.join(", "));
        }
        Ok(())
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.returned += other.returned;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skips += other.skips;
        self.reports += other.reports;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.returned.saturating_sub(self.skips);
        write!(f, "{passed} passed, {} failed, {} skipped", self.failed, self.ignored + self.skips)
    }
}

/// The number before `label` in "ok. 3 passed; 0 failed; 1 ignored; …".
fn count(counts: &str, label: &str) -> u64 {
    let words: Vec<_> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == label).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// Copies `from` to `to` line by line, and sends each line on.
fn forward(from: impl Read, mut to: impl Write, lines: &Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // Nobody reads the output any more: the tests go on all the same.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.add(line));
        tally
    }

    #[test]
    fn results_of_several_executables_add_up() {
        let tally = tally(&[
            "running 4 tests\n",
            "test udp::closed_port ... ok\n",
            "test tcp::closed_port ... FAILED\n",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.12s\n",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        ]);
        assert_eq!(tally.to_string(), "13 passed, 2 failed, 1 skipped");
        assert_eq!(tally.reports(), 2);
        let error = tally.check().expect_err("two tests failed").to_string();
        assert_eq!(error, "2 of 16 tests failed: tcp::closed_port");
    }

    #[test]
    fn failures_say_where() {
        let mut tally =
            tally(&["test tcp::closed_port ... FAILED", "test result: FAILED. 0 passed; 1 failed"]);
        tally.place_failures("raw_tp");
        let error = tally.check().expect_err("a test failed").to_string();
        assert_eq!(error, "1 of 1 tests failed: tcp::closed_port on raw_tp");
    }

    #[test]
    fn a_skip_is_not_a_pass_whichever_line_comes_first() {
        let result = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let skip = "SKIP: qdisc: this kernel has no netem";
        assert_eq!(tally(&[result, skip]), tally(&[skip, result]));
        assert_eq!(tally(&[skip, result]).to_string(), "4 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_result_is_found_behind_what_somebody_left_on_the_line() {
        assert_eq!(tally(&["half a linetest result: ok. 1 passed; 0 failed; 0 ignored"]).total(), 1);
    }

    #[test]
    fn a_child_left_behind_does_not_hold_the_tally_up() {
        let pid_file = env::temp_dir().join(format!("xtask-tally-{}", std::process::id()));
        let mut program = Command::new("sh");
        program.env("PID_FILE", &pid_file);
        program.args([
            "-c",
            "sleep 600 & echo $! > $PID_FILE; echo 'test result: ok. 2 passed; 0 failed'; exit 7",
        ]);
        let mut tally = Tally::default();
        // Shown nowhere: whoever counts the results of this test would count that line, too.
        let status = tally.run_showing(&mut program, io::sink(), io::sink()).expect("sh runs");

        let pid = fs::read_to_string(&pid_file).expect("sh wrote the file");
        fs::remove_file(&pid_file).expect("the file is ours");
        let ended = Command::new("kill").arg(pid.trim()).status().expect("kill runs");
        assert!(ended.success(), "the child was waited for");
        assert_eq!((status.code(), tally.total(), tally.reports()), (Some(7), 2, 1));
    }
}
