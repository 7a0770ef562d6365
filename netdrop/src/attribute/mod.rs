//! Whose packet: from the network namespace of a drop to its name and container.
//!
//! One file per source: [`netns`] has identities and names, `processes` who is in a namespace, `cgroup`
//! which container a process belongs to, `sockets` who holds a socket and `task` what that process does, `owner` puts
//! these together, and one file per engine what that container is called. Another
//! source is another file, and a line where [`Attributor`] asks them in turn.

mod argument;
mod budget;
mod cgroup;
mod docker;
#[cfg(test)]
mod fixture;
pub mod netns;
mod nsfs;
mod owner;
mod processes;
mod sockets;
mod task;
pub(crate) mod untrusted;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeStruct, Serializer};

use self::docker::Docker;
use self::netns::{NetnsId, NetnsNames};
use self::owner::Owners;
use self::untrusted::printable;

pub use self::owner::Wanted;

/// Answers that are remembered; the least recently asked go first.
const REMEMBERED: usize = 4096;

/// Least time between two scans of `/proc`, and how many times longer than the last one took: scanning
/// may not take more than a twentieth of a CPU.
const SCAN_PAUSE: Duration = Duration::from_millis(50);
const SCAN_SHARE: u32 = 20;

/// When a namespace that has no container is looked at again, first and at most: engines create the
/// namespace before the container's first process, but most namespaces without a container never get one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// How long an answer is good for a namespace without a cookie: its inode may be another's by then.
const WITHOUT_COOKIE: Duration = Duration::from_secs(1);

/// Where the machine's files are, for a netdrop that itself runs in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// The machine's procfs.
    pub proc_root: PathBuf,
    /// The machine's root directory.
    pub host_root: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self { proc_root: "/proc".into(), host_root: "/".into() }
    }
}

impl HostPaths {
    /// Where a file with this absolute path on the machine is for us.
    fn on_host(&self, path: &str) -> PathBuf {
        self.host_root.join(path.trim_start_matches('/'))
    }
}

/// How it is known that a container is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The drop happened in its network namespace.
    Netns,
    /// A process in its cgroup is concerned.
    Cgroup,
}

impl Evidence {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Cgroup => "cgroup",
        }
    }
}

/// A container; serializes as the `container` object of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine, `docker`.
    pub runtime: &'static str,
    /// The engine's full id.
    pub id: String,
    /// Its name; `None` where the engine's state was not found.
    pub name: Option<String>,
    /// The image as it was asked for.
    pub image: Option<String>,
    /// How it is known.
    pub evidence: Evidence,
}

impl Container {
    /// What to call it in a line of text: the name, else the short id as engines print it.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id))
    }
}

impl Serialize for Container {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Container", 8)?;
        object.serialize_field("runtime", self.runtime)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("image", &self.image)?;
        // No source knows pods yet: unknown is null.
        object.serialize_field("pod", &None::<&str>)?;
        object.serialize_field("namespace", &None::<&str>)?;
        object.serialize_field("pod_uid", &None::<&str>)?;
        object.serialize_field("evidence", self.evidence.name())?;
        object.end()
    }
}

/// What is known of a network namespace. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// Its name: `host`, or as in `ip netns`.
    pub netns_name: Option<Arc<str>>,
    /// The container it belongs to; of several that share it, the one that was there first.
    pub container: Option<Arc<Container>>,
}

/// One namespace that exists at the time of a scan.
struct Live {
    id: NetnsId,
    name: Option<Arc<str>>,
    /// The namespace of the machine or of an engine's daemon: containers with host networking share it,
    /// none owns it.
    shared_with_host: bool,
    pids: Vec<u32>,
    /// Where it is mounted.
    mounts: Vec<PathBuf>,
}

/// A remembered answer.
struct Answer {
    attribution: Attribution,
    /// When to look again; `None` when there is nothing left to find out.
    due: Option<Instant>,
    pause: Duration,
    asked: Instant,
}

/// Answers whose a network namespace is.
pub struct Attributor {
    paths: HostPaths,
    docker: Docker,
    live: HashMap<u32, Live>,
    closed: usize,
    next_scan: Option<Instant>,
    scan_share: u32,
    answers: HashMap<NetnsId, Answer>,
    owners: Owners,
}

impl Attributor {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(paths: HostPaths) -> Self {
        Self {
            docker: Docker::new(paths.clone()),
            owners: Owners::new(&paths),
            paths,
            live: HashMap::new(),
            closed: 0,
            next_scan: None,
            scan_share: SCAN_SHARE,
            answers: HashMap::new(),
        }
    }

    /// What is known of the namespace `id`. A hit costs a look into a table; an unknown namespace costs a
    /// scan of `/proc`, unless one was made just before.
    pub fn lookup(&mut self, id: NetnsId) -> Attribution {
        self.lookup_at(id, Instant::now())
    }

    /// Processes that the last scan was not allowed to look into: containers of theirs stay unnamed.
    #[must_use]
    pub fn closed_processes(&self) -> usize {
        self.closed
    }

    /// Opens the namespace `id`, as the last scan knows it: by a mount, else by one of its processes. What is open keeps
    /// the namespace alive, so it is to be closed soon.
    #[must_use]
    pub fn open(&self, id: NetnsId) -> Option<OwnedFd> {
        let live = self.live.get(&id.inode).filter(|live| live.id.may_be(id))?;
        let links = live.pids.iter().map(|pid| processes::link(&self.paths.proc_root, *pid));
        live.mounts.iter().cloned().chain(links).find_map(|path| nsfs::open(&path, id.inode).ok())
    }

    fn lookup_at(&mut self, id: NetnsId, now: Instant) -> Attribution {
        if id.inode == 0 {
            return Attribution::default();
        }
        let may_scan = self.next_scan.is_none_or(|next| now >= next);
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.asked = now;
            if !may_scan || answer.due.is_none_or(|due| now < due) {
                return answer.attribution.clone();
            }
        }
        if may_scan {
            let began = Instant::now();
            self.scan();
            self.next_scan = Some(now + SCAN_PAUSE.max(began.elapsed() * self.scan_share));
        }
        self.answer(id, now, may_scan)
    }

    /// Answers from the last scan, which is `fresh` or from before the namespace was asked for, and
    /// remembers the answer.
    fn answer(&mut self, id: NetnsId, now: Instant, fresh: bool) -> Attribution {
        let (mut attribution, complete) = self.resolve(id);
        let before = self.answers.remove(&id);
        let pause = match &before {
            _ if !fresh => Duration::ZERO,
            None => FIRST_RETRY,
            Some(before) => (before.pause * 2).clamp(FIRST_RETRY, LAST_RETRY),
        };
        if id.cookie != 0
            && let Some(before) = before
        {
            // A cookie is one namespace for ever: what was true of it stays true when it has ended.
            attribution.netns_name = attribution.netns_name.or(before.attribution.netns_name);
            attribution.container = attribution.container.or(before.attribution.container);
        }
        let due = match (complete, id.cookie) {
            (true, 0) => Some(now + WITHOUT_COOKIE),
            (false, 0) => Some(now + pause.min(WITHOUT_COOKIE)),
            (true, _) => None,
            (false, _) => Some(now + pause),
        };
        if self.answers.len() >= REMEMBERED {
            self.forget_some();
        }
        self.answers.insert(id, Answer { attribution: attribution.clone(), due, pause, asked: now });
        attribution
    }

    /// What the last scan says, and whether there is nothing left to find out.
    fn resolve(&mut self, id: NetnsId) -> (Attribution, bool) {
        let Some(live) = self.live.get(&id.inode).filter(|live| live.id.may_be(id)) else {
            return (Attribution::default(), false);
        };
        let netns_name = live.name.clone();
        if live.shared_with_host {
            return (Attribution { netns_name, container: None }, true);
        }
        let claims = processes::containers(&self.paths.proc_root, id.inode, &live.pids);
        for claim in claims {
            let Some(container) = self.describe(claim, Evidence::Netns) else { continue };
            let complete = container.name.is_some();
            return (Attribution { netns_name, container: Some(Arc::new(container)) }, complete);
        }
        (Attribution { netns_name, container: None }, false)
    }

    /// The container that a process claims to be of; nothing where no engine has it and the claim does not name one.
    fn describe(&mut self, claim: processes::OwnedClaim, evidence: Evidence) -> Option<Container> {
        let description = self.docker.describe(&claim.id);
        if !claim.docker && description.is_none() {
            return None;
        }
        let (name, image) = description.map_or((None, None), |found| (Some(found.name), found.image));
        Some(Container { runtime: "docker", id: claim.id, name, image, evidence })
    }

    /// Looks at all namespaces that are mounted or have a process.
    fn scan(&mut self) {
        let proc_root = &self.paths.proc_root;
        // Without the mounts there are no names; the processes still tell containers.
        let names = NetnsNames::load(proc_root).unwrap_or_default();
        let found = processes::namespaces(proc_root);
        self.closed = found.closed;
        self.live.clear();
        let mut add = |id: NetnsId, pids: &[u32], mount: Option<&Path>| {
            let live = self.live.entry(id.inode).or_insert_with(|| Live {
                id,
                name: names.name(id.inode).map(|name| printable(name).into()),
                shared_with_host: names.is_host(id.inode),
                pids: Vec::new(),
                mounts: Vec::new(),
            });
            live.pids.extend_from_slice(pids);
            live.mounts.extend(mount.map(Path::to_owned));
        };
        if let Some(host) = names.host() {
            add(host, &[1], None);
        }
        for mount in names.mounts() {
            add(mount.identify(), &[], Some(&mount.path));
        }
        for (inode, pids) in &found.by_inode {
            if names.is_host(*inode) {
                continue;
            }
            // The first that is still there speaks for all.
            let id = pids.iter().find_map(|pid| netns::identify_link(&processes::link(proc_root, *pid)));
            if let Some(id) = id.filter(|id| id.inode == *inode) {
                add(id, pids, None);
            }
        }
    }

    /// Makes room: the half that was not asked for the longest time goes.
    fn forget_some(&mut self) {
        let mut asked: Vec<Instant> = self.answers.values().map(|answer| answer.asked).collect();
        let middle = asked.len() / 2;
        let (_, median, _) = asked.select_nth_unstable(middle);
        let median = *median;
        self.answers.retain(|_, answer| answer.asked > median);
    }
}

#[cfg(test)]
mod tests;
