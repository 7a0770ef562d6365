//! Settings of the whole machine: changed by a scenario that is alone, and put back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FlockOperation, flock};

use crate::lab::Lab;

/// Every lab holds it, shared or alone: also those of other checkouts and of other users.
const LOCK: &str = "/run/netdrop-tests.lock";

/// Takes the machine-wide lock and holds it until the file is closed.
#[track_caller]
pub(crate) fn lock(alone: bool) -> File {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .unwrap_or_else(|error| panic!("open {LOCK}: {error}"));
    let how = if alone { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
    flock(&file, how).unwrap_or_else(|error| panic!("lock {LOCK}: {error}"));
    file
}

/// A machine-wide sysctl with another value. The old one comes back in `Drop`.
pub struct GlobalSysctl {
    path: PathBuf,
    before: String,
}

impl Lab {
    /// Sets a sysctl that all namespaces share; `key` is the path below `/proc/sys`. Only in a lab that is
    /// [alone](Lab::alone): other scenarios would feel it.
    #[track_caller]
    pub fn global_sysctl(&self, key: &str, value: &str) -> GlobalSysctl {
        assert!(self.is_alone(), "{key} is a setting of the whole machine: make the lab with Lab::alone");
        let path = Path::new("/proc/sys").join(key);
        let before = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
            .trim_end()
            .to_owned();
        let sysctl = GlobalSysctl { path, before };
        fs::write(&sysctl.path, value)
            .unwrap_or_else(|error| panic!("write {value} to {}: {error}", sysctl.path.display()));
        sysctl
    }
}

impl Drop for GlobalSysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            let message = format!("cannot set {} back to {}: {error}", self.path.display(), self.before);
            // A second panic would end the whole test program.
            assert!(thread::panicking(), "{message}");
            eprintln!("{message}");
        }
    }
}
