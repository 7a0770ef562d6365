//! Evidence: figures that go into an event and into no counter key, read only when the catalogue says that
//! a cause of this reason can use them.

use netdrop_common::{
    event::{DropEvent, HAVE_MEMORY, HAVE_MTU, HAVE_NEIGHBOUR, HAVE_QDISC, IFNAME_LEN, Neighbour, Qdisc},
    facts::Gather,
    fields::ABSENT,
};

use crate::{
    headers::ETH_IPV6,
    offsets::{
        Access, DEV_IP, DEV_IP6, DEV_MTU, DEV_NAME, DST_DEV, DST_METRICS, Field, IN_DEVICE_ARP, INET6_DEV_ND,
        NEIGH_PARMS_DATA, NEIGH_PARMS_TABLE, NEIGH_QUEUE_LEN_BYTES, NEIGH_TABLE_ENTRIES, NEIGH_TABLE_LIMIT,
        PROTO_LIMITS, PROTO_MEMORY, QDISC_HANDLE, QDISC_LIMIT, QDISC_OPS, QDISC_OPS_ID, QDISC_PARENT,
        QDISC_QLEN, Raw, SOCK_PROTO,
    },
    skb::{self, Device, Place, Skb, Socket},
    veth,
};

/// Fills the evidence that `gather` asks for and zeroes the rest; returns its `HAVE_*` bits.
#[inline(always)]
pub(crate) fn fill<A: Access>(
    event: &mut DropEvent,
    gather: Gather,
    skb: Skb<A>,
    place: &Place<A>,
    receiver: Option<Socket<A>>,
) -> u16 {
    let mut have = 0;
    let mut figures = Qdisc::default();
    let mut neighbour = Neighbour::default();
    let (mut mtu, mut mtu_device) = (0, [0; IFNAME_LEN / 4]);
    if let Some(device) = place.device {
        if gather.contains(Gather::QDISC_FIGURES)
            && let Some(found) = qdisc(skb, device)
        {
            have |= HAVE_QDISC;
            figures = found;
        }
        if gather.contains(Gather::NEIGHBOUR)
            && let Some(found) = neighbours(device, event.tuple.ethertype == ETH_IPV6)
        {
            have |= HAVE_NEIGHBOUR;
            neighbour = found;
        }
    }
    if gather.contains(Gather::MTU)
        && let Some((limit, name)) = tightest(skb, place)
    {
        have |= HAVE_MTU;
        (mtu, mtu_device) = (limit, name);
    }
    let (mut memory_used, mut memory_limit) = (0, 0);
    if gather.contains(Gather::MEMORY)
        && let Some((used, limit)) = receiver.and_then(memory)
    {
        have |= HAVE_MEMORY;
        (memory_used, memory_limit) = (used, limit);
    }
    event.qdisc = figures;
    event.neighbour = neighbour;
    event.mtu = mtu;
    // SAFETY: `mtu_device` is 16 bytes at a multiple of 4.
    unsafe { (&raw mut event.mtu_device).cast::<[u32; IFNAME_LEN / 4]>().write(mtu_device) };
    event.memory_used = memory_used;
    event.memory_limit = memory_limit;
    have
}

/// The root qdisc of the queue that the skb was sent to.
#[inline(always)]
fn qdisc<A: Access>(skb: Skb<A>, device: Device<A>) -> Option<Qdisc> {
    let qdisc = skb::qdisc(skb, device)?;
    Some(Qdisc {
        kind: qdisc.follow(&QDISC_OPS)?.load(&QDISC_OPS_ID)?,
        handle: qdisc.load(&QDISC_HANDLE)?,
        parent: qdisc.load(&QDISC_PARENT)?,
        limit: qdisc.load(&QDISC_LIMIT)?,
        qlen: qdisc.load(&QDISC_QLEN)?,
    })
}

/// The table of the device's neighbours, by way of the device's parameters for it: `in_device.arp_parms`
/// and `inet6_dev.nd_parms`.
#[inline(always)]
fn neighbours<A: Access>(device: Device<A>, ipv6: bool) -> Option<Neighbour> {
    let parms = if ipv6 {
        member(device, &DEV_IP6)?.follow(present(&INET6_DEV_ND)?)?
    } else {
        member(device, &DEV_IP)?.follow(&IN_DEVICE_ARP)?
    };
    let table = parms.follow(&NEIGH_PARMS_TABLE)?;
    let index = NEIGH_QUEUE_LEN_BYTES.load();
    let queue_limit = if index == ABSENT {
        None
    } else {
        // `neigh_parms.data` is an array of int.
        parms.offset(u64::from(NEIGH_PARMS_DATA.load()) + 4 * u64::from(index)).read()
    };
    Some(Neighbour {
        entries: table.load(present(&NEIGH_TABLE_ENTRIES)?)?,
        limit: table.load(present(&NEIGH_TABLE_LIMIT)?)?,
        queue_limit: queue_limit.unwrap_or(0),
    })
}

/// A pointer member of the device, as a number.
#[inline(always)]
fn member<A: Access>(device: Device<A>, field: &Field) -> Option<Raw> {
    if field.load() == ABSENT {
        return None;
    }
    match device.at(field).read::<u64>() {
        Some(0) | None => None,
        Some(address) => Some(Raw(address)),
    }
}

/// A field, unless this kernel does not have it.
#[inline(always)]
fn present(field: &'static Field) -> Option<&'static Field> {
    if field.load() == ABSENT { None } else { Some(field) }
}

/// The longest packet that the way onwards takes, and the device that says so: the other end of a veth
/// where there is one, else the route's metric or its device.
#[inline(always)]
fn tightest<A: Access>(skb: Skb<A>, place: &Place<A>) -> Option<(u32, [u32; IFNAME_LEN / 4])> {
    if let Some(route) = skb::route_of(skb, place.netns.inode) {
        /// DST_METRICS_FLAGS (include/net/dst.h) are in the pointer's low bits; RTAX_MTU is metric 2, and the
        /// array starts with metric 1 (include/uapi/linux/rtnetlink.h).
        const FLAGS: u64 = 3;
        const MTU: u64 = 4;
        let device = route.follow(&DST_DEV)?;
        let metrics = Raw(route.load::<u64>(&DST_METRICS)? & !FLAGS);
        let limit = match metrics.offset(MTU).read::<u32>() {
            Some(0) | None => device.load(&DEV_MTU)?,
            Some(metric) => metric,
        };
        return Some((limit, device.load(&DEV_NAME)?));
    }
    let peer = veth::peer(place.device?)?;
    Some((peer.load(&DEV_MTU)?, peer.load(&DEV_NAME)?))
}

/// Pages that all sockets of the protocol hold, and may hold.
#[inline(always)]
fn memory<A: Access>(socket: Socket<A>) -> Option<(u64, u64)> {
    /// `sysctl_mem[]`: min, pressure, max, each a long.
    const MAX: u64 = 2 * 8;
    let proto = match socket.at(&SOCK_PROTO).read::<u64>() {
        Some(0) | None => return None,
        Some(address) => Raw(address),
    };
    let used = proto.follow(&PROTO_MEMORY)?.read()?;
    let limit = proto.follow(&PROTO_LIMITS)?.offset(MAX).read()?;
    Some((used, limit))
}
