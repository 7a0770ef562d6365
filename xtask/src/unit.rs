//! The unit part of `cargo xtask test`: everything that needs neither root nor a kernel's cooperation.

use std::ffi::OsString;

use anyhow::Result;

use crate::{command, tally::Tally, tools::Tools};

/// Runs the unit and documentation tests of all crates that run on the host.
pub(crate) fn run(tools: &Tools, filter: &[OsString], tally: &mut Tally) -> Result<()> {
    let mut test = tools.cargo();
    test.args([
        "test",
        "--workspace",
        "--exclude",
        "netdrop-ebpf",
        "--exclude",
        "netdrop-tests",
        "--no-fail-fast",
    ]);
    if !filter.is_empty() {
        test.arg("--").args(filter);
    }
    command::announce("unit tests", &command::shown(&test));
    let status = tally.run(&mut test)?;
    tally.check()?;
    command::succeeded(&test, status)
}
