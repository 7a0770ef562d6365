//! Who holds a socket: from its inode to processes, by the links in `/proc/PID/fd`.
//!
//! An index of what a look at `/proc` found is kept; each holder in it is looked at again before it is named.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::{netns, processes};

/// Sockets in the index, held by somebody or known to be held by nobody.
const SOCKETS: usize = 1 << 16;

/// Descriptors of one process that are looked at.
const DESCRIPTORS: usize = 1 << 16;

/// Holders of one socket that are kept apart; the others only count.
const HOLDERS: usize = 64;

/// How long a look is good: then others may hold the socket as well, by fork() or by passing it on. Holders that were
/// seen are named for longer, where there is no time for another look.
const FRESH: Duration = Duration::from_secs(1);

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its id.
    pub(super) pid: u32,
    /// When it started, in clock ticks since boot: together with the id this is one process.
    pub(super) started: u64,
    /// A descriptor of the socket.
    descriptor: u32,
}

/// What a look at `/proc` found of one socket.
#[derive(Clone, Debug, Default)]
struct Known {
    holders: Vec<Holder>,
    /// Holders beyond those.
    more: u32,
    looked: Option<Instant>,
}

/// The holders of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// By process id, ascending.
    pub(super) processes: Vec<Holder>,
    /// How many there are, those beyond the list with them.
    pub(super) count: u32,
    /// How long a look at all processes took, if there was one.
    pub(super) searched: Duration,
}

/// The index.
#[derive(Debug)]
pub(super) struct Sockets {
    proc_root: PathBuf,
    known: HashMap<u64, Known>,
}

impl Sockets {
    /// Reads nothing yet.
    pub(super) fn new(proc_root: PathBuf) -> Self {
        Self { proc_root, known: HashMap::new() }
    }

    /// The processes that hold the socket `inode`, made in the namespace `netns` or known to be there: of that
    /// namespace when some of them are, else of any. Nobody where `budget` allows no look and none was made.
    pub(super) fn holders(&mut self, inode: u64, netns: u32, budget: &mut Budget, now: Instant) -> Holders {
        if inode == 0 {
            return Holders::default();
        }
        let proc_root = &self.proc_root;
        let (mut fresh, mut ended) = (false, false);
        if let Some(known) = self.known.get_mut(&inode) {
            let before = known.holders.len();
            known.holders.retain(|holder| holder.holds(proc_root, inode));
            ended = known.holders.len() < before;
            fresh = known.looked.is_some_and(|looked| now.saturating_duration_since(looked) < FRESH);
        }
        let mut searched = Duration::ZERO;
        // One that has let it go may have passed it on.
        if (!fresh || ended) && budget.allows(now) {
            let began = Instant::now();
            self.look(inode, netns, now);
            searched = began.elapsed();
            budget.spend(now, searched);
        }
        let known = self.known.get(&inode).cloned().unwrap_or_default();
        let listed = u32::try_from(known.holders.len()).unwrap_or(u32::MAX);
        Holders { count: listed.saturating_add(known.more), processes: known.holders, searched }
    }

    /// Looks at the descriptors of all processes of the namespace, and when none of them holds the socket at those of
    /// all others.
    fn look(&mut self, wanted: u64, netns: u32, now: Instant) {
        let mut found: HashMap<u64, Known> = HashMap::new();
        let mut others = Vec::new();
        for pid in processes::pids(&self.proc_root) {
            let inside = netns::inode_of_link(&processes::link(&self.proc_root, pid));
            if inside.is_ok_and(|inode| inode == netns) {
                index(&self.proc_root, pid, &mut found, |_| true);
            } else {
                others.push(pid);
            }
        }
        if !found.contains_key(&wanted) {
            for pid in others {
                index(&self.proc_root, pid, &mut found, |inode| inode == wanted);
            }
        }
        found.entry(wanted).or_default();
        if self.known.len() + found.len() > SOCKETS {
            self.known.clear();
        }
        for (inode, mut known) in found {
            known.looked = Some(now);
            known.holders.sort_unstable_by_key(|holder| holder.pid);
            self.known.insert(inode, known);
        }
    }
}

impl Holder {
    /// Whether a process of this id has the socket by this descriptor.
    pub(super) fn has(&self, proc_root: &Path, inode: u64) -> bool {
        let link = proc_root.join(format!("{}/fd/{}", self.pid, self.descriptor));
        socket_of_link(&link) == Some(inode)
    }

    /// Whether it still is this process, and holds the socket.
    fn holds(&self, proc_root: &Path, inode: u64) -> bool {
        self.has(proc_root, inode) && processes::start_time(proc_root, self.pid) == Some(self.started)
    }
}

/// Adds the sockets of a process that are `wanted`.
fn index(proc_root: &Path, pid: u32, found: &mut HashMap<u64, Known>, wanted: impl Fn(u64) -> bool) {
    // It may have ended, or be closed to us: then it is no holder that could be named.
    let Ok(entries) = fs::read_dir(proc_root.join(format!("{pid}/fd"))) else { return };
    let mut started = None;
    for entry in entries.flatten().take(DESCRIPTORS) {
        let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(inode) = socket_of_link(&entry.path()).filter(|inode| wanted(*inode)) else { continue };
        if found.len() >= SOCKETS && !found.contains_key(&inode) {
            return;
        }
        let known = found.entry(inode).or_default();
        // A process may hold it by several descriptors.
        if known.holders.last().is_some_and(|last| last.pid == pid) {
            continue;
        }
        if started.is_none() {
            started = processes::start_time(proc_root, pid);
        }
        let Some(started) = started else { return };
        if known.holders.len() < HOLDERS {
            known.holders.push(Holder { pid, started, descriptor });
        } else {
            known.more = known.more.saturating_add(1);
        }
    }
}

/// The inode of the socket that a link in `/proc/PID/fd` leads to: `socket:[123]`.
fn socket_of_link(link: &Path) -> Option<u64> {
    inode_in(fs::read_link(link).ok()?.to_str()?)
}

fn inode_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    const WEB: u32 = 4_026_532_177;
    const OTHER: u32 = 4_026_532_281;

    /// An index, a clock that only the test moves, and a budget without end.
    struct Watch {
        sockets: Sockets,
        now: Instant,
    }

    impl Watch {
        fn new(tree: &Tree) -> Self {
            Self { sockets: Sockets::new(tree.proc_root()), now: Instant::now() }
        }

        fn pids(&mut self, inode: u64) -> Vec<u32> {
            let mut budget = Budget::new(0);
            let holders = self.sockets.holders(inode, WEB, &mut budget, self.now);
            assert_eq!(holders.count as usize, holders.processes.len());
            holders.processes.iter().map(|holder| holder.pid).collect()
        }
    }

    #[test]
    fn holders_are_those_of_the_namespace_first() {
        let tree = Tree::new();
        tree.process(10, WEB, "0::/\n", 100);
        tree.descriptor(10, 5, "socket:[77]");
        tree.descriptor(10, 6, "socket:[77]");
        tree.descriptor(10, 7, "/dev/null");
        tree.process(9, WEB, "0::/\n", 101);
        tree.descriptor(9, 5, "socket:[77]");
        tree.process(1, OTHER, "0::/\n", 1);
        tree.descriptor(1, 3, "socket:[77]");
        tree.descriptor(1, 4, "socket:[88]");
        let mut watch = Watch::new(&tree);
        assert_eq!(watch.pids(77), [9, 10]);
        assert_eq!(watch.pids(88), [1], "nobody in the namespace holds it");
        assert_eq!(watch.pids(99), [0; 0]);
        assert_eq!(watch.pids(0), [0; 0]);
    }

    #[test]
    fn a_holder_that_has_gone_is_not_named() {
        let tree = Tree::new();
        tree.process(10, WEB, "0::/\n", 100);
        tree.descriptor(10, 5, "socket:[77]");
        let mut watch = Watch::new(&tree);
        assert_eq!(watch.pids(77), [10]);
        // The number passes to another process with a descriptor of the same name.
        tree.end_process(10);
        tree.process(10, WEB, "0::/\n", 200);
        tree.descriptor(10, 5, "socket:[78]");
        assert_eq!(watch.pids(77), [0; 0]);
        // One that started at another time is another process: it is found by a look of its own.
        tree.process(11, WEB, "0::/\n", 201);
        tree.descriptor(11, 5, "socket:[77]");
        watch.now += FRESH;
        assert_eq!(watch.pids(77), [11]);
        tree.process(11, WEB, "0::/\n", 300);
        assert_eq!(watch.pids(77), [11]);
    }

    #[test]
    fn who_shares_it_later_is_seen_later() {
        let tree = Tree::new();
        tree.process(10, WEB, "0::/\n", 100);
        tree.descriptor(10, 5, "socket:[77]");
        let mut watch = Watch::new(&tree);
        assert_eq!(watch.pids(77), [10]);
        tree.process(11, WEB, "0::/\n", 200);
        tree.descriptor(11, 5, "socket:[77]");
        assert_eq!(watch.pids(77), [10]);
        watch.now += FRESH;
        assert_eq!(watch.pids(77), [10, 11]);
    }

    #[test]
    fn many_holders_are_counted() {
        let tree = Tree::new();
        for pid in 1..=HOLDERS as u32 + 3 {
            tree.process(pid, WEB, "0::/\n", 100);
            tree.descriptor(pid, 5, "socket:[77]");
        }
        let mut sockets = Sockets::new(tree.proc_root());
        let holders = sockets.holders(77, WEB, &mut Budget::new(0), Instant::now());
        assert_eq!((holders.processes.len(), holders.count), (HOLDERS, HOLDERS as u32 + 3));
    }

    #[test]
    fn without_a_budget_nothing_is_read() {
        let tree = Tree::new();
        tree.process(10, WEB, "0::/\n", 100);
        tree.descriptor(10, 5, "socket:[77]");
        let (mut sockets, mut budget, now) =
            (Sockets::new(tree.proc_root()), Budget::new(20), Instant::now());
        budget.spend(now, Duration::from_secs(100));
        assert_eq!(sockets.holders(77, WEB, &mut budget, now), Holders::default());
    }

    proptest::proptest! {
        #[test]
        fn any_link_is_survived(link: String, number in 0u64..) {
            let _ = inode_in(&link);
            assert_eq!(inode_in(&format!("socket:[{number}]")), Some(number));
        }
    }
}
