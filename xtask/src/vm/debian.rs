//! Debian programs, unpacked but not installed: what this needs on the host, and what guests find in theirs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::archive::{self, Suite};
use crate::command;

/// The release that the programs come from: its tools print what the scenarios read.
const SUITE: [&str; 2] = ["bookworm", "bookworm-security"];

/// Packages whose programs are used.
const PACKAGES: [&str; 18] = [
    "bash",
    "busybox-static",
    "conntrack",
    "dash",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "mount",
    "netbase",
    "nftables",
    "procps",
    "qemu-system-x86",
    "socat",
    "strace",
    "tcpdump",
    "util-linux",
    "xz-utils",
];

/// Where packages put programs. Packages of bookworm still know /bin and /sbin.
const PROGRAM_DIRS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// Where they put libraries.
const LIBRARY_DIRS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// The program that starts the others.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// The file that says which packages are unpacked beside it.
const LABEL: &str = "packages";

/// An unpacked tree of Debian packages with all that they depend on.
pub(crate) struct Debian {
    root: PathBuf,
}

impl Debian {
    /// The tree below `cache`, fetched where it is missing, not the same packages, or `update` asks for it.
    pub(crate) fn get(update: bool, cache: &Path) -> Result<Self> {
        let root = cache.join("debian");
        let wanted = format!("{}: {}\n", SUITE.join(" "), PACKAGES.join(" "));
        let there = fs::read_to_string(root.join(LABEL)).is_ok_and(|label| label == wanted);
        if there && !update {
            return Ok(Self { root });
        }
        match fetch(&root, &wanted, cache) {
            Err(error) if there => {
                eprintln!("warning: the newest tools for guests cannot be had: {error:#}");
                eprintln!("warning: using those from the cache");
            }
            fetched => fetched.context("cannot get the tools for guests")?,
        }
        Ok(Self { root })
    }

    /// A command that runs a program of the tree on this host, with the tree's libraries.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        let path = self.find(name)?;
        let mut command = self.loader();
        // Programs that are several, such as kmod, go by the name they are called by.
        command.arg("--argv0").arg(name).arg(path);
        Ok(command)
    }

    /// A file or directory of the tree.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A program of the tree by its name; a link leads to the program itself.
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf> {
        let mut path = PROGRAM_DIRS
            .iter()
            .map(|dir| self.root.join(dir).join(name))
            .find(|path| path.symlink_metadata().is_ok())
            .with_context(|| format!("Debian's packages brought no {name}"))?;
        while path.is_symlink() {
            let to = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // Absolute links are meant within the tree.
            path = match to.strip_prefix("/") {
                Ok(to) => self.root.join(to),
                Err(_) => path.parent().unwrap_or(&self.root).join(to),
            };
        }
        Ok(path)
    }

    /// The libraries that a program of the tree needs, as paths within the tree, the loader among them.
    pub(crate) fn libraries(&self, program: &Path) -> Result<BTreeSet<PathBuf>> {
        let listed = match command::output(self.loader().arg("--list").arg(program)) {
            Ok(listed) => listed,
            // The loader's word for a program without any.
            Err(error) if format!("{error:#}").contains("statically linked") => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let mut libraries = BTreeSet::from([PathBuf::from(LOADER)]);
        for line in listed.lines() {
            let Some((name, to)) = line.split_once(" => ") else { continue };
            let path = Path::new(to.split(" (").next().unwrap_or(to));
            let Ok(path) = path.strip_prefix(&self.root) else {
                bail!("{} needs {}, and Debian's packages brought none", program.display(), name.trim());
            };
            libraries.insert(path.into());
        }
        Ok(libraries)
    }

    fn loader(&self) -> Command {
        let mut loader = Command::new(self.root.join(LOADER));
        let dirs: Vec<_> = LIBRARY_DIRS.iter().map(|dir| self.root.join(dir).display().to_string()).collect();
        loader.arg("--library-path").arg(dirs.join(":"));
        loader
    }
}

fn fetch(root: &Path, label: &str, cache: &Path) -> Result<()> {
    let suite = Suite::together(&SUITE, cache)?;
    suite.update()?;
    let fresh = root.with_extension("new");
    archive::empty(&fresh)?;
    let debs = suite.download_all(&PACKAGES)?;
    command::announce("unpack", &format!("{} packages", debs.len()));
    for deb in &debs {
        archive::unpack(deb, &fresh)?;
    }
    fs::write(fresh.join(LABEL), label).context("cannot label the tools for guests")?;
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fs::rename(&fresh, root).with_context(|| format!("cannot make {}", root.display()))
}
