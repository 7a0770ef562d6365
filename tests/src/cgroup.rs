//! A cgroup of a scenario's own, and processes in it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::lab::Lab;
use crate::netns::finish;
use crate::wait::DEADLINE;

/// A cgroup (version 2), removed in `Drop`. What runs in it must have ended by then.
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    /// Goes after the directory.
    _hierarchy: Option<Mount>,
}

/// A hierarchy that a scenario had to mount. Unmounted in `Drop`.
struct Mount(TempDir);

impl Lab {
    /// An empty cgroup. Mounts the hierarchy where nobody did.
    #[track_caller]
    pub fn cgroup(&self) -> Cgroup {
        let (root, hierarchy) = match mounted() {
            Some(root) => (root, None),
            None => {
                let mount = Mount::new();
                (mount.0.path().to_owned(), Some(mount))
            }
        };
        let path = root.join(self.prefix());
        fs::create_dir(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        let directory = File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        Cgroup { path, directory, _hierarchy: hierarchy }
    }
}

impl Cgroup {
    /// Makes a command run in this cgroup, and so everything it starts.
    #[track_caller]
    pub fn admit(&self, command: &mut Command) {
        let path = self.path.join("cgroup.procs");
        let members = File::options().write(true).open(&path);
        let members = members.unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        // SAFETY: the closure makes one system call, which is safe between fork and exec.
        unsafe {
            // 0 is the process that writes.
            command.pre_exec(move || (&members).write_all(b"0"));
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        // A process leaves its cgroup a moment after it has been waited for.
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() != ErrorKind::ResourceBusy || Instant::now() > end {
                eprintln!("cannot remove {}: {error}", self.path.display());
                break;
            }
            thread::yield_now();
        }
    }
}

/// Where the hierarchy of version 2 is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, path, "cgroup2", ..] => Some(Path::new(path).to_owned()),
        _ => None,
    })
}

impl Mount {
    #[track_caller]
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
        finish(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(directory.path()));
        Self(directory)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        if !unmounted.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}: {unmounted:?}", self.0.path().display());
        }
    }
}
