//! The scenario part of `cargo xtask test`: real drops on this machine's kernel, as root, leaving nothing.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process,
};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;

use crate::{
    build, command,
    leftovers::{self, MARK, Snapshot},
    packages,
    privilege::{Privilege, path_with_sbin},
    tally::Tally,
    tools::Tools,
    workspace::{self, Executable},
};

/// Test executables that start no trace: the harness's own tests. One pass is enough for them; a few more
/// tests like that, of the command line, take less time than it would take to tell them apart.
const RUNGLESS: [&str; 2] = ["netdrop_tests", "harness"];

/// Test files of probe points that are functions: they are also run on the rungs of these.
const FUNCTION_FILES: [&str; 4] = ["accept_queue", "conntrack", "conntrack_clash", "listen_queue"];

/// All rungs that every kernel has, in the order that they are tested.
pub(crate) const RUNGS: &[Rung] = &[Rung::TpBtf, Rung::RawTp];

/// Rungs of functions beside the one that netdrop chooses there.
pub(crate) const FUNCTION_RUNGS: &[Rung] = &[Rung::Kprobe, Rung::Witness];

/// A way for netdrop to attach to the kernel, on which all scenarios must pass.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Rung {
    /// What netdrop chooses by itself: the tracepoint with types.
    TpBtf,
    /// The raw tracepoint, which reads kernel memory by helper.
    RawTp,
    /// Functions by kprobe and kretprobe, where the kernel has them; the tracepoint as netdrop chooses.
    Kprobe,
    /// Functions by the kernel's counters; the tracepoint as netdrop chooses.
    Witness,
}

impl Rung {
    /// netdrop's own name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Kprobe => "kprobe",
            Self::Witness => "witness",
        }
    }

    /// Whether the tests of a file have something to show on this rung, that of `first` having been tested before.
    pub(crate) fn concerns(self, file: &str, first: bool) -> bool {
        match self {
            Self::TpBtf | Self::RawTp => first || !RUNGLESS.contains(&file),
            Self::Kprobe | Self::Witness => FUNCTION_FILES.contains(&file),
        }
    }
}

/// One pass over the scenarios.
struct Pass<'a> {
    rung: Rung,
    netdrop: &'a Path,
    mark: &'a str,
    privilege: Privilege,
    filter: &'a [OsString],
}

/// Builds netdrop and the scenarios as the user, runs them as root on each rung, or on one, and checks that
/// they tidied up.
pub(crate) fn run(
    tools: &Tools,
    privilege: Privilege,
    rung: Option<Rung>,
    filter: &[OsString],
    tally: &mut Tally,
) -> Result<()> {
    packages::ensure(&packages::SCENARIO_PROGRAMS, privilege)?;
    let netdrop = build::release(tools)?;
    let mut build = tools.cargo();
    build.args(["test", "--package", "netdrop-tests", "--lib", "--tests", "--no-run"]);
    command::announce("build scenarios", &command::shown(&build));
    let executables = workspace::executables(&mut build)?;

    leftovers::remove_stale(privilege)?;
    let before = Snapshot::take(privilege);
    let mark = process::id().to_string();
    let mut scenarios = Tally::default();
    let rungs = rung.as_ref().map_or(RUNGS, std::slice::from_ref);
    let mut passes = Vec::new();
    for (number, &rung) in rungs.iter().enumerate() {
        let pass = Pass { rung, netdrop: &netdrop, mark: &mark, privilege, filter };
        let mut passed = Tally::default();
        for executable in &executables {
            if rung.concerns(&executable.target, number == 0) {
                pass.run(executable, &mut passed)?;
            }
        }
        passed.place_failures(rung.name());
        passes.push(format!("{}: {passed}", rung.name()));
        scenarios += passed;
    }
    command::announce("scenarios by rung", &passes.join("; "));
    *tally += scenarios.clone();

    command::announce(
        "leftovers",
        "comparing namespaces, processes, rules and sysctls with those from before",
    );
    let left = leftovers::find(&before, &mark, privilege);
    let passed = scenarios.check();
    if !left.is_empty() {
        let left = format!("the scenarios left something behind:\n    {}", left.join("\n    "));
        return Err(match passed {
            Ok(()) => anyhow!(left),
            Err(failed) => failed.context(left),
        });
    }
    passed?;
    // `--list` makes no report.
    if executables.is_empty() || scenarios.reports() > 0 && scenarios.total() == 0 {
        bail!("no scenario matches; `cargo xtask test scenarios -- --list` shows them all");
    }
    Ok(())
}

impl Pass<'_> {
    /// Runs one test executable.
    fn run(&self, executable: &Executable, tally: &mut Tally) -> Result<()> {
        let Some(arguments) = arguments(self.filter, &executable.target) else { return Ok(()) };
        let (path, rung) = (path_with_sbin(), self.rung.name());
        let mut variables = vec![
            ("NETDROP_BIN", self.netdrop.as_os_str()),
            ("NETDROP_TESTS_RUNG", OsStr::new(rung)),
            ("PATH", path.as_os_str()),
            (MARK, OsStr::new(self.mark)),
        ];
        if env::var_os("CI").is_some_and(|ci| ci == "true") {
            // What could be installed must not be skipped for want of it.
            variables.push(("NETDROP_TESTS_STRICT", OsStr::new("1")));
        }
        let mut test = self.privilege.command(&executable.path, &variables, &["RUST_BACKTRACE"]);
        test.args(arguments).current_dir(&executable.package_dir);
        command::announce(
            &format!("scenarios on {rung} ({})", executable.target),
            &format!("as root: {}", executable.path.display()),
        );

        let reports = tally.reports();
        let status = tally.run(&mut test)?;
        if !status.success() && tally.reports() == reports {
            eprintln!("{} ended without a report: {status}", executable.target);
            tally.add_crash(&executable.target);
        }
        Ok(())
    }
}

/// Arguments of libtest for the tests of one file; nothing when no test of it is meant.
/// A name means the tests whose names contain it, and all tests of a file whose name contains it;
/// `FILE::NAME`, as the catalogue names its scenarios, those of that file alone.
pub(crate) fn arguments(filter: &[OsString], file: &str) -> Option<Vec<OsString>> {
    let is_option = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    let (options, names): (Vec<&OsString>, Vec<&OsString>) =
        filter.iter().partition(|argument| is_option(argument));
    let mut wanted: Vec<OsString> = options.into_iter().cloned().collect();
    if names.iter().any(|name| name.to_str().is_some_and(|name| file.contains(name))) {
        return Some(wanted);
    }
    let none_wanted = wanted.len();
    for name in &names {
        match name.to_str().and_then(|name| name.split_once("::")) {
            Some((of, name)) if of == file => wanted.push(name.into()),
            Some(_) => {}
            None => wanted.push((*name).clone()),
        }
    }
    (names.is_empty() || wanted.len() > none_wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_tests() {
        let arguments = |filter: &[&str], file: &str| {
            let filter: Vec<OsString> = filter.iter().map(OsString::from).collect();
            let arguments = arguments(&filter, file)?;
            Some(arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>())
        };
        let some =
            |arguments: &[&str]| Some(arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(arguments(&[], "mtu"), some(&[]));
        assert_eq!(arguments(&["--list"], "mtu"), some(&["--list"]));
        assert_eq!(arguments(&["mixed"], "mixed_flood"), some(&[]));
        assert_eq!(arguments(&["mixed", "--nocapture"], "mixed_flood"), some(&["--nocapture"]));
        assert_eq!(arguments(&["mixed"], "mtu"), some(&["mixed"]));
        assert_eq!(arguments(&["mtu::with_df"], "mtu"), some(&["with_df"]));
        assert_eq!(arguments(&["mtu::with_df"], "tunnel"), None);
        assert_eq!(arguments(&["mtu::with_df", "vni"], "tunnel"), some(&["vni"]));
    }
}
