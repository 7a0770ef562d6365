//! Where things are: the workspace, the directory cargo builds into, and what a build left there.

use std::{
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Deserializer, Value};

use crate::{command, tools::Tools};

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The directory that cargo builds into, wherever the user's settings put it.
pub(crate) fn target_dir(tools: &Tools) -> Result<PathBuf> {
    let metadata = command::output(tools.cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cannot read cargo's metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo's metadata names no target directory")?;
    Ok(directory.into())
}

/// A program that a build left behind.
#[derive(Debug, PartialEq)]
pub(crate) struct Executable {
    /// Name of the cargo target: a binary's or a test file's.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// Directory of its package, which is where cargo would run a test.
    pub(crate) package_dir: PathBuf,
}

/// Runs a cargo build and returns the programs it made or found up to date.
pub(crate) fn executables(build: &mut Command) -> Result<Vec<Executable>> {
    let shown = command::shown(build);
    build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = build.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("a piped stdout is missing")?;

    let messages = Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
    let messages: Vec<Value> = messages
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read the messages of `{shown}`"))?;
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(messages.iter().filter_map(executable).collect())
}

fn executable(message: &Value) -> Option<Executable> {
    Some(Executable {
        target: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
        package_dir: Path::new(message["manifest_path"].as_str()?).parent()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_artifacts_with_an_executable_count() {
        let library = json!({"reason": "compiler-artifact", "manifest_path": "/w/tests/Cargo.toml",
            "target": {"name": "netdrop_tests"}, "executable": null});
        assert_eq!(executable(&library), None);
        assert_eq!(executable(&json!({"reason": "build-finished", "success": true})), None);

        let test = json!({"reason": "compiler-artifact", "manifest_path": "/w/tests/Cargo.toml",
            "target": {"name": "udp"}, "executable": "/t/debug/deps/udp-0"});
        let expected = Executable {
            target: "udp".into(),
            path: "/t/debug/deps/udp-0".into(),
            package_dir: "/w/tests".into(),
        };
        assert_eq!(executable(&test), Some(expected));
    }
}
