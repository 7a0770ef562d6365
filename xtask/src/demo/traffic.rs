//! Three kinds of packets that the demo's server cannot take, sent over and over.

use std::{fs, net::UdpSocket};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::site::{SERVER, Site};
use crate::{netns::ip, privilege::find_program};

/// Nobody listens here.
const CLOSED: (&str, u16) = (SERVER, 4000);

/// Somebody listens here and never reads.
const UNREAD: (&str, u16) = (SERVER, 5000);

/// A rule drops what is sent here.
const FORBIDDEN: (&str, u16) = (SERVER, 6000);

/// The server has no route to this address, also from a range that is set aside for documentation.
const UNROUTED: (&str, u16) = ("198.51.100.1", 7000);

/// Long enough that a few of them fill the smallest receive buffer there is.
const PAYLOAD: [u8; 512] = [b'.'; 512];

/// The sender, and the receiver that does not read.
pub(super) struct Traffic {
    client: UdpSocket,
    _unread: UdpSocket,
    kinds: Vec<Kind>,
    /// Index of the kind whose turn it is.
    next: usize,
}

/// One kind of drop: where to send for it, and what happens there.
struct Kind {
    to: (&'static str, u16),
    story: &'static str,
}

impl Traffic {
    /// Sets the server up so that it has three reasons to drop.
    pub(super) fn prepare(site: &Site) -> Result<Self> {
        let unread = site.in_server(|| {
            let socket = UdpSocket::bind(UNREAD).with_context(|| format!("cannot bind {UNREAD:?}"))?;
            // The kernel raises it to the least it allows, which holds a packet or two.
            set_socket_recv_buffer_size(&socket, 1).context("cannot set a receive buffer's size")?;
            Ok(socket)
        })?;
        let client =
            site.in_client(|| UdpSocket::bind(("0.0.0.0", 0)).context("cannot bind a UDP socket"))?;

        let mut kinds = vec![
            Kind { to: CLOSED, story: "UDP to port 4000, where nobody listens" },
            Kind { to: UNREAD, story: "UDP to port 5000, whose receiver never reads" },
        ];
        if find_program("nft").is_some() {
            forbid(site)?;
            kinds.push(Kind { to: FORBIDDEN, story: "UDP to port 6000, which an nftables rule drops" });
        } else {
            eprintln!(
                "note: no nft here (package nftables), so a missing route stands in for a firewall rule"
            );
            misroute(site)?;
            kinds.push(Kind {
                to: UNROUTED,
                story: "UDP to be forwarded to 198.51.100.1, for which there is no route",
            });
        }
        Ok(Self { client, _unread: unread, kinds, next: 0 })
    }

    /// What happens, a line for each kind.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().map(|kind| kind.story)
    }

    /// Sends one packet, of another kind each time.
    pub(super) fn send_next(&mut self) {
        let Kind { to: (address, port), .. } = self.kinds[self.next];
        self.next = (self.next + 1) % self.kinds.len();
        if let Err(error) = self.client.send_to(&PAYLOAD, (address, port)) {
            eprintln!("warning: cannot send to {address}:{port}: {error}");
        }
    }
}

/// Loads a rule into the server's namespace.
fn forbid(site: &Site) -> Result<()> {
    site.load_server_rules(&format!(
        "table inet demo {{ chain input {{ type filter hook input priority filter; udp dport {} drop; }}; }}",
        FORBIDDEN.1
    ))
}

/// Makes the server a router for an address that it knows no way to.
fn misroute(site: &Site) -> Result<()> {
    ip(&format!("-n {} route add {} via {SERVER}", site.client(), UNROUTED.0))?;
    site.in_server(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on"))
}
