//! Where the demo happens: two network namespaces on one wire, removed when dropped.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
    process::{self, Command},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// Start of the name of every namespace of a demo; the process id follows.
const PREFIX: &str = "ndd-";

/// Where `ip netns` keeps namespaces by name.
const NETNS_DIR: &str = "/run/netns";

/// The client's address; from the range that is set aside for documentation.
const CLIENT: &str = "192.0.2.1";

/// The server's address.
pub(super) const SERVER: &str = "192.0.2.2";

/// A namespace called `client` and one called `server`, each with an `eth0`.
pub(super) struct Site {
    client: Netns,
    server: Netns,
}

impl Site {
    /// Creates both namespaces and connects them.
    pub(super) fn build() -> Result<Self> {
        remove_stale();
        let client = Netns::create("client")?;
        let server = Netns::create("server")?;
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", client.name, server.name))?;
        for (netns, address) in [(&client, CLIENT), (&server, SERVER)] {
            ip(&format!("-n {} address add {address}/24 dev eth0", netns.name))?;
            ip(&format!("-n {} link set lo up", netns.name))?;
            ip(&format!("-n {} link set eth0 up", netns.name))?;
        }
        Ok(Self { client, server })
    }

    /// Name of the namespace that sends.
    pub(super) fn client(&self) -> &str {
        &self.client.name
    }

    /// Name of the namespace that drops.
    pub(super) fn server(&self) -> &str {
        &self.server.name
    }

    /// Runs `work` inside the client's namespace. Sockets made there stay there.
    pub(super) fn in_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.client.enter(work)
    }

    /// Runs `work` inside the server's namespace.
    pub(super) fn in_server<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.server.enter(work)
    }
}

/// A named namespace, removed when dropped.
struct Netns {
    name: String,
}

impl Netns {
    fn create(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{role}", process::id());
        ip(&format!("netns add {name}"))?;
        let netns = Self { name };
        // Address detection and router solicitation would mix packets in that nobody sent on purpose.
        netns.enter(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                if Path::new(&path).exists() {
                    fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
                }
            }
            Ok(())
        })?;
        Ok(netns)
    }

    fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        let target = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        thread::scope(|scope| {
            // A thread of its own, because a thread that has moved cannot easily move back.
            let inside = scope.spawn(|| {
                move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                work()
            });
            inside.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("netns delete {}", self.name)) {
            eprintln!("warning: namespace {} is left behind: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces of demos that were killed before they could do it.
fn remove_stale() {
    for entry in fs::read_dir(NETNS_DIR).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Only for tidiness: this demo's own names are different.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(words: &str) -> Result<()> {
    command::output(Command::new("ip").args(words.split_whitespace())).map(drop)
}
