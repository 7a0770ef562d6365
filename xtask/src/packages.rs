//! Debian packages that tests, bench and demo call: only what is missing is installed, and it says so.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    command,
    privilege::{Privilege, find_program},
};

/// A program and the Debian package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

/// Network namespaces, links, routes, queueing disciplines.
pub(crate) const IP: Program = Program { name: "ip", package: "iproute2" };

/// Packet filter rules.
pub(crate) const NFT: Program = Program { name: "nft", package: "nftables" };

/// Packet filter rules as they were before nft.
pub(crate) const IPTABLES: Program = Program { name: "iptables-legacy", package: "iptables" };

/// What the scenarios call.
pub(crate) const SCENARIO_PROGRAMS: [Program; 4] =
    [IP, Program { name: "tc", package: "iproute2" }, NFT, IPTABLES];

/// Installs the packages of those `programs` that are not there.
pub(crate) fn ensure(programs: &[Program], privilege: Privilege) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|program| find_program(program.name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    packages.dedup();
    if find_program("apt-get").is_none() {
        bail!(
            "missing: {names}. There is no apt-get here to install them with: \
             install what Debian calls {} by this system's own means",
            packages.join(", ")
        );
    }

    let mut updated = false;
    if !has_package_lists() {
        update(privilege)?;
        updated = true;
    }
    let what = format!("missing {names}, installing");
    if let Err(error) = install(&what, &packages, privilege) {
        if updated {
            return Err(error);
        }
        // The lists may be older than the archive.
        update(privilege)?;
        install("installing again", &packages, privilege)?;
    }
    match missing.iter().find(|program| find_program(program.name).is_none()) {
        Some(program) => bail!("package {} is installed, but brought no {}", program.package, program.name),
        None => Ok(()),
    }
}

fn update(privilege: Privilege) -> Result<()> {
    let mut update = privilege.command("apt-get", &[], &[]);
    command::step("package lists", update.args(["-qq", "update"]))
        .context("cannot fetch the package lists; is there network access?")
}

fn install(what: &str, packages: &[&str], privilege: Privilege) -> Result<()> {
    let quiet = [("DEBIAN_FRONTEND", OsStr::new("noninteractive"))];
    let mut install = privilege.command("apt-get", &quiet, &[]);
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(packages);
    command::step(what, &mut install).context("cannot install packages")
}

/// A fresh container image has none.
fn has_package_lists() -> bool {
    let Ok(entries) = fs::read_dir(Path::new("/var/lib/apt/lists")) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}
