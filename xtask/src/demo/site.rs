//! Where the demo happens: two network namespaces on one wire, removed when dropped.

use anyhow::Result;

use crate::netns::{Netns, ip};

/// Start of the name of every namespace of a demo.
const PREFIX: &str = "ndd-";

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
        let client = Netns::create(PREFIX, "client")?;
        let server = Netns::create(PREFIX, "server")?;
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", client.name(), server.name()))?;
        for (netns, address) in [(&client, CLIENT), (&server, SERVER)] {
            ip(&format!("-n {} address add {address}/24 dev eth0", netns.name()))?;
            ip(&format!("-n {} link set eth0 up", netns.name()))?;
        }
        Ok(Self { client, server })
    }

    /// Name of the namespace that sends.
    pub(super) fn client(&self) -> &str {
        self.client.name()
    }

    /// Name of the namespace that drops.
    pub(super) fn server(&self) -> &str {
        self.server.name()
    }

    /// Runs `work` inside the client's namespace. Sockets made there stay there.
    pub(super) fn in_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.client.enter(work)
    }

    /// Runs `work` inside the server's namespace.
    pub(super) fn in_server<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.server.enter(work)
    }

    /// Loads nft rules into the server's namespace.
    pub(super) fn load_server_rules(&self, script: &str) -> Result<()> {
        self.server.nft(script)
    }
}
