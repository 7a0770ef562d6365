//! The build tools: rustup components and bpf-linker, fetched where they are missing.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, workspace};

/// Links the kernel side. Pinned, because its LLVM has to match the compiler's.
const BPF_LINKER: &str = "0.10.3";

/// The build tools, all present.
pub(crate) struct Tools {
    path: OsString,
}

impl Tools {
    /// What a build needs: `rust-src`, from which `core` is built for the BPF target, and bpf-linker.
    pub(crate) fn for_build() -> Result<Self> {
        Self::with_components(&["rust-src"])
    }

    /// What a build and the lints need.
    pub(crate) fn for_lint() -> Result<Self> {
        Self::with_components(&["rust-src", "clippy", "rustfmt"])
    }

    /// What a build for another target of this machine's architecture needs besides.
    pub(crate) fn for_target(target: &str) -> Result<Self> {
        let tools = Self::for_build()?;
        add_target(target)?;
        Ok(tools)
    }

    fn with_components(components: &[&str]) -> Result<Self> {
        add_components(components)?;
        Ok(Self { path: path_with(bpf_linker_dir()?)? })
    }

    /// cargo, in the workspace, finding these tools.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = cargo();
        cargo.env("PATH", &self.path);
        cargo
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace::root());
    cargo
}

fn add_components(wanted: &[&str]) -> Result<()> {
    let mut list = Command::new("rustup");
    list.args(["component", "list", "--installed"]).current_dir(workspace::root());
    let installed = match command::output(&mut list) {
        Ok(installed) => installed,
        Err(error) => return without_rustup(wanted).with_context(|| format!("{error:#}")),
    };
    let missing: Vec<_> = wanted.iter().filter(|name| !lists_component(&installed, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add"]).args(missing).current_dir(workspace::root());
    command::step("rust components", &mut add)
        .context("cannot add a Rust component; is there network access?")
}

fn add_target(target: &str) -> Result<()> {
    let sysroot =
        command::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target]).current_dir(workspace::root());
    command::step("rust target", &mut add)
        .with_context(|| format!("cannot add the Rust target {target}; is rustup there, and network access?"))
}

/// `rustup component list` appends the host triple to components that have one per host.
fn lists_component(installed: &str, name: &str) -> bool {
    installed.lines().any(|line| {
        let rest = line.trim().strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && rest.matches('-').count() >= 2)
    })
}

/// A toolchain from elsewhere will do if it brings everything.
fn without_rustup(wanted: &[&str]) -> Result<()> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| match **name {
            "rust-src" => !sysroot.join("lib/rustlib/src/rust/library/core").is_dir(),
            "clippy" => !runs("cargo-clippy"),
            "rustfmt" => !runs("rustfmt"),
            _ => true,
        })
        .copied()
        .collect();
    if !missing.is_empty() {
        bail!("missing: {}. Install rustup (https://rustup.rs), which brings them", missing.join(", "));
    }
    Ok(())
}

fn runs(program: &str) -> bool {
    command::output(Command::new(program).arg("--version")).is_ok()
}

/// The directory that holds the right bpf-linker, which is installed if there is none.
fn bpf_linker_dir() -> Result<PathBuf> {
    let found: Vec<_> =
        search_dirs()?.into_iter().filter_map(|dir| Some((bpf_linker_version(&dir)?, dir))).collect();
    if let Some((_, dir)) = found.iter().find(|(version, _)| version == BPF_LINKER) {
        return Ok(dir.clone());
    }

    let what = match found.first() {
        Some((other, dir)) => format!("bpf-linker {other} in {}, {BPF_LINKER} needed", dir.display()),
        None => format!("bpf-linker {BPF_LINKER} not found, installing it takes some minutes"),
    };
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    command::step(&what, &mut install).context("cannot install bpf-linker")?;
    let cargo_bin = cargo_bin()?;
    match bpf_linker_version(&cargo_bin) {
        Some(version) if version == BPF_LINKER => Ok(cargo_bin),
        _ => bail!("`cargo install` left no bpf-linker {BPF_LINKER} in {}", cargo_bin.display()),
    }
}

fn bpf_linker_version(dir: &Path) -> Option<String> {
    let program = dir.join("bpf-linker");
    if !program.is_file() {
        return None;
    }
    let version = command::output(Command::new(program).arg("--version")).ok()?;
    Some(version.split_whitespace().nth(1)?.to_owned())
}

/// PATH, with `dir` in front unless it already decides which bpf-linker runs. Left alone where possible,
/// because netdrop is built again when PATH changes.
fn path_with(dir: PathBuf) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    // netdrop/build.rs looks in cargo's own directory last.
    let first = search_dirs()?.into_iter().find(|dir| dir.join("bpf-linker").is_file());
    if first.as_ref() == Some(&dir) {
        return Ok(path);
    }
    let dirs = [dir].into_iter().chain(env::split_paths(&path));
    env::join_paths(dirs).context("PATH holds a directory that cannot be written down")
}

/// Where a bpf-linker may be: PATH, then cargo's own directory.
fn search_dirs() -> Result<Vec<PathBuf>> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path).chain([cargo_bin()?]).collect())
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Result<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => home.into(),
        None => env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo"),
    };
    Ok(home.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_with_and_without_a_host_triple() {
        let installed = "cargo-x86_64-unknown-linux-gnu\nclippy-x86_64-unknown-linux-gnu\nrust-src\n";
        assert!(lists_component(installed, "rust-src"));
        assert!(lists_component(installed, "clippy"));
        assert!(!lists_component(installed, "rustfmt"));
        assert!(!lists_component(installed, "rust"), "rust-src is not a component called rust");
    }
}
