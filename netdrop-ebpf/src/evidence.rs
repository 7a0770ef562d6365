//! Evidence: figures that go into an event and into no counter key, read only when the catalogue says that
//! a cause of this reason can use them.
//!
//! Each kind has a function of its own, which writes to the record and returns nothing: whichever way such
//! a function takes, older verifiers go on from its end once.

use netdrop_common::{
    event::{DropEvent, HAVE_LISTENER, HAVE_MEMORY, HAVE_MTU, HAVE_NEIGHBOUR, HAVE_QDISC, QDISC_DROPPED},
    facts::Gather,
    fields::ABSENT,
};

use crate::{
    headers::ETH_IPV6,
    hooks::queues::Queue,
    offsets::{
        Access, CONNECTION_HALF_OPEN, DEV_IP, DEV_IP6, DEV_MTU, DEV_NAME, DST_DEV, DST_METRICS, Field,
        IN_DEVICE_ARP, INET6_DEV_ND, NEIGH_PARMS_DATA, NEIGH_PARMS_TABLE, NEIGH_QUEUE_LEN_BYTES,
        NEIGH_TABLE_ENTRIES, NEIGH_TABLE_LIMIT, NET_MAX_SYN_BACKLOG, NET_SOMAXCONN, PROTO_LIMITS,
        PROTO_MEMORY, QDISC_HANDLE, QDISC_LIMIT, QDISC_OPS, QDISC_OPS_ID, QDISC_PARENT, QDISC_QLEN, Raw,
        SOCK_ACCEPT_LIMIT, SOCK_ACCEPT_QUEUE, SOCK_ADDRESS, SOCK_ADDRESS6, SOCK_FAMILY, SOCK_LISTENER,
        SOCK_PORT, SOCK_PROTO,
    },
    scratch::Scratch,
    skb::{self, Device, Skb, Socket},
    veth,
};

/// Adds the evidence that `gather` asks for to a record that has none yet.
#[inline(always)]
pub(crate) fn add<A: Access>(
    event: &mut DropEvent,
    scratch: &Scratch,
    skb: Skb<A>,
    receiver: Option<Socket<A>>,
    device: Option<Device<A>>,
) {
    let gather = scratch.gather;
    if let Some(device) = device {
        if gather.contains(Gather::QDISC_FIGURES) {
            qdisc(event, scratch.queue);
        }
        if gather.contains(Gather::NEIGHBOUR) {
            neighbours(event, device);
        }
        if gather.contains(Gather::MTU) {
            peer_mtu(event, device);
        }
    }
    if gather.contains(Gather::MTU) {
        route_mtu(event, skb);
    }
    if gather.contains(Gather::MEMORY)
        && let Some(socket) = receiver
    {
        memory(event, socket);
    }
    if gather.contains(Gather::LISTENER) {
        listener(event, scratch.witness.netns(), receiver);
    }
}

/// The listener, when the drop names a socket that is one or belongs to one, and the limits of its namespace.
#[inline(never)]
fn listener<A: Access>(event: &mut DropEvent, net: Raw, receiver: Option<Socket<A>>) {
    /// TCP_LISTEN and TCP_NEW_SYN_RECV (include/net/tcp_states.h).
    const LISTEN: u8 = 10;
    const NEW_SYN_RECV: u8 = 12;
    const AF_INET6: u16 = 10;
    if net.0 == 0 || NET_SOMAXCONN.load() == ABSENT || NET_MAX_SYN_BACKLOG.load() == ABSENT {
        return;
    }
    let to = &mut event.listener;
    to.somaxconn = net.load(&NET_SOMAXCONN).unwrap_or(0);
    to.max_syn_backlog = net.load(&NET_MAX_SYN_BACKLOG).unwrap_or(0);
    event.have |= HAVE_LISTENER;
    let Some(receiver) = receiver else { return };
    let socket = Raw(receiver.address());
    let socket = match event.socket_state {
        LISTEN => socket,
        NEW_SYN_RECV => match socket.follow(&SOCK_LISTENER) {
            Some(listener) => listener,
            None => return,
        },
        _ => return,
    };
    let to = &mut event.listener;
    to.family = socket.load(&SOCK_FAMILY).unwrap_or(0);
    to.port = socket.load(&SOCK_PORT).unwrap_or(0);
    to.length = socket.load(&SOCK_ACCEPT_QUEUE).unwrap_or(0);
    to.limit = socket.load(&SOCK_ACCEPT_LIMIT).unwrap_or(0);
    if CONNECTION_HALF_OPEN.load() != ABSENT {
        to.half_open = socket.load(&CONNECTION_HALF_OPEN).unwrap_or(0);
    }
    let address = (&raw mut to.address).cast::<u8>();
    if to.family != AF_INET6 {
        // SAFETY: `address` takes more than these bytes.
        unsafe { socket.copy_member(&SOCK_ADDRESS, address.cast::<[u8; 4]>()) };
    } else if SOCK_ADDRESS6.load() != ABSENT {
        // SAFETY: `address` is as long as the member.
        unsafe { socket.copy_member(&SOCK_ADDRESS6, address.cast::<[u8; 16]>()) };
    }
}

/// The qdisc that the drop is put down to.
#[inline(never)]
fn qdisc(event: &mut DropEvent, queue: Queue) {
    let qdisc = Raw(queue.qdisc);
    if queue.hooked != 0 {
        event.have |= QDISC_DROPPED;
    }
    let Some(ops) = qdisc.follow(&QDISC_OPS) else { return };
    let to = &mut event.qdisc;
    // SAFETY: each goes to a member of the record, of its own width.
    unsafe { ops.copy_member(&QDISC_OPS_ID, &raw mut to.kind) };
    // SAFETY: as above.
    unsafe { qdisc.copy_member(&QDISC_HANDLE, &raw mut to.handle) };
    // SAFETY: as above.
    unsafe { qdisc.copy_member(&QDISC_PARENT, &raw mut to.parent) };
    // SAFETY: as above.
    unsafe { qdisc.copy_member(&QDISC_LIMIT, &raw mut to.limit) };
    // SAFETY: as above.
    unsafe { qdisc.copy_member(&QDISC_QLEN, &raw mut to.qlen) };
    event.have |= HAVE_QDISC;
}

/// The table of the device's neighbours, by way of the device's parameters for it: `in_device.arp_parms`
/// and `inet6_dev.nd_parms`.
#[inline(never)]
fn neighbours<A: Access>(event: &mut DropEvent, device: Device<A>) {
    if NEIGH_TABLE_ENTRIES.load() == ABSENT || NEIGH_TABLE_LIMIT.load() == ABSENT {
        return;
    }
    let parms = if event.tuple.ethertype == ETH_IPV6 {
        parms(device, &DEV_IP6, &INET6_DEV_ND)
    } else {
        parms(device, &DEV_IP, &IN_DEVICE_ARP)
    };
    let Some(parms) = parms else { return };
    let Some(table) = parms.follow(&NEIGH_PARMS_TABLE) else { return };
    let to = &mut event.neighbour;
    // SAFETY: each goes to a member of the record, of its own width.
    unsafe { table.copy_member(&NEIGH_TABLE_ENTRIES, &raw mut to.entries) };
    // SAFETY: as above.
    unsafe { table.copy_member(&NEIGH_TABLE_LIMIT, &raw mut to.limit) };
    let index = NEIGH_QUEUE_LEN_BYTES.load();
    if index != ABSENT {
        // `neigh_parms.data` is an array of int.
        let value = parms.offset(4 * u64::from(index));
        // SAFETY: as above.
        unsafe { value.copy_member(&NEIGH_PARMS_DATA, &raw mut to.queue_limit) };
    }
    event.have |= HAVE_NEIGHBOUR;
}

/// A device's parameters for its neighbours.
#[inline(always)]
fn parms<A: Access>(device: Device<A>, member: &Field, parms: &Field) -> Option<Raw> {
    if member.load() == ABSENT || parms.load() == ABSENT {
        return None;
    }
    Raw(device.address()).follow(member)?.follow(parms)
}

/// The longest packet that the other end of a veth takes.
#[inline(never)]
fn peer_mtu<A: Access>(event: &mut DropEvent, device: Device<A>) {
    let Some(peer) = veth::peer(device) else { return };
    // SAFETY: each goes to a member of the record, of its own width.
    unsafe { peer.copy_member(&DEV_MTU, &raw mut event.mtu) };
    // SAFETY: as above.
    unsafe { peer.copy_member(&DEV_NAME, &raw mut event.mtu_device) };
    event.have |= HAVE_MTU;
}

/// The longest packet that the route takes: its metric, else its device's. A route says more than a veth.
#[inline(never)]
fn route_mtu<A: Access>(event: &mut DropEvent, skb: Skb<A>) {
    /// DST_METRICS_FLAGS (include/net/dst.h) are in the pointer's low bits; the array starts with metric 1,
    /// and RTAX_MTU is 2 (include/uapi/linux/rtnetlink.h).
    const FLAGS: u64 = 3;
    const MTU: u64 = 4;
    let Some(route) = skb::route_of(skb, event.key.netns_inode) else { return };
    let Some(device) = route.follow(&DST_DEV) else { return };
    let metrics: u64 = route.load(&DST_METRICS).unwrap_or(0);
    let metric: u32 = Raw(metrics & !FLAGS).offset(MTU).read().unwrap_or(0);
    // SAFETY: each goes to a member of the record, of its own width.
    unsafe { device.copy_member(&DEV_MTU, &raw mut event.mtu) };
    // SAFETY: as above.
    unsafe { device.copy_member(&DEV_NAME, &raw mut event.mtu_device) };
    if metric != 0 {
        event.mtu = metric;
    }
    event.have |= HAVE_MTU;
}

/// Pages that all sockets of the protocol hold, and may hold.
#[inline(never)]
fn memory<A: Access>(event: &mut DropEvent, socket: Socket<A>) {
    /// `sysctl_mem[]`: min, pressure, max, each a long.
    const MAX: u64 = 2 * 8;
    let Some(proto) = Raw(socket.address()).follow(&SOCK_PROTO) else { return };
    let Some(used) = proto.follow(&PROTO_MEMORY) else { return };
    let Some(limits) = proto.follow(&PROTO_LIMITS) else { return };
    event.memory_used = used.read().unwrap_or(0);
    event.memory_limit = limits.offset(MAX).read().unwrap_or(0);
    event.have |= HAVE_MEMORY;
}
