//! The process behind a socket: of those that hold it the one that explains most, and what it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::netns::NetnsId;
use super::sockets::{Holder, Holders, Sockets};
use super::task::{self, Doing};
use super::{Attributor, Container, Evidence, HostPaths, SCAN_SHARE, cgroup, processes};
use crate::process::{Process, ProcessEvidence};

/// How long an answer is good: a flood of drops looks at a process once.
const FRESH: Duration = Duration::from_millis(100);

/// Answers that are remembered; they are stale soon, so forgetting all of them costs little.
const REMEMBERED: usize = 1024;

/// A socket whose owner is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Inode of the socket.
    pub inode: u64,
    /// Its namespace.
    pub netns: NetnsId,
    /// How the socket is known.
    pub evidence: ProcessEvidence,
    /// Whether it matters what the process does.
    pub state: bool,
}

/// A process that holds a socket, and what is known of it.
type Owner = (Holder, Process);

/// What is known of sockets and of their owners.
pub(super) struct Owners {
    sockets: Sockets,
    /// For looks at all processes.
    search: Budget,
    /// For looks at owners.
    watch: Budget,
    answers: HashMap<(u64, bool), (Instant, Option<Owner>)>,
    /// By process id and start.
    containers: HashMap<(u32, u64), Option<Arc<Container>>>,
}

impl Owners {
    /// Reads nothing yet.
    pub(super) fn new(paths: &HostPaths) -> Self {
        Self {
            sockets: Sockets::new(paths.proc_root.clone()),
            search: Budget::new(2 * SCAN_SHARE),
            watch: Budget::new(2 * SCAN_SHARE),
            answers: HashMap::new(),
            containers: HashMap::new(),
        }
    }
}

impl Attributor {
    /// The process that holds a socket. Of several, the one that explains why the socket is not served: a process in
    /// uninterruptible sleep before a stopped one, before one that has ended, sleeps or runs; of those alike the
    /// highest id, which is a worker's rather than its parent's.
    ///
    /// Processes are searched for once a second for each socket, and looked at ten times, as far as each stays within a
    /// fortieth of a CPU: nobody is named where that does not do.
    pub fn owner(&mut self, wanted: Wanted) -> Option<Process> {
        self.owner_at(wanted, Instant::now())
    }

    fn owner_at(&mut self, wanted: Wanted, now: Instant) -> Option<Process> {
        let key = (wanted.inode, wanted.state);
        if let Some((when, answer)) = self.owners.answers.get(&key)
            && now.saturating_duration_since(*when) < FRESH
        {
            match answer {
                None => return None,
                // One look at a link for each drop: a process that has let the socket go is never named.
                Some((holder, process)) if holder.has(&self.paths.proc_root, wanted.inode) => {
                    return Some(Process { evidence: wanted.evidence, ..process.clone() });
                }
                Some(_) => {}
            }
        }
        let answer = self.look_for_owner(wanted, now);
        if self.owners.answers.len() >= REMEMBERED {
            self.owners.answers.clear();
        }
        self.owners.answers.insert(key, (now, answer.clone()));
        answer.map(|(_, process)| process)
    }

    fn look_for_owner(&mut self, wanted: Wanted, now: Instant) -> Option<Owner> {
        let Owners { sockets, search, watch, .. } = &mut self.owners;
        if !watch.allows(now) {
            return None;
        }
        let began = Instant::now();
        let holders = sockets.holders(wanted.inode, wanted.netns.inode, search, now);
        let found = self.describe_owner(wanted, &holders);
        self.owners.watch.spend(now, began.elapsed().saturating_sub(holders.searched));
        found
    }

    /// The holder that explains most, and what is known of it.
    fn describe_owner(&mut self, wanted: Wanted, holders: &Holders) -> Option<Owner> {
        let (holder, doing) = if wanted.state {
            let proc_root = &self.paths.proc_root;
            let doing = |holder: &Holder| (*holder, task::doing(proc_root, holder.pid));
            holders.processes.iter().map(doing).min_by_key(rank)?
        } else {
            (*holders.processes.last()?, None)
        };
        let comm = processes::text(&self.paths.proc_root, holder.pid, "comm")?;
        let comm = comm.strip_suffix('\n').unwrap_or(&comm).to_owned();
        let container = self.container_of(holder);
        let (state, wchan, thread) =
            doing.map_or((None, None, None), |doing| (Some(doing.state.as_str()), doing.wchan, doing.thread));
        let process = Process {
            owners: Some(holders.count),
            state,
            wchan,
            thread,
            container,
            ..Process::new(holder.pid, comm, wanted.evidence)
        };
        Some((holder, process))
    }

    /// The container that the process's cgroup names.
    fn container_of(&mut self, holder: Holder) -> Option<Arc<Container>> {
        let key = (holder.pid, holder.started);
        if let Some(known) = self.owners.containers.get(&key) {
            return known.clone();
        }
        let text = processes::text(&self.paths.proc_root, holder.pid, "cgroup")?;
        let claim = cgroup::claim(&text).map(processes::OwnedClaim::from);
        let container = claim.and_then(|claim| self.describe(claim, Evidence::Cgroup)).map(Arc::new);
        if self.owners.containers.len() >= REMEMBERED {
            self.owners.containers.clear();
        }
        self.owners.containers.insert(key, container.clone());
        container
    }
}

/// The order in which processes explain why a socket is not served; those of which nothing is known come last.
fn rank((holder, doing): &(Holder, Option<Doing>)) -> impl Ord + use<> {
    let state = doing.as_ref().map(|doing| doing.state);
    (state.is_none(), state, std::cmp::Reverse(holder.pid))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    const A: &str = "49b4a2dd83aee2e0a6a1ba5b3bbd9a6f0e1e3b5c7d9f0a1b2c3d4e5f60718293";
    const WEB: u32 = 4_026_532_177;

    fn worker(tree: &Tree, pid: u32, letter: char, wchan: &str) {
        tree.process(pid, WEB, &format!("0::/docker/{A}\n"), 100);
        tree.file(&format!("proc/{pid}/comm"), "nginx\n");
        tree.descriptor(pid, 5, "socket:[77]");
        tree.file(&format!("proc/{pid}/task/{pid}/stat"), &format!("{pid} (nginx) {letter} 1 1"));
        tree.file(&format!("proc/{pid}/task/{pid}/wchan"), wchan);
    }

    fn wanted(state: bool) -> Wanted {
        let netns = NetnsId { inode: WEB, cookie: 17 };
        Wanted { inode: 77, netns, evidence: ProcessEvidence::Socket, state }
    }

    #[test]
    fn the_holder_that_is_stuck_most_is_the_owner() {
        let tree = Tree::new();
        worker(&tree, 10, 'S', "sigsuspend");
        worker(&tree, 11, 'D', "nfs_wait_bit_killable");
        worker(&tree, 12, 'S', "ep_poll");
        let mut attributor = Attributor::new(tree.paths());
        let owner = attributor.owner(wanted(true)).unwrap();
        assert_eq!((owner.pid, owner.comm.as_str(), owner.owners), (11, "nginx", Some(3)));
        assert_eq!(
            (owner.state, owner.wchan.as_deref()),
            (Some("D uninterruptible"), Some("nfs_wait_bit_killable"))
        );
        let container = owner.container.unwrap();
        assert_eq!((container.id.as_str(), container.evidence), (A, Evidence::Cgroup));
        // Where the state does not matter it is not read.
        let owner = attributor.owner(wanted(false)).unwrap();
        assert_eq!((owner.pid, owner.state), (12, None));
    }

    #[test]
    fn an_answer_is_good_for_a_moment() {
        let tree = Tree::new();
        worker(&tree, 10, 'S', "ep_poll");
        let mut attributor = Attributor::new(tree.paths());
        let now = Instant::now();
        let state = |attributor: &mut Attributor, now| attributor.owner_at(wanted(true), now).unwrap().state;
        assert_eq!(state(&mut attributor, now), Some("S sleeping"));
        tree.file("proc/10/task/10/stat", "10 (nginx) T 1 1");
        assert_eq!(state(&mut attributor, now), Some("S sleeping"));
        assert_eq!(state(&mut attributor, now + FRESH), Some("T stopped"));
        tree.end_process(10);
        assert_eq!(attributor.owner_at(wanted(true), now + FRESH), None, "not one that has ended");
    }
}
