//! Where the bench happens: a namespace whose only rule drops every datagram to one port, and counts it.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command, netns::Netns};

/// Start of the name of every namespace of a bench.
const PREFIX: &str = "ndb-";

/// Where datagrams are dropped: the port that RFC 863 gave to discarding.
pub(super) const TARGET: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

/// The namespace and the way in.
pub(super) struct Site {
    netns: Netns,
    inode: u64,
}

impl Site {
    /// Creates the namespace and its rule.
    pub(super) fn build() -> Result<Self> {
        let netns = Netns::create(PREFIX, "drops")?;
        netns.nft(&format!(
            "table inet bench {{
                counter dropped {{ }}
                chain input {{
                    type filter hook input priority filter;
                    udp dport {} counter name dropped drop
                }}
            }}",
            TARGET.1
        ))?;
        let path = netns.path();
        let inode = fs::metadata(&path).with_context(|| format!("cannot stat {}", path.display()))?.ino();
        Ok(Self { netns, inode })
    }

    /// The bind mount of the namespace.
    pub(super) fn path(&self) -> PathBuf {
        self.netns.path()
    }

    /// The inode number of the namespace.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// A socket whose every datagram is dropped.
    pub(super) fn socket(&self) -> Result<UdpSocket> {
        self.netns.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a UDP socket")?;
            socket.connect(TARGET).context("cannot connect a UDP socket")?;
            Ok(socket)
        })
    }

    /// Datagrams dropped so far, by the kernel's own count.
    pub(super) fn dropped(&self) -> Result<u64> {
        let mut list = self.netns.command("nft");
        let listed = command::output(list.args(["-j", "list", "counter", "inet", "bench", "dropped"]))?;
        let listed: Value = serde_json::from_str(&listed).context("nft's list is no JSON")?;
        let mut objects = listed["nftables"].as_array().into_iter().flatten();
        objects
            .find_map(|object| object["counter"]["packets"].as_u64())
            .with_context(|| format!("no counter in {listed}"))
    }
}
