//! Where drops are measured: a namespace whose only rule drops every datagram to one port, and counts it.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{PREFIX, scene::Scene};
use crate::netns::Netns;

/// Where datagrams are dropped: the port that RFC 863 gave to discarding.
pub(super) const TARGET: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

/// The namespace and the way in.
pub(super) struct Site {
    netns: Netns,
    inode: u64,
    scene: Scene,
}

impl Site {
    /// Creates the namespace and its rule.
    pub(super) fn build(scene: Scene) -> Result<Self> {
        let netns = Netns::create(PREFIX, "drops")?;
        scene.drop_datagrams(&netns, TARGET.1)?;
        let path = netns.path();
        let inode = fs::metadata(&path).with_context(|| format!("cannot stat {}", path.display()))?.ino();
        Ok(Self { netns, inode, scene })
    }

    /// Which rule drops.
    pub(super) fn scene(&self) -> Scene {
        self.scene
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
        self.scene.dropped(&self.netns)
    }
}
