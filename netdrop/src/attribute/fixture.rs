//! A made-up machine for tests: procfs, `/etc` and `/var` in a scratch directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::HostPaths;

/// The machine; it is gone when this is dropped.
pub(super) struct Tree {
    directory: tempfile::TempDir,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a scratch directory") }
    }

    pub(super) fn paths(&self) -> HostPaths {
        HostPaths { proc_root: self.proc_root(), host_root: self.directory.path().to_owned() }
    }

    pub(super) fn proc_root(&self) -> PathBuf {
        self.directory.path().join("proc")
    }

    /// Writes a file, path relative to the machine's root.
    pub(super) fn file(&self, path: &str, content: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    /// Removes a directory, path relative to the machine's root.
    pub(super) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.directory.path().join(path)).expect("a directory");
    }

    /// Gives a process an open file.
    pub(super) fn descriptor(&self, pid: u32, number: u32, target: &str) {
        let directory = self.proc_root().join(format!("{pid}/fd"));
        fs::create_dir_all(&directory).expect("directories");
        symlink(target, directory.join(number.to_string())).expect("a link");
    }

    fn link_netns(&self, process: &str, inode: u32) {
        let directory = self.proc_root().join(process).join("ns");
        fs::create_dir_all(&directory).expect("directories");
        let link = directory.join("net");
        if link.is_symlink() {
            fs::remove_file(&link).expect("the old link");
        }
        symlink(format!("net:[{inode}]"), link).expect("a link");
    }

    pub(super) fn mountinfo(&self, mounts: &[(u32, &str)]) {
        let rows: String = mounts
            .iter()
            .map(|(inode, path)| format!("50 27 0:4 net:[{inode}] {path} rw - nsfs nsfs rw\n"))
            .collect();
        self.file("proc/self/mountinfo", &rows);
    }

    /// The namespace of the process that looks.
    pub(super) fn own_netns(&self, inode: u32) {
        self.link_netns("self", inode);
    }

    pub(super) fn process(&self, pid: u32, inode: u32, cgroup: &str, started: u64) {
        self.link_netns(&pid.to_string(), inode);
        self.file(&format!("proc/{pid}/cgroup"), cgroup);
        let stat = format!("{pid} (a b) c) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0");
        self.file(&format!("proc/{pid}/stat"), &stat);
    }

    /// Turns a process into a kernel thread.
    pub(super) fn kernel_thread(&self, pid: u32) {
        let stat = format!("{pid} (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 0 0 0");
        self.file(&format!("proc/{pid}/stat"), &stat);
    }

    pub(super) fn end_process(&self, pid: u32) {
        self.remove(&format!("proc/{pid}"));
    }

    pub(super) fn daemon(&self, pid: u32, arguments: &str, user: u32, cgroup: &str) {
        self.file(&format!("proc/{pid}/comm"), "dockerd\n");
        self.file(&format!("proc/{pid}/cmdline"), arguments);
        self.file(&format!("proc/{pid}/cgroup"), cgroup);
        self.file(
            &format!("proc/{pid}/status"),
            &format!("Name:\tdockerd\nUid:\t{user}\t{user}\t{user}\t{user}\n"),
        );
    }
}
