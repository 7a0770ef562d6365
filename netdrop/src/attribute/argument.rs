//! What a `--netns` argument means: a name, an inode, a path or a process.

use std::io;
use std::path::{Path, PathBuf};

use super::netns::{self, HOST, NetnsId, NetnsNames};
use super::untrusted::printable;
use super::{nsfs, processes};

/// Names offered for a misspelt one.
const SUGGESTIONS: usize = 5;

/// Similarity from which a name is offered: two swapped letters of three still count.
const SIMILAR: f64 = 0.6;

/// Why a `--netns` argument names no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No namespace has the name.
    #[error("no network namespace is called '{}'; {}", printable(name), advice(similar))]
    UnknownName {
        /// The argument.
        name: String,
        /// Names that look like it, or all when there are few.
        similar: Vec<String>,
    },
    /// No namespace has the inode.
    #[error(
        "no network namespace with inode {inode} is mounted or has a process that can be seen; `lsns -t net` lists \
         them"
    )]
    UnknownInode {
        /// The argument.
        inode: u32,
    },
    /// The process is not there, or what it is in cannot be read.
    #[error(
        "cannot read the network namespace of process {pid}: {source}; {}",
        match source.kind() {
            io::ErrorKind::NotFound => "is it still running, and numbered as in this PID namespace?",
            io::ErrorKind::PermissionDenied => "CAP_SYS_PTRACE is needed for other users' processes",
            _ => "give a name, an inode or a path instead",
        }
    )]
    Process {
        /// The process.
        pid: u32,
        /// What reading failed with.
        source: io::Error,
    },
    /// The path cannot be opened or is something else.
    #[error(
        "{} is no network namespace that can be opened: {source}; such paths are /run/netns/NAME and \
         /proc/PID/ns/net",
        path.display()
    )]
    Path {
        /// The argument.
        path: PathBuf,
        /// What opening failed with.
        source: io::Error,
    },
    /// What follows `pid:` is no number.
    #[error("'{}' is no process: pid: takes a number, as in pid:4711", printable(argument))]
    NotAProcess {
        /// The argument.
        argument: String,
    },
    /// The list of mounts could not be read.
    #[error("cannot read the mounted network namespaces: {source}; is /proc mounted here?")]
    Mounts {
        /// What reading failed with.
        source: io::Error,
    },
}

fn advice(similar: &[String]) -> String {
    match similar {
        [] => "no named one exists here; give an inode, a path or pid:N instead".into(),
        names => format!(
            "similar or known: {}; an inode, a path or pid:N will do as well",
            names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The namespace that a `--netns` argument means: `NAME` as in `ip netns`, `INODE`, a path, `pid:N`, or
/// `host` and `self` where no namespace has that name.
pub fn resolve_argument(argument: &str, proc_root: &Path) -> Result<NetnsId, NetnsError> {
    if let Some(pid) = argument.strip_prefix("pid:") {
        let pid = pid.parse().map_err(|_| NetnsError::NotAProcess { argument: pid.to_owned() })?;
        return of_process(pid, proc_root);
    }
    if argument.contains('/') {
        let path = PathBuf::from(argument);
        return nsfs::identify(&path).map_err(|source| NetnsError::Path { path, source });
    }
    let names = NetnsNames::load(proc_root).map_err(|source| NetnsError::Mounts { source })?;
    if let Some(mount) = names.named(argument) {
        return Ok(mount.identify());
    }
    match argument {
        HOST if let Some(host) = names.host() => return Ok(host),
        "self" => {
            let path = proc_root.join("self/ns/net");
            return netns::identify_link(&path)
                .ok_or_else(|| NetnsError::Path { path, source: io::ErrorKind::NotFound.into() });
        }
        _ => {}
    }
    match argument.parse() {
        Ok(inode) => of_inode(inode, &names, proc_root).ok_or(NetnsError::UnknownInode { inode }),
        Err(_) => {
            Err(NetnsError::UnknownName { name: argument.to_owned(), similar: similar(argument, &names) })
        }
    }
}

fn of_process(pid: u32, proc_root: &Path) -> Result<NetnsId, NetnsError> {
    let link = processes::link(proc_root, pid);
    let inode = netns::inode_of_link(&link).map_err(|source| NetnsError::Process { pid, source })?;
    Ok(netns::identify_link(&link).unwrap_or(NetnsId { inode, cookie: 0 }))
}

fn of_inode(inode: u32, names: &NetnsNames, proc_root: &Path) -> Option<NetnsId> {
    if let Some(host) = names.host().filter(|host| host.inode == inode) {
        return Some(host);
    }
    if let Some(mount) = names.mounts().iter().find(|mount| mount.inode == inode) {
        return Some(mount.identify());
    }
    let of_processes = processes::namespaces(proc_root).by_inode;
    let pids = of_processes.get(&inode)?;
    let known = pids.iter().find_map(|pid| {
        let id = netns::identify_link(&processes::link(proc_root, *pid))?;
        (id.inode == inode).then_some(id)
    });
    Some(known.unwrap_or(NetnsId { inode, cookie: 0 }))
}

/// Names like `wrong`, the most similar first; with few names to choose from, all of them.
fn similar(wrong: &str, names: &NetnsNames) -> Vec<String> {
    let similarity = |name: &str| {
        strsim::jaro_winkler(name, wrong).max(strsim::normalized_damerau_levenshtein(name, wrong))
    };
    let known = names.names().chain(names.host().map(|_| HOST));
    let mut scored: Vec<(f64, &str)> = known.map(|name| (similarity(name), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let few = scored.len() <= SUGGESTIONS;
    scored
        .into_iter()
        .filter(|(score, _)| few || *score >= SIMILAR)
        .take(SUGGESTIONS)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.mountinfo(&[
            (4_026_532_177, "/run/netns/web"),
            (4_026_532_281, "/run/netns/db"),
            (7, "/run/netns/42"),
        ]);
        tree.process(2, 4_026_531_833, "0::/\n", 0);
        tree.kernel_thread(2);
        tree.process(100, 4_026_532_900, "0::/\n", 500);
        tree.own_netns(4_026_532_177);
        tree
    }

    fn inode(tree: &Tree, argument: &str) -> u32 {
        resolve_argument(argument, &tree.proc_root()).unwrap().inode
    }

    fn error(tree: &Tree, argument: &str) -> String {
        resolve_argument(argument, &tree.proc_root()).unwrap_err().to_string()
    }

    #[test]
    fn every_form_is_understood() {
        let tree = tree();
        assert_eq!(inode(&tree, "web"), 4_026_532_177);
        assert_eq!(inode(&tree, "4026532281"), 4_026_532_281);
        assert_eq!(inode(&tree, "4026532900"), 4_026_532_900);
        assert_eq!(inode(&tree, "pid:100"), 4_026_532_900);
        assert_eq!(inode(&tree, "host"), 4_026_531_833);
        assert_eq!(inode(&tree, "4026531833"), 4_026_531_833);
        assert_eq!(inode(&tree, "self"), 4_026_532_177);
        // A name wins over the number that it looks like.
        assert_eq!(inode(&tree, "42"), 7);
    }

    #[test]
    fn paths_are_opened_for_real() {
        let own = resolve_argument("/proc/self/ns/net", Path::new("/proc")).unwrap();
        assert_eq!(own, resolve_argument("self", Path::new("/proc")).unwrap());
        assert_eq!(
            own,
            resolve_argument(&format!("pid:{}", std::process::id()), Path::new("/proc")).unwrap()
        );
        assert_eq!(own, resolve_argument(&own.inode.to_string(), Path::new("/proc")).unwrap());
        let message = resolve_argument("/proc/self/ns/uts", Path::new("/proc")).unwrap_err().to_string();
        assert!(
            message.contains("not a network namespace") && message.contains("/run/netns/NAME"),
            "{message}"
        );
    }

    #[test]
    fn errors_name_the_next_step() {
        let tree = tree();
        assert!(error(&tree, "wbe").contains("web"), "{}", error(&tree, "wbe"));
        assert!(error(&tree, "9999").contains("lsns"));
        assert!(error(&tree, "pid:12345").contains("still running"));
        assert!(error(&tree, "pid:x").contains("pid:4711"));
        assert!(error(&tree, "").contains("no network namespace"));
        assert!(error(&tree, "a\x1b[31m").contains("a\\u{1b}[31m"));
        let bare = Tree::new();
        bare.mountinfo(&[]);
        assert!(error(&bare, "web").contains("no named one exists"));
        assert!(error(&Tree::new(), "web").contains("mounted"));
    }
}
