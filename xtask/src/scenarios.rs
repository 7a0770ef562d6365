//! The scenario part of `cargo xtask test`: real drops on this machine's kernel, as root, leaving nothing.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process,
};

use anyhow::{Result, anyhow, bail};

use crate::{
    build, command,
    leftovers::{self, MARK, Snapshot},
    packages,
    privilege::{Privilege, path_with_sbin},
    tally::Tally,
    tools::Tools,
    workspace::{self, Executable},
};

/// Builds netdrop and the scenarios as the user, runs them as root, and checks that they tidied up.
pub(crate) fn run(tools: &Tools, privilege: Privilege, filter: &[OsString], tally: &mut Tally) -> Result<()> {
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
    for executable in &executables {
        run_one(executable, &netdrop, &mark, privilege, filter, &mut scenarios)?;
    }
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

fn run_one(
    executable: &Executable,
    netdrop: &Path,
    mark: &str,
    privilege: Privilege,
    filter: &[OsString],
    tally: &mut Tally,
) -> Result<()> {
    let path = path_with_sbin();
    let mut variables =
        vec![("NETDROP_BIN", netdrop.as_os_str()), ("PATH", path.as_os_str()), (MARK, OsStr::new(mark))];
    if env::var_os("CI").is_some_and(|ci| ci == "true") {
        // What could be installed must not be skipped for want of it.
        variables.push(("NETDROP_TESTS_STRICT", OsStr::new("1")));
    }
    let mut test = privilege.command(&executable.path, &variables, &["RUST_BACKTRACE"]);
    test.args(filter).current_dir(&executable.package_dir);
    command::announce(
        &format!("scenarios ({})", executable.target),
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
