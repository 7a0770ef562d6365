//! Docker's containers by id, from the state that dockerd keeps on disk. Works without the daemon.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::untrusted::{self, printable};
use super::{HostPaths, cgroup, processes};

/// Where dockerd keeps its state unless told otherwise.
const DEFAULT_ROOT: &str = "/var/lib/docker";

/// Its configuration unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/docker/daemon.json";

/// Bytes of a container's state; environment and labels can be long.
const STATE_LIMIT: usize = 4 << 20;

/// Bytes of a daemon's configuration.
const CONFIG_LIMIT: usize = 1 << 20;

/// What Docker knows of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) image: Option<String>,
}

/// The part of `config.v2.json` that is read.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: Option<StateConfig>,
}

#[derive(Deserialize)]
struct StateConfig {
    #[serde(rename = "Image")]
    image: Option<String>,
}

/// The part of `daemon.json` that is read; `graph` is what `data-root` was called before 17.05.
#[derive(Deserialize)]
struct DaemonConfig {
    #[serde(rename = "data-root", alias = "graph")]
    data_root: Option<String>,
}

/// Reads Docker's state below all data roots that are known.
pub(super) struct Docker {
    paths: HostPaths,
    roots: Vec<PathBuf>,
}

impl Docker {
    pub(super) fn new(paths: HostPaths) -> Self {
        Self { paths, roots: Vec::new() }
    }

    /// What is known of the container `id`; `None` when no data root has it.
    pub(super) fn describe(&mut self, id: &str) -> Option<Description> {
        if let Some(found) = self.roots.iter().find_map(|root| read(root, id)) {
            return Some(found);
        }
        // A daemon may have started since.
        let roots = roots(&self.paths);
        let found = roots.iter().filter(|root| !self.roots.contains(root)).find_map(|root| read(root, id));
        self.roots = roots;
        found
    }
}

fn read(root: &Path, id: &str) -> Option<Description> {
    let text = untrusted::read_beneath(root, &["containers", id, "config.v2.json"], STATE_LIMIT).ok()?;
    parse(&text, id)
}

/// Understands a `config.v2.json`; it must be the container's own.
fn parse(text: &[u8], id: &str) -> Option<Description> {
    let state: State = serde_json::from_slice(text).ok()?;
    let name = state.name.strip_prefix('/').unwrap_or(&state.name);
    if state.id != id || name.is_empty() {
        return None;
    }
    let image = state.config.and_then(|config| config.image).filter(|image| !image.is_empty());
    Some(Description { name: printable(name), image: image.as_deref().map(printable) })
}

/// The data roots: the default, the configured one, and those of daemons that run with another.
fn roots(paths: &HostPaths) -> Vec<PathBuf> {
    let mut roots = vec![paths.on_host(DEFAULT_ROOT)];
    let mut add = |root: Option<String>| {
        if let Some(root) = root.filter(|root| root.starts_with('/')).map(|root| paths.on_host(&root))
            && !roots.contains(&root)
        {
            roots.push(root);
        }
    };
    add(configured(&paths.on_host(DEFAULT_CONFIG)));
    for pid in processes::pids(&paths.proc_root).filter(|pid| is_daemon(&paths.proc_root, *pid)) {
        let Some(arguments) = processes::text(&paths.proc_root, pid, "cmdline") else { continue };
        let arguments: Vec<&str> = arguments.split('\0').collect();
        add(option(&arguments, &["--data-root", "--graph", "-g"]));
        if let Some(file) = option(&arguments, &["--config-file"]).filter(|file| file.starts_with('/')) {
            add(configured(&paths.on_host(&file)));
        }
    }
    roots
}

fn configured(file: &Path) -> Option<String> {
    let text = untrusted::read(file, CONFIG_LIMIT).ok()?;
    serde_json::from_slice::<DaemonConfig>(&text).ok()?.data_root
}

/// Whether the process is a dockerd to be believed: root's, and none that runs in a container, where
/// paths mean something else and anybody may call a process so.
fn is_daemon(proc_root: &Path, pid: u32) -> bool {
    let is_named = processes::text(proc_root, pid, "comm").is_some_and(|name| name.trim_end() == "dockerd");
    is_named
        && processes::text(proc_root, pid, "status").as_deref().and_then(real_user) == Some(0)
        && processes::text(proc_root, pid, "cgroup").is_some_and(|text| cgroup::claim(&text).is_none())
}

fn real_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// The value of the last option with one of these spellings: `--name value` or `--name=value`.
fn option(arguments: &[&str], spellings: &[&str]) -> Option<String> {
    let mut value = None;
    for (index, argument) in arguments.iter().enumerate() {
        for spelling in spellings {
            if argument == spelling {
                value = arguments.get(index + 1).copied().or(value);
            } else if let Some(rest) = argument.strip_prefix(spelling).and_then(|rest| rest.strip_prefix('='))
            {
                value = Some(rest);
            }
        }
    }
    value.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    const ID: &str = "49b4a2dd83aee2e0a6a1ba5b3bbd9a6f0e1e3b5c7d9f0a1b2c3d4e5f60718293";

    fn state(name: &str, image: &str) -> String {
        format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":4242}},"ID":"{ID}","Created":"2026-11-20T11:59:58Z",
               "Path":"/bin/httpd","Config":{{"Hostname":"49b4","Image":"{image}","Labels":{{"a":"b"}}}},"Image":"sha256:1",
               "NetworkSettings":{{"SandboxKey":"/var/run/docker/netns/1f0c2b3d4e5f"}},"Name":"{name}","Driver":"overlay2"}}"#
        )
    }

    fn described(tree: &Tree) -> Option<Description> {
        Docker::new(tree.paths()).describe(ID)
    }

    #[test]
    fn name_and_image_are_read() {
        let found = parse(state("/hc-web", "localhost/hc-bb:2").as_bytes(), ID).unwrap();
        assert_eq!(found, Description { name: "hc-web".into(), image: Some("localhost/hc-bb:2".into()) });
        assert_eq!(parse(state("/x", "").as_bytes(), ID).unwrap().image, None);
    }

    #[test]
    fn what_is_not_the_containers_state_is_refused() {
        for text in [state("/", "i"), state("", "i"), "{}".into(), "[".into(), String::new()] {
            assert_eq!(parse(text.as_bytes(), ID), None, "{text}");
        }
        assert_eq!(parse(state("/x", "i").as_bytes(), &ID.replace('4', "5")), None);
    }

    #[test]
    fn names_are_made_harmless() {
        assert_eq!(parse(state("/a\\u001b[31m", "i").as_bytes(), ID).unwrap().name, "a\\u{1b}[31m");
    }

    #[test]
    fn the_default_root_is_read_without_a_daemon() {
        let tree = Tree::new();
        assert_eq!(described(&tree), None);
        tree.file(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &state("/web", "nginx"));
        assert_eq!(described(&tree).unwrap().name, "web");
    }

    #[test]
    fn a_configured_root_is_read() {
        let tree = Tree::new();
        tree.file("etc/docker/daemon.json", r#"{"log-level":"warn","data-root":"/srv/docker"}"#);
        tree.file(&format!("srv/docker/containers/{ID}/config.v2.json"), &state("/web", "nginx"));
        assert_eq!(described(&tree).unwrap().name, "web");
    }

    #[test]
    fn a_running_daemon_tells_its_root() {
        for arguments in [
            "dockerd\0--data-root\0/data/d\0-H\0unix:///s\0",
            "dockerd\0--data-root=/data/d\0",
            "dockerd\0-g\0/elsewhere\0-g\0/data/d\0",
            "dockerd\0--config-file\0/data/daemon.json\0",
        ] {
            let tree = Tree::new();
            tree.file("data/daemon.json", r#"{"graph":"/data/d"}"#);
            tree.file(&format!("data/d/containers/{ID}/config.v2.json"), &state("/web", "nginx"));
            let mut docker = Docker::new(tree.paths());
            assert_eq!(docker.describe(ID), None);
            tree.daemon(77, arguments, 0, "0::/system.slice/docker.service\n");
            assert_eq!(docker.describe(ID).unwrap().name, "web", "{arguments:?}");
        }
    }

    #[test]
    fn a_daemon_of_a_user_or_in_a_container_is_not_believed() {
        for (user, cgroup) in [(1000, "0::/\n".to_owned()), (0, format!("0::/docker/{ID}\n"))] {
            let tree = Tree::new();
            tree.file(&format!("tmp/evil/containers/{ID}/config.v2.json"), &state("/evil", "i"));
            tree.daemon(77, "dockerd\0--data-root\0/tmp/evil\0", user, &cgroup);
            assert_eq!(described(&tree), None);
        }
    }
}
