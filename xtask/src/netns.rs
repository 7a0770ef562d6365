//! Network namespaces of demo and bench: named after their process, removed when dropped.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{command, privilege::path_with_sbin};

/// Where `ip netns` keeps namespaces by name.
const NETNS_DIR: &str = "/run/netns";

/// A named namespace with `lo` up and without IPv6, removed when dropped.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// Creates the namespace PREFIX-process-ROLE. Those of processes that were killed before they could
    /// remove theirs are removed first.
    pub(crate) fn create(prefix: &str, role: &str) -> Result<Self> {
        remove_stale(prefix);
        let name = format!("{prefix}{}-{role}", process::id());
        ip(&format!("netns add {name}"))?;
        let netns = Self { name };
        // Address detection and router solicitation would mix packets in that nobody sent on purpose.
        netns.enter(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                if Path::new(&path).exists() {
                    fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
                }
            }
            Ok(())
        })?;
        ip(&format!("-n {} link set lo up", netns.name))?;
        Ok(netns)
    }

    /// The name under `/run/netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The bind mount under `/run/netns`.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs `work` inside the namespace. Sockets made there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let target = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        thread::scope(|scope| {
            // A thread of its own, because a thread that has moved cannot easily move back.
            let inside = scope.spawn(|| {
                move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                work()
            });
            inside.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// `program` inside the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = ip_program();
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Loads an nft script; its rules go away with the namespace.
    pub(crate) fn nft(&self, script: &str) -> Result<()> {
        let mut nft = self.command("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped());
        let mut child = nft.spawn().with_context(|| format!("cannot start `{}`", command::shown(&nft)))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).context("cannot write to nft")?;
        }
        command::succeeded(&nft, child.wait()?)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("netns delete {}", self.name)) {
            eprintln!("warning: namespace {} is left behind: {error:#}", self.name);
        }
    }
}

fn remove_stale(prefix: &str) {
    for entry in fs::read_dir(NETNS_DIR).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Only for tidiness: this process' own names are different.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> Result<()> {
    command::output(ip_program().args(words.split_whitespace())).map(drop)
}

/// `ip`, which finds itself and what it runs where only root's search path looks.
fn ip_program() -> Command {
    let mut ip = Command::new("ip");
    ip.env("PATH", path_with_sbin());
    ip
}
