//! `cargo xtask build`: netdrop's release binary, with its kernel side inside.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command,
    tools::Tools,
    workspace::{self, Executable},
};

/// Builds netdrop and says where it is.
pub(crate) fn run() -> Result<()> {
    let binary = release(&Tools::for_build()?)?;
    command::announce("built", &binary.display().to_string());
    Ok(())
}

/// Builds the release binary as the current user and returns its path.
pub(crate) fn release(tools: &Tools) -> Result<PathBuf> {
    let mut build = tools.cargo();
    build.args(["build", "--release", "--package", "netdrop", "--bin", "netdrop"]);
    command::announce("build", &command::shown(&build));
    let executables = workspace::executables(&mut build)?;
    let netdrop = executables.into_iter().find(|Executable { target, .. }| target == "netdrop");
    Ok(netdrop.context("the build left no executable called netdrop")?.path)
}
