//! The other end of a veth (drivers/net/veth.c), which may be in another namespace.

use netdrop_common::{facts::VethPeer, fields::ABSENT};

use crate::{
    offsets::{
        Access, DEV_FLAGS, DEV_HARD_HEADER_LEN, DEV_LINK_OPS, DEV_MTU, DEV_SIZE, LINK_OPS_KIND, Raw,
        VETH_PEER,
    },
    skb::Device,
};

/// The other end, when the device is a veth and has one.
#[inline(always)]
pub(crate) fn peer<A: Access>(device: Device<A>) -> Option<Raw> {
    if VETH_PEER.load() == ABSENT {
        return None;
    }
    let kind: [u8; 5] = Raw(device.address()).follow(&DEV_LINK_OPS)?.follow(&LINK_OPS_KIND)?.read()?;
    if kind != *b"veth\0" {
        return None;
    }
    /// NETDEV_ALIGN (include/linux/netdevice.h): the driver's own data follows the device.
    const ALIGN: u64 = 32;
    let private = (u64::from(DEV_SIZE.load()) + ALIGN - 1) & !(ALIGN - 1);
    Raw(device.address()).offset(private).follow(&VETH_PEER)
}

/// How the other end takes a frame of this length, Ethernet header included: as `is_skb_forwardable`
/// (net/core/dev.c) decides it.
///
/// A function of its own, so that older verifiers go on from its end once.
#[inline(never)]
pub(crate) fn peer_state<A: Access>(device: Device<A>, frame: u32, gso: bool) -> VethPeer {
    /// IFF_UP (include/uapi/linux/if.h).
    const UP: u32 = 1;
    /// Room for a VLAN tag.
    const VLAN_HLEN: u32 = 4;
    let Some(peer) = peer(device) else { return VethPeer::Unknown };
    let (Some(flags), Some(mtu), Some(header)) =
        (peer.load::<u32>(&DEV_FLAGS), peer.load::<u32>(&DEV_MTU), peer.load::<u16>(&DEV_HARD_HEADER_LEN))
    else {
        return VethPeer::Unknown;
    };
    if flags & UP == 0 {
        VethPeer::Down
    } else if !gso && frame > mtu.wrapping_add(u32::from(header) + VLAN_HLEN) {
        VethPeer::TooLong
    } else {
        VethPeer::Up
    }
}
