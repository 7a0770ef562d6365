//! The file systems that a running Debian would have mounted.

use std::fs;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

/// A file system: kind and place.
struct FileSystem {
    kind: &'static str,
    at: &'static str,
    /// Whether some kernels do without it.
    optional: bool,
}

const fn needed(kind: &'static str, at: &'static str) -> FileSystem {
    FileSystem { kind, at, optional: false }
}

const fn optional(kind: &'static str, at: &'static str) -> FileSystem {
    FileSystem { kind, at, optional: true }
}

const FILE_SYSTEMS: [FileSystem; 11] = [
    needed("devtmpfs", "/dev"),
    needed("proc", "/proc"),
    needed("sysfs", "/sys"),
    needed("tmpfs", "/tmp"),
    needed("tmpfs", "/run"),
    needed("devpts", "/dev/pts"),
    needed("tmpfs", "/dev/shm"),
    needed("cgroup2", "/sys/fs/cgroup"),
    needed("bpf", "/sys/fs/bpf"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
];

/// Mounts them all.
pub(crate) fn make() -> Result<()> {
    for file_system in &FILE_SYSTEMS {
        let made = attach(file_system);
        if !file_system.optional {
            made?;
        }
    }
    Ok(())
}

fn attach(FileSystem { kind, at, .. }: &FileSystem) -> Result<()> {
    // sysfs has no place for more than the kernel's own.
    if !at.starts_with("/sys/") {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
    }
    mount(*kind, *at, *kind, MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {kind} at {at}"))
}
