//! What every event record says of a drop.
//!
//! Functions of their own, which return nothing, for their own stack frames and so that older verifiers go
//! on from their ends once.

use netdrop_common::{
    event::{
        CAPTURE_LEN, DropEvent, HAVE_DEVICE, HAVE_MAC, HAVE_ROUTE, HAVE_SENDER, HAVE_SOCKET,
        HAVE_SOCKET_MEMORY, Listener, NO_OFFSET, Neighbour, Qdisc,
    },
    fields::ABSENT,
};

use crate::{
    headers,
    offsets::{Access, Raw, SOCK_LISTENER, SOCK_SOCKET, SOCKET_ALLOC_INODE, SOCKET_ALLOC_SOCKET},
    scratch::Scratch,
    skb::{self, Device, Skb, Socket},
};

/// Writes what the run knows by now, and zeros for the rest but `announced*`.
#[inline(never)]
pub(crate) fn base<A: Access>(event: &mut DropEvent, scratch: &Scratch, skb: Skb<A>) {
    let buffer = &scratch.buffer;
    let l3 = scratch.outer.l3;
    event.bytes = [0; CAPTURE_LEN];
    event.key = scratch.key;
    event.time_ns = scratch.now;
    event.dst_input = scratch.route.input;
    event.tuple = scratch.outer.tuple;
    event.ifname = [0; _];
    event.ifindex = 0;
    event.iif = skb::iif(skb);
    event.l3_len = if l3 == 0 { 0 } else { buffer.len.wrapping_add(buffer.data).wrapping_sub(l3) };
    event.socket_used = 0;
    event.socket_limit = 0;
    event.socket_backlog = 0;
    event.socket_send_limit = 0;
    event.qdisc = Qdisc { kind: [0; _], handle: 0, parent: 0, limit: 0, qlen: 0 };
    event.neighbour = Neighbour { entries: 0, limit: 0, queue_limit: 0 };
    event.mtu = 0;
    event.mtu_device = [0; _];
    event.memory_used = 0;
    event.memory_limit = 0;
    event.socket_inode = 0;
    event.segments = scratch.segments;
    event.packet_type = scratch.packet_type;
    event.socket_state = 0;
    event.route_error = scratch.route.error;
    event.witness_cell = scratch.witness.cell;
    event.witness_delta = scratch.witness.delta;
    event.listener = Listener {
        address: [0; _],
        port: 0,
        family: 0,
        length: 0,
        limit: 0,
        half_open: 0,
        somaxconn: 0,
        max_syn_backlog: 0,
    };
    event.have = scratch.flags;
    if scratch.route.found {
        event.have |= HAVE_ROUTE;
    }
    if skb::sender(skb).is_some() {
        event.have |= HAVE_SENDER;
    }
    event.caplen = 0;
    event.l3_offset = NO_OFFSET;
    if let Some(capture) = headers::capture(buffer, l3) {
        let len = if capture.available > CAPTURE_LEN as u32 { CAPTURE_LEN as u32 } else { capture.available };
        if capture.ethernet.is_some() {
            event.have |= HAVE_MAC;
        }
        let to = (&raw mut event.bytes).cast::<u8>();
        // SAFETY: `bytes` is `CAPTURE_LEN` long.
        event.caplen = unsafe { capture.from.copy::<{ CAPTURE_LEN as u32 }>(to, len) } as u16;
        event.l3_offset = capture.ethernet.unwrap_or(0);
    }
}

/// Adds the device.
#[inline(never)]
pub(crate) fn device<A: Access>(event: &mut DropEvent, device: Device<A>) {
    event.ifindex = skb::ifindex(device);
    let [first, second] = skb::ifname(device);
    // The name stands at a multiple of 4, its words are two halves each.
    let halves = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    // SAFETY: `ifname` is 16 bytes at a multiple of 4.
    unsafe { (&raw mut event.ifname).cast::<[u32; 4]>().write(halves) };
    event.have |= HAVE_DEVICE;
}

/// Adds the receiving socket.
#[inline(never)]
pub(crate) fn socket<A: Access>(event: &mut DropEvent, socket: Socket<A>) {
    event.socket_state = skb::socket_state(socket);
    event.have |= HAVE_SOCKET;
    let Some(memory) = skb::socket_memory(socket) else { return };
    event.socket_used = memory.used;
    event.socket_limit = memory.limit;
    event.socket_backlog = memory.backlog;
    event.socket_send_limit = memory.send_limit;
    event.have |= HAVE_SOCKET_MEMORY;
}

/// Adds the inode of the receiving socket, or of the listener that a handshake belongs to, to a record that has its
/// state: that is how `/proc/PID/fd` shows whose it is.
#[inline(never)]
pub(crate) fn socket_inode<A: Access>(event: &mut DropEvent, socket: Socket<A>) {
    if SOCK_SOCKET.load() == ABSENT
        || SOCKET_ALLOC_SOCKET.load() == ABSENT
        || SOCKET_ALLOC_INODE.load() == ABSENT
    {
        return;
    }
    let socket = Raw(socket.address());
    let socket = match event.socket_state {
        skb::TCP_TIME_WAIT => return,
        skb::TCP_NEW_SYN_RECV => match socket.follow(&SOCK_LISTENER) {
            Some(listener) => listener,
            None => return,
        },
        _ => socket,
    };
    // None as long as no program has accepted it, and none any more when all have closed it.
    let Some(socket) = socket.follow(&SOCK_SOCKET) else { return };
    let with_inode = socket.offset(u64::from(SOCKET_ALLOC_SOCKET.load()).wrapping_neg());
    // SAFETY: it goes to a member of the record, of its own width.
    unsafe { with_inode.copy_member(&SOCKET_ALLOC_INODE, &raw mut event.socket_inode) };
}
