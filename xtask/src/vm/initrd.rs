//! What a guest finds when it starts: Debian's network tools, the kernel's modules, netdrop and the plan.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use netdrop_guest::plan::{self, Plan};

use super::{cpio::Archive, debian::Debian, kernel::Kernel, modules};
use crate::command;

/// Debian's programs in a guest; `busybox` stands in for those of everyday use that are not here.
const PROGRAMS: [&str; 35] = [
    "bash",
    "bridge",
    "conntrack",
    "dash",
    "dmesg",
    "ip",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-nft",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-nft-save",
    "kmod",
    "lsmod",
    "modinfo",
    "modprobe",
    "mount",
    "nft",
    "nsenter",
    "nstat",
    "ping",
    "ps",
    "rmmod",
    "setpriv",
    "socat",
    "strace",
    "ss",
    "su",
    "sysctl",
    "tc",
    "tcpdump",
    "top",
    "umount",
    "unshare",
];

/// What those load, or read, at run time.
const DATA: [&str; 5] = [
    "etc/iproute2",
    "etc/protocols",
    "etc/services",
    "usr/lib/x86_64-linux-gnu/tc",
    "usr/lib/x86_64-linux-gnu/xtables",
];

/// Who there is in a guest: tcpdump insists on becoming its own user.
const USERS: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\ntcpdump:x:100:100::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// A program of this project, and where it goes in the guest.
pub(crate) struct Payload {
    /// Name below [`plan::PROGRAMS`].
    pub(crate) name: String,
    /// The file here.
    pub(crate) path: PathBuf,
}

/// Writes the initrd of one guest.
pub(crate) fn write<'a>(
    path: &Path,
    debian: &Debian,
    kernel: &Kernel,
    init: &Path,
    payload: impl IntoIterator<Item = &'a Payload>,
    plan: &Plan,
) -> Result<()> {
    let mut archive = Archive::create(path)?;
    // Merged as in every Debian since 12.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        archive.directory(format!("usr/{dir}"))?;
        archive.link(dir, &format!("usr/{dir}"))?;
    }
    for dir in ["dev", "proc", "root", "run", "sys", "tmp", "var/tmp"] {
        archive.directory(dir)?;
    }
    archive.link("var/run", "/run")?;
    archive.copy("init", init)?;
    add_tools(&mut archive, debian)?;
    for (path, text) in USERS {
        archive.file(path, text.as_bytes(), false)?;
    }
    modules::add(&mut archive, kernel)?;
    for Payload { name, path } in payload {
        archive
            .copy(Path::new(plan::PROGRAMS).strip_prefix("/").unwrap_or(Path::new("")).join(name), path)?;
    }
    let plan = serde_json::to_vec(plan).context("cannot write the guest's plan")?;
    archive.file(plan::PATH.trim_start_matches('/'), &plan, false)?;
    archive.finish()
}

fn add_tools(archive: &mut Archive, debian: &Debian) -> Result<()> {
    let mut libraries = BTreeSet::new();
    let mut names = BTreeSet::new();
    for name in PROGRAMS {
        let program = debian.find(name)?;
        libraries.extend(debian.libraries(&program)?);
        archive.copy(format!("usr/bin/{name}"), &program)?;
        names.insert(name.to_owned());
    }
    // Plug-ins need nothing that their program does not.
    for library in libraries {
        archive.copy(merged(&library), &debian.path(&library.display().to_string()))?;
    }
    archive.link("usr/lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?;
    for path in DATA {
        let from = debian.path(path);
        if from.is_dir() { archive.copy_all(path, &from)? } else { archive.copy(path, &from)? }
    }

    // The kernel asks for this path.
    archive.link("usr/sbin/modprobe", "../bin/modprobe")?;
    archive.link("usr/sbin/ip", "../bin/ip")?;
    // Not busybox: its shell prefers its own ip and tc to those of the search path.
    archive.link("usr/bin/sh", "dash")?;
    names.insert("sh".to_owned());
    archive.copy("usr/bin/busybox", &debian.find("busybox")?)?;
    let applets = command::output(Command::new(debian.find("busybox")?).arg("--list"))?;
    for applet in applets.lines().filter(|applet| !names.contains(*applet) && *applet != "busybox") {
        archive.link(format!("usr/bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Where a file of Debian's tree goes in a guest, whose /bin, /sbin and /lib are links.
fn merged(path: &Path) -> PathBuf {
    if path.starts_with("usr") { path.into() } else { Path::new("usr").join(path) }
}
