//! `cargo xtask docs`: documentation that netdrop writes itself, so that it cannot drift from the program.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};

use crate::{command, tools::Tools, vm, workspace};

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

/// The page that is made from what virtual machines said. Not checked: it is as new as the last runs.
const KERNELS: &str = "docs/kernels.md";

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
        if !args.check {
            write(file.path, fresh)?;
        } else if read(&workspace::root().join(file.path))? != fresh {
            stale.push(file.path);
        }
    }
    if !stale.is_empty() {
        bail!("stale: {}; run `cargo xtask docs` and commit the result", stale.join(", "));
    }
    if !args.check {
        match vm::page(&tools)? {
            Some(page) => write(KERNELS, page)?,
            None => {
                command::announce(
                    "left as it is",
                    &format!("{KERNELS}, until `cargo xtask vm` has run here"),
                );
            }
        }
    }
    command::announce("docs", "up to date");
    Ok(())
}

/// Writes a file, unless it is like this already.
fn write(path: &str, fresh: String) -> Result<()> {
    let full = workspace::root().join(path);
    if read(&full)? != fresh {
        fs::write(&full, fresh).with_context(|| format!("cannot write {}", full.display()))?;
        command::announce("written", path);
    }
    Ok(())
}

/// The text of a file, empty where there is none.
fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}
