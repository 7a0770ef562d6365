//! A test's own corner of the machine: what it needs, and namespaces with unique names.

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::global;
use crate::netns::Netns;

/// Every namespace made here starts with this, so that leftovers can be recognised.
pub const PREFIX: &str = "ndt-";

/// When this is `1`, a scenario that cannot run for a reason that can be repaired fails instead of being
/// skipped.
pub const STRICT: &str = "NETDROP_TESTS_STRICT";

/// Distinguishes the labs of one test process.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Namespaces of one test.
pub struct Lab {
    prefix: String,
    macs: Cell<u8>,
    alone: bool,
    /// Held for as long as the lab stands.
    _lock: File,
}

impl Lab {
    /// A lab for the scenario `name`, or `None`, after a visible `SKIP`, when this machine cannot run it.
    ///
    /// Every scenario needs root and `ip`; `tools` names what it needs besides.
    #[track_caller]
    pub fn new(name: &str, tools: &[&str]) -> Option<Self> {
        Self::make(name, tools, false)
    }

    /// A lab that waits until no other one stands, and lets none be made until it is gone: for scenarios that
    /// change a setting of the whole machine, see [`Lab::global_sysctl`].
    #[track_caller]
    pub fn alone(name: &str, tools: &[&str]) -> Option<Self> {
        Self::make(name, tools, true)
    }

    /// What the names of everything in this lab begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is the only lab.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    #[track_caller]
    fn make(name: &str, tools: &[&str], alone: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip(name, "needs root: run `cargo xtask test`, which uses sudo");
            return None;
        }
        for tool in ["ip"].iter().chain(tools) {
            if !on_path(tool) {
                skip(name, &format!("needs `{tool}`: run `cargo xtask test`, which installs it"));
                return None;
            }
        }
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{lab}-{name}", process::id());
        Some(Self { prefix, macs: Cell::new(0), alone, _lock: global::lock(alone) })
    }

    /// A namespace with `lo` up and IPv6 off.
    #[track_caller]
    pub fn netns(&self, role: &str) -> Netns {
        Netns::create(format!("{}-{role}", self.prefix), false)
    }

    /// A namespace with `lo` up and IPv6 on, without duplicate address detection.
    #[track_caller]
    pub fn netns_with_ipv6(&self, role: &str) -> Netns {
        Netns::create(format!("{}-{role}", self.prefix), true)
    }

    /// A MAC address that no other interface of this lab has.
    pub(crate) fn mac(&self) -> [u8; 6] {
        let serial = self.macs.get() + 1;
        self.macs.set(serial);
        [0x02, 0x4e, 0x44, 0, 0, serial]
    }
}

/// Says that a scenario does not run, or fails it when [`STRICT`] is set.
#[track_caller]
fn skip(name: &str, why: &str) {
    assert!(env::var_os(STRICT).is_none_or(|value| value != "1"), "SKIP is not allowed here: {name}: {why}");
    say_skip(name, why);
}

/// Says that the running test does not run, by its own name, under which the test runner counts it as passed.
/// A single-threaded runner names no threads: `name` has to do then.
pub fn say_skip(name: &str, why: &str) {
    let thread = thread::current();
    let test = thread.name().filter(|test| *test != "main").unwrap_or(name);
    say(&format!("SKIP: {test}: {why}"));
}

/// Says that a scenario does not run because this kernel lacks a feature. Not an error under [`STRICT`]:
/// nothing on this machine can repair it. `refusal` is what the tool said; anything but the kernel's own
/// words for a missing feature fails the test.
#[track_caller]
pub fn skip_for_kernel(name: &str, feature: &str, refusal: &str) {
    const KERNEL_LACKS_IT: [&str; 7] = [
        // nft: EOPNOTSUPP, or ENOENT for a module that does not exist.
        "Could not process rule: Operation not supported",
        "Could not process rule: No such file or directory",
        // tc
        "Specified qdisc kind is unknown",
        "Specified qdisc not found",
        // iptables
        "missing kernel module",
        "Table does not exist",
        "No chain/target/match by that name",
    ];
    let lacks = KERNEL_LACKS_IT.iter().any(|words| refusal.contains(words));
    assert!(lacks, "{name}: {feature} was refused, but not because the kernel lacks it: {refusal}");
    say_skip(name, &format!("this kernel has no {feature}: {}", refusal.trim()));
}

/// Says that a scenario does not run because it needs more CPUs than this machine has.
pub fn skip_for_cpus(name: &str, needed: usize) {
    say_skip(name, &format!("needs {needed} CPUs"));
}

/// Writes to the real stderr: the test runner captures what the print macros write and shows it for
/// failed tests only.
pub fn say(line: &str) {
    // Nobody to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether `tool` is an executable of the search path.
fn on_path(tool: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| Path::new(&dir).join(tool).is_file()))
}
