//! `cargo xtask run`: netdrop on this machine, built as the user and run as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context, Result};

use crate::{build, command, privilege::Privilege, tools::Tools};

/// What of the user's environment netdrop's output depends on, and sudo would drop.
pub(crate) const KEPT_ENVIRONMENT: [&str; 6] =
    ["COLUMNS", "LANG", "NO_COLOR", "RUST_BACKTRACE", "TERM", "TZ"];

/// Builds netdrop and becomes it, so that Ctrl-C and the exit code are its own. Returns only on failure.
pub(crate) fn run(args: Vec<OsString>) -> Result<()> {
    let privilege = Privilege::find("netdrop")?;
    let netdrop = build::release(&Tools::for_build()?)?;

    let mut command = privilege.command(&netdrop, &[], &KEPT_ENVIRONMENT);
    command.args(args);
    command::announce("run", &command::shown(&command));
    Err(command.exec()).with_context(|| format!("cannot start `{}`", command::shown(&command)))
}
