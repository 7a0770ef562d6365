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

/// Builds netdrop's release binary as the current user and returns its path.
pub(crate) fn release(tools: &Tools) -> Result<PathBuf> {
    built(tools, "netdrop", &[])
}

/// Builds the release binary of the package of that name for another target.
pub(crate) fn release_for(tools: &Tools, target: &str, package: &str) -> Result<PathBuf> {
    built(tools, package, &["--target", target])
}

fn built(tools: &Tools, package: &str, arguments: &[&str]) -> Result<PathBuf> {
    let mut build = tools.cargo();
    build.args(["build", "--release", "--package", package, "--bin", package]).args(arguments);
    command::announce("build", &command::shown(&build));
    let executables = workspace::executables(&mut build)?;
    let program = executables.into_iter().find(|Executable { target, .. }| target == package);
    Ok(program.with_context(|| format!("the build left no executable called {package}"))?.path)
}
