//! One network namespace of a lab: running commands and threads inside it, its sysctls, its removal.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::counters;

/// Where `ip netns` keeps namespaces by name.
const NETNS_DIR: &str = "/run/netns";

/// A named network namespace, removed in `Drop`.
pub struct Netns {
    name: String,
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// Creates the namespace `name`, with `lo` up and without IPv6 unless `ipv6`: duplicate address
    /// detection and multicast reports would add packets that no scenario asked for.
    #[track_caller]
    pub(crate) fn create(name: String, ipv6: bool) -> Self {
        finish(Command::new("ip").args(["netns", "add", &name]));
        let path = Path::new(NETNS_DIR).join(&name);
        // From here on Drop removes it, whatever fails.
        let mut netns = Self { name, path, inode: 0 };
        netns.inode = fs::metadata(&netns.path)
            .unwrap_or_else(|error| panic!("stat {}: {error}", netns.path.display()))
            .ino();
        for scope in ["all", "default"] {
            netns.try_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), if ipv6 { "0" } else { "1" });
            netns.try_sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
            // A distribution's default reaches new namespaces; scenarios that want the filter turn it on.
            netns.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0");
        }
        netns.run("ip link set lo up");
        netns
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bind mount under `/run/netns`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode number of the namespace, as in `/proc/PID/ns/net`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let target =
            File::open(&self.path).unwrap_or_else(|error| panic!("open {}: {error}", self.path.display()));
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|error| panic!("setns {}: {error}", self.name));
                work()
            });
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// A command that runs inside the namespace, with its own `/sys`; words are split at spaces.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words.split_whitespace());
        command
    }

    /// Runs a command inside and returns its stdout; panics when it fails.
    #[track_caller]
    pub fn run(&self, words: &str) -> String {
        finish(&mut self.command(words))
    }

    /// Runs a command inside that reads `input` from stdin; panics when it fails.
    #[track_caller]
    pub fn run_with_input(&self, words: &str, input: &str) -> String {
        self.try_run_with_input(words, input).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a command inside that reads `input` from stdin; `Err` says how it failed.
    pub fn try_run_with_input(&self, words: &str, input: &str) -> Result<String, String> {
        // A file, not a pipe: no thread is needed to write while the command runs.
        let mut file = tempfile::tempfile().map_err(|error| format!("create a temporary file: {error}"))?;
        file.write_all(input.as_bytes())
            .and_then(|()| file.rewind())
            .map_err(|error| format!("write a temporary file: {error}"))?;
        try_finish(self.command(words).stdin(Stdio::from(file)))
    }

    /// Writes a sysctl of this namespace; `key` is the path below `/proc/sys`.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| {
            fs::write(&path, value)
                .unwrap_or_else(|error| panic!("write {value} to {}: {error}", path.display()));
        });
    }

    /// A sysctl of this namespace that is a number; `key` is the path below `/proc/sys`.
    #[track_caller]
    pub fn read_sysctl(&self, key: &str) -> u64 {
        let path = Path::new("/proc/sys").join(key);
        let text = self.enter(|| fs::read_to_string(&path));
        let number = text.map(|text| text.trim().parse());
        match number {
            Ok(Ok(number)) => number,
            other => panic!("read {} as a number: {other:?}", path.display()),
        }
    }

    /// Writes a sysctl that a kernel without IPv6 does not have.
    fn try_sysctl(&self, key: &str, value: &str) {
        if Path::new("/proc/sys").join(key).exists() {
            self.sysctl(key, value);
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- netns {} (inode {})\n{}", self.name, self.inode, counters::describe(self));
        }
        // An error here must not hide the panic that is under way; a leftover is found by name.
        let removed = Command::new("ip").args(["netns", "del", &self.name]).output();
        match removed {
            Ok(output) if output.status.success() => {}
            other => eprintln!("cannot remove netns {}: {other:?}", self.name),
        }
    }
}

/// Runs `command` to its end and returns its stdout; panics with its stderr when it fails.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> String {
    try_finish(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `command` to its end and returns its stdout; `Err` has its stderr.
fn try_finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
