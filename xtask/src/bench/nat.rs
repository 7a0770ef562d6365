//! Where connections are measured: a client, a router that masquerades, and a server.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context, Result};

use super::PREFIX;
use crate::netns::{Netns, ip};

/// Addresses from the ranges that are set aside for documentation.
const CLIENT: &str = "192.0.2.1";
const ROUTER_TO_CLIENT: &str = "192.0.2.2";
const ROUTER_TO_SERVER: &str = "198.51.100.1";

/// The server's address.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Three namespaces in a row. The server knows no way to the client's network: what it answers was translated.
pub(super) struct Nat {
    client: Netns,
    _router: Netns,
    server: Netns,
}

impl Nat {
    /// Creates, connects and configures them.
    pub(super) fn build() -> Result<Self> {
        let client = Netns::create(PREFIX, "client")?;
        let router = Netns::create(PREFIX, "router")?;
        let server = Netns::create(PREFIX, "server")?;
        let server_address = SERVER.to_string();
        for (end, end_address, port, port_address) in [
            (&client, CLIENT, "client", ROUTER_TO_CLIENT),
            (&server, &server_address, "server", ROUTER_TO_SERVER),
        ] {
            ip(&format!(
                "-n {} link add eth0 type veth peer name {port} netns {}",
                end.name(),
                router.name()
            ))?;
            for (netns, device, address) in [(end, "eth0", end_address), (&router, port, port_address)] {
                ip(&format!("-n {} address add {address}/24 dev {device}", netns.name()))?;
                ip(&format!("-n {} link set {device} up", netns.name()))?;
            }
        }
        ip(&format!("-n {} route add default via {ROUTER_TO_CLIENT}", client.name()))?;
        set(&router, "ip_forward", "1")?;
        // A connection that cannot be made is given up after seconds, not minutes.
        set(&client, "tcp_syn_retries", "3")?;
        router.nft(
            "table ip bench {
                chain postrouting {
                    type nat hook postrouting priority srcnat;
                    oifname \"server\" masquerade
                }
            }",
        )?;
        Ok(Self { client, _router: router, server })
    }

    /// Runs `work` inside the client's namespace; threads that it starts are there, too.
    pub(super) fn in_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.client.enter(work)
    }

    /// Runs `work` inside the server's namespace. Sockets made there stay there.
    pub(super) fn in_server<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.server.enter(work)
    }

    /// Segments that client and server have sent again: something on the way was lost, or late.
    pub(super) fn resent(&self) -> Result<u64> {
        let mut sum = 0;
        for netns in [&self.client, &self.server] {
            let path = "/proc/thread-self/net/snmp";
            let text =
                netns.enter(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
            sum += retransmitted(&text).with_context(|| format!("no RetransSegs in {path}"))?;
        }
        Ok(sum)
    }
}

/// Writes one of the namespace's sysctls.
fn set(netns: &Netns, name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    netns.enter(|| fs::write(&path, value).with_context(|| format!("cannot write {path}")))
}

/// TCP's `RetransSegs`: a line of names, then a line of figures.
fn retransmitted(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let column = lines.next()?.split(' ').position(|name| name == "RetransSegs")?;
    lines.next()?.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_found_by_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: MaxConn OutSegs RetransSegs InErrs\nTcp: -1 900 7 0\n";
        assert_eq!(retransmitted(snmp), Some(7));
        assert_eq!(retransmitted("Tcp: MaxConn\nTcp: -1\n"), None);
    }
}
