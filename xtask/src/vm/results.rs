//! What the scenarios said on one kernel, kept for the page about kernels.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kernel::Kernel;
use crate::tally::{SKIP, Tally};

/// The directory of the cache that holds a file for each series.
const DIR: &str = "results";

/// Everything that is known about netdrop on a kernel.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct KernelResult {
    /// As it was asked for.
    pub(crate) series: String,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// Version of Debian's package.
    pub(crate) version: String,
    /// KVM or TCG.
    pub(crate) accel: String,
    /// How long the machine ran.
    pub(crate) seconds: f64,
    /// What `netdrop doctor --json` says there.
    pub(crate) doctor: Value,
    /// Results by rung.
    pub(crate) files: BTreeMap<String, Vec<FileResult>>,
    /// The sum of all files.
    #[serde(skip)]
    pub(crate) tally: Tally,
}

/// What the tests of one file said.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct FileResult {
    /// Name of the file.
    pub(crate) file: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Tests that passed.
    pub(crate) passed: Vec<String>,
    /// Tests that failed.
    pub(crate) failed: Vec<String>,
    /// Tests that did not run.
    pub(crate) skipped: Vec<Skip>,
}

/// A test that did not run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Skip {
    /// Its name.
    pub(crate) test: String,
    /// Its own words.
    pub(crate) why: String,
}

impl FileResult {
    /// Reads what a test executable printed.
    pub(crate) fn read(file: &str, stdout: &str, stderr: &str) -> Self {
        let mut result = Self { file: file.to_owned(), ..Self::default() };
        for line in stderr.lines() {
            if let Some((test, why)) = line.strip_prefix(SKIP).and_then(|skip| skip.split_once(": ")) {
                result.skipped.push(Skip { test: test.to_owned(), why: why.to_owned() });
            }
        }
        for line in stdout.lines() {
            let Some((test, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
            else {
                continue;
            };
            let skipped = result.skipped.iter().any(|skip| skip.test == test);
            match outcome {
                "ok" if !skipped => result.passed.push(test.to_owned()),
                "FAILED" => result.failed.push(test.to_owned()),
                _ => {
                    if let Some(why) = outcome.strip_prefix("ignored") {
                        let why = why.trim_start_matches(", ").to_owned();
                        result.skipped.push(Skip { test: test.to_owned(), why });
                    }
                }
            }
        }
        result
    }
}

impl KernelResult {
    /// Nothing yet.
    pub(crate) fn new(kernel: &Kernel, accel: &str) -> Self {
        Self {
            series: kernel.series.to_string(),
            release: kernel.release.clone(),
            version: kernel.version.clone(),
            accel: accel.to_owned(),
            ..Self::default()
        }
    }

    /// Keeps this below `cache`, with what was known about other files on the same kernel.
    pub(crate) fn keep(&self, cache: &Path) -> Result<()> {
        let path = place(&self.series, cache);
        let what = || format!("cannot keep {}", path.display());
        fs::create_dir_all(cache.join(DIR)).with_context(what)?;
        let kept = Self::kept(&self.series, cache)?.filter(|kept| kept.release == self.release);
        let text = serde_json::to_string_pretty(&self.clone().with(kept)).with_context(what)?;
        fs::write(&path, text + "\n").with_context(what)
    }

    /// Adds what only `kept` knows.
    fn with(mut self, kept: Option<Self>) -> Self {
        let Some(kept) = kept else { return self };
        if self.doctor.is_null() {
            self.doctor = kept.doctor;
        }
        for (rung, files) in kept.files {
            let known = self.files.entry(rung).or_default();
            for file in files {
                if known.iter().all(|other| other.file != file.file) {
                    known.push(file);
                }
            }
        }
        self
    }

    /// What is kept about a series, if anything.
    pub(crate) fn kept(series: &str, cache: &Path) -> Result<Option<Self>> {
        let path = place(series, cache);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let result = serde_json::from_slice(&text).with_context(|| {
            format!("{} is from another version: run `cargo xtask vm {series}`", path.display())
        })?;
        Ok(Some(result))
    }
}

fn place(series: &str, cache: &Path) -> PathBuf {
    cache.join(DIR).join(format!("{series}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_some_files_leaves_what_is_known_of_the_others() {
        let of = |files: &[(&str, f64)]| {
            let file = |&(file, seconds): &(&str, f64)| FileResult {
                file: file.to_owned(),
                seconds,
                ..FileResult::default()
            };
            let files = files.iter().map(file).collect();
            KernelResult { files: BTreeMap::from([("raw_tp".to_owned(), files)]), ..KernelResult::default() }
        };
        let merged = of(&[("mtu", 2.0)]).with(Some(of(&[("mtu", 1.0), ("qdisc", 1.0)])));
        assert_eq!(merged.files, of(&[("mtu", 2.0), ("qdisc", 1.0)]).files);
    }

    #[test]
    fn tests_pass_fail_and_are_skipped_by_name() {
        let stdout = "\nrunning 4 tests\ntest one ... ok\ntest two ... FAILED\ntest three ... ok\n\
                      test four ... ignored, takes an hour\n\nfailures:\n\n---- two stdout ----\n";
        let result = FileResult::read("mtu", stdout, "SKIP: three: this kernel has no drop reasons\n");
        assert_eq!(result.passed, ["one"]);
        assert_eq!(result.failed, ["two"]);
        let skip = |test: &str, why: &str| Skip { test: test.to_owned(), why: why.to_owned() };
        let expected = [skip("three", "this kernel has no drop reasons"), skip("four", "takes an hour")];
        assert_eq!(result.skipped, expected);
    }
}
