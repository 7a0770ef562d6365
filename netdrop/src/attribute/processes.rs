//! Processes by network namespace, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::{self, Claim};
use super::{netns, untrusted};

/// Processes that are remembered of one namespace: a container's own come first in practice, and one is
/// enough.
const PROCESSES_PER_NAMESPACE: usize = 256;

/// Bytes of a `/proc/PID` text that are read.
const TEXT_LIMIT: usize = 64 << 10;

/// Which processes are in which network namespace.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// Process ids by the inode of their namespace, ascending.
    pub(super) by_inode: HashMap<u32, Vec<u32>>,
    /// Processes that may not be looked into (no CAP_SYS_PTRACE, or protected otherwise).
    pub(super) closed: usize,
}

/// Looks at the network namespace of every process.
pub(super) fn namespaces(proc_root: &Path) -> Namespaces {
    let mut found = Namespaces::default();
    for pid in pids(proc_root) {
        match netns::inode_of_link(&link(proc_root, pid)) {
            Ok(inode) => {
                let pids = found.by_inode.entry(inode).or_default();
                if pids.len() < PROCESSES_PER_NAMESPACE {
                    pids.push(pid);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.closed += 1,
            // It ended meanwhile.
            Err(_) => {}
        }
    }
    for pids in found.by_inode.values_mut() {
        pids.sort_unstable();
    }
    found
}

/// All process ids.
pub(super) fn pids(proc_root: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc_root).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The link that shows a process's network namespace.
pub(super) fn link(proc_root: &Path, pid: u32) -> PathBuf {
    proc_root.join(format!("{pid}/ns/net"))
}

/// A text of `/proc/PID`, `None` when the process ended or closed it.
pub(super) fn text(proc_root: &Path, pid: u32, name: &str) -> Option<String> {
    let bytes = untrusted::read(&proc_root.join(format!("{pid}/{name}")), TEXT_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_time(proc_root: &Path, pid: u32) -> Option<u64> {
    // Field 22; the name in parentheses is field 2 and may hold anything.
    text(proc_root, pid, "stat")?.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The container ids that the processes of the namespace `inode` claim, each once, the one with the
/// longest-running process first: who made a namespace is in it before others join.
pub(super) fn containers(proc_root: &Path, inode: u32, pids: &[u32]) -> Vec<OwnedClaim> {
    let mut found: Vec<(u64, OwnedClaim)> = Vec::new();
    for pid in pids {
        let Some(cgroup) = text(proc_root, *pid, "cgroup") else { continue };
        let Some(claim) = cgroup::claim(&cgroup).map(OwnedClaim::from) else { continue };
        let started = start_time(proc_root, *pid).unwrap_or(u64::MAX);
        // The number may have passed to another process since it was listed.
        if netns::inode_of_link(&link(proc_root, *pid)).ok() != Some(inode) {
            continue;
        }
        match found.iter_mut().find(|(_, known)| *known == claim) {
            Some((earliest, _)) => *earliest = started.min(*earliest),
            None => found.push((started, claim)),
        }
    }
    found.sort_by_key(|(started, _)| *started);
    found.into_iter().map(|(_, claim)| claim).collect()
}

/// A [`Claim`] that outlives the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnedClaim {
    /// The container's id.
    pub(super) id: String,
    /// Whether the path names Docker.
    pub(super) docker: bool,
}

impl From<Claim<'_>> for OwnedClaim {
    fn from(claim: Claim<'_>) -> Self {
        match claim {
            Claim::Docker(id) => Self { id: id.to_owned(), docker: true },
            Claim::Unclaimed(id) => Self { id: id.to_owned(), docker: false },
        }
    }
}
