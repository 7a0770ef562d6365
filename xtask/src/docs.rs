//! `cargo xtask docs`: documentation that netdrop writes itself, so that it cannot drift from the program.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};

use crate::{command, tools::Tools, workspace};

/// What to do with the generated files.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing, and fail when a file is not what would be written.
    #[arg(long)]
    check: bool,
}

/// A file that is generated, and the arguments that make netdrop print it.
struct Generated {
    path: &'static str,
    netdrop: &'static [&'static str],
}

const FILES: &[Generated] = &[Generated { path: "docs/causes.md", netdrop: &["explain", "--markdown"] }];

/// Writes the files that changed, or with `--check` names the stale ones.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tools = Tools::for_build()?;
    let mut stale = Vec::new();
    for file in FILES {
        let mut netdrop = tools.cargo();
        // Not the release build: this is run after every change of the catalogue.
        netdrop.args(["run", "--quiet", "--package", "netdrop", "--bin", "netdrop", "--"]).args(file.netdrop);
        command::announce("generate", file.path);
        let fresh =
            command::output(&mut netdrop).with_context(|| format!("cannot generate {}", file.path))?;
        let path = workspace::root().join(file.path);
        if read(&path)? == fresh {
            continue;
        }
        if args.check {
            stale.push(file.path);
        } else {
            fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
            command::announce("written", file.path);
        }
    }
    if !stale.is_empty() {
        bail!("stale: {}; run `cargo xtask docs` and commit the result", stale.join(", "));
    }
    command::announce("docs", "up to date");
    Ok(())
}

/// The text of a file, empty where there is none.
fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}
