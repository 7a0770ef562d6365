//! What an skb says of its place: device, network namespace, sockets, route, qdisc.

use netdrop_common::{event::IFNAME_LEN, facts::Facts};

use crate::offsets::{
    Access, DEV_IFINDEX, DEV_NAME, DEV_NET, DEV_TX, DST_DEV, DST_ERROR, DST_INPUT, NET_COOKIE, NET_INUM,
    NET_LOOPBACK, Raw, SHARED_GSO_SEGS, SHARED_GSO_SIZE, SKB_DATA, SKB_DEV, SKB_END, SKB_HEAD, SKB_IIF,
    SKB_LEN, SKB_MAC_HEADER, SKB_NETWORK_HEADER, SKB_NFCT, SKB_PKT_TYPE_BYTE, SKB_PKT_TYPE_SHIFT,
    SKB_PROTOCOL, SKB_QUEUE_MAPPING, SKB_REFDST, SKB_SK, SKB_TAIL, SKB_TRUESIZE, SOCK_BACKLOG, SOCK_FAMILY,
    SOCK_NET, SOCK_RCVBUF, SOCK_RMEM, SOCK_SNDBUF, SOCK_STATE, TXQ_QDISC, TXQ_SIZE, Typed,
};

/// `struct sk_buff`.
pub(crate) enum SkBuff {}
/// `struct net_device`.
pub(crate) enum NetDevice {}
/// `struct net`.
pub(crate) enum Net {}
/// `struct sock`.
pub(crate) enum Sock {}

/// The freed skb.
pub(crate) type Skb<A> = Typed<SkBuff, A>;
/// A network device.
pub(crate) type Device<A> = Typed<NetDevice, A>;
/// A socket.
pub(crate) type Socket<A> = Typed<Sock, A>;

/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV` (include/net/tcp_states.h): such a socket is a mini socket,
/// only its `sock_common` exists.
pub(crate) const TCP_TIME_WAIT: u8 = 6;
pub(crate) const TCP_NEW_SYN_RECV: u8 = 12;

/// Namespace inodes: the fixed ones end below `0xF000_0000`, the dynamic ones count up from there
/// (PROC_DYNAMIC_FIRST, fs/proc/generic.c).
const INODE_FIRST: u32 = 0xEFFF_FFF0;
const INODE_LAST: u32 = 0xF0FF_FFFF;

/// A network namespace by identity.
#[derive(Clone, Copy, Default)]
pub(crate) struct NetnsId {
    /// `net->net_cookie`.
    pub(crate) cookie: u64,
    /// `net->ns.inum`; 0 when the namespace is not known.
    pub(crate) inode: u32,
    /// The `struct net` itself.
    pub(crate) address: u64,
}

impl NetnsId {
    #[inline(always)]
    fn of_typed<A: Access>(net: Typed<Net, A>) -> Self {
        Self { cookie: cookie_typed(net), inode: net.load(&NET_INUM), address: net.address() }
    }

    /// Reads a namespace whose address may be anything.
    #[inline(always)]
    pub(crate) fn of_raw(net: Raw) -> Option<Self> {
        let inode: u32 = net.load(&NET_INUM)?;
        let cookie =
            if NET_COOKIE.load() == netdrop_common::fields::ABSENT { 0 } else { net.load(&NET_COOKIE)? };
        // A live namespace owns a loopback device that points back at it: garbage does not.
        let owner = net.follow(&NET_LOOPBACK)?.follow(&DEV_NET)?;
        (plausible(inode) && owner.0 == net.0).then_some(Self { cookie, inode, address: net.0 })
    }
}

#[inline(always)]
fn plausible(inode: u32) -> bool {
    (INODE_FIRST..=INODE_LAST).contains(&inode)
}

#[inline(always)]
fn cookie_typed<A: Access>(net: Typed<Net, A>) -> u64 {
    if NET_COOKIE.load() == netdrop_common::fields::ABSENT { 0 } else { net.load(&NET_COOKIE) }
}

/// Where a drop happened.
#[derive(Clone, Copy)]
pub(crate) struct Place<A> {
    /// The namespace, inode 0 when unknown.
    pub(crate) netns: NetnsId,
    /// `skb->dev`, when it is a device.
    pub(crate) device: Option<Device<A>>,
}

/// `skb->dev`, unless the field holds something else: UDP keeps `dev_scratch` and the TCP queues an
/// `rb_node` in the same union.
#[inline(always)]
fn device<A: Access>(skb: Skb<A>) -> Option<(Device<A>, NetnsId)> {
    let device: Device<A> = skb.follow(&SKB_DEV)?;
    let net: Typed<Net, A> = device.follow(&DEV_NET)?;
    let id = NetnsId::of_typed(net);
    let loopback: Device<A> = net.follow(&NET_LOOPBACK)?;
    let owner: Typed<Net, A> = loopback.follow(&DEV_NET)?;
    (plausible(id.inode) && owner.address() == net.address()).then_some((device, id))
}

/// Finds the namespace that dropped the skb: its device's, else the receiving socket's, else its
/// route's, else its sender's. The sender comes last because a veth hands over skbs that still belong
/// to a socket of the namespace they came from.
#[inline(always)]
pub(crate) fn place<A: Access>(skb: Skb<A>, receiver: Option<Socket<A>>) -> Place<A> {
    if let Some((device, netns)) = device(skb) {
        return Place { netns, device: Some(device) };
    }
    let netns = if let Some(net) = receiver.and_then(|socket| socket.follow::<Net>(&SOCK_NET)) {
        NetnsId::of_typed(net)
    } else if let Some(id) = route_netns(skb) {
        id
    } else if let Some(net) = sender(skb).and_then(|socket| socket.follow::<Net>(&SOCK_NET)) {
        NetnsId::of_typed(net)
    } else {
        NetnsId::default()
    };
    if plausible(netns.inode) {
        Place { netns, device: None }
    } else {
        Place { netns: NetnsId::default(), device: None }
    }
}

/// Whether the skb belongs to a socket whose data is no network packet.
#[inline(always)]
pub(crate) fn is_local<A: Access>(skb: Skb<A>) -> bool {
    /// include/linux/socket.h, part of the user API.
    const AF_UNIX: u16 = 1;
    const AF_NETLINK: u16 = 16;
    match sender(skb) {
        Some(socket) => matches!(socket.load(&SOCK_FAMILY), AF_UNIX | AF_NETLINK),
        None => false,
    }
}

/// `skb->sk`: the sending socket.
#[inline(always)]
pub(crate) fn sender<A: Access>(skb: Skb<A>) -> Option<Socket<A>> {
    skb.follow(&SKB_SK)
}

/// `skb_dst()`. The field shares a union with other lists, so what it points at needs proof.
#[inline(always)]
fn route_address<A: Access>(skb: Skb<A>) -> Option<Raw> {
    /// SKB_DST_NOREF and the bit above it.
    const FLAGS: u64 = 3;
    let address = skb.load::<u64>(&SKB_REFDST) & !FLAGS;
    (address != 0).then_some(Raw(address))
}

#[inline(always)]
fn route_netns<A: Access>(skb: Skb<A>) -> Option<NetnsId> {
    NetnsId::of_raw(route_address(skb)?.follow(&DST_DEV)?.follow(&DEV_NET)?)
}

/// The skb's route.
///
/// No `Option` of it is handed on: what one leaves undefined may be a pointer, and the verifier wants those
/// stored whole.
#[derive(Clone, Copy, Default)]
pub(crate) struct Route {
    /// Whether there is one.
    pub(crate) found: bool,
    /// `-dst->error`.
    pub(crate) error: u8,
    /// `dst->input`.
    pub(crate) input: u64,
}

/// `skb_dst()`, if it is a route of the namespace `inode`.
#[inline(always)]
pub(crate) fn route_of<A: Access>(skb: Skb<A>, inode: u32) -> Option<Raw> {
    let dst = route_address(skb)?;
    let owner: u32 = dst.follow(&DST_DEV)?.follow(&DEV_NET)?.load(&NET_INUM)?;
    if inode == 0 || owner != inode { None } else { Some(dst) }
}

/// What is known of the skb's route, if it is one of the namespace `inode`.
#[inline(always)]
pub(crate) fn route<A: Access>(skb: Skb<A>, inode: u32) -> Route {
    let Some(dst) = route_of(skb, inode) else { return Route::default() };
    let error: i16 = dst.load(&DST_ERROR).unwrap_or(0);
    Route { found: true, error: error.unsigned_abs() as u8, input: dst.load(&DST_INPUT).unwrap_or(0) }
}

/// `net` of a socket, when it is a namespace.
#[inline(always)]
pub(crate) fn socket_netns<A: Access>(socket: Socket<A>) -> NetnsId {
    match socket.follow::<Net>(&SOCK_NET) {
        Some(net) => NetnsId::of_typed(net),
        None => NetnsId::default(),
    }
}

/// `skb->_nfct`: the connection's address and, in the low bits, how the packet belongs to it. All ones on a kernel
/// without connection tracking.
#[inline(always)]
pub(crate) fn tracking<A: Access>(skb: Skb<A>) -> u64 {
    if SKB_NFCT.load() == netdrop_common::fields::ABSENT { u64::MAX } else { skb.load(&SKB_NFCT) }
}

/// `sk->__sk_common.skc_state`.
#[inline(always)]
pub(crate) fn socket_state<A: Access>(socket: Socket<A>) -> u8 {
    socket.load(&SOCK_STATE)
}

/// Memory of a socket, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct SocketMemory {
    /// `sk_rmem_alloc`: received and unread.
    pub(crate) used: u32,
    /// `sk_rcvbuf`: the limit of that.
    pub(crate) limit: u32,
    /// `sk_backlog.len`: received while the socket was locked.
    pub(crate) backlog: u32,
    /// `sk_sndbuf`.
    pub(crate) send_limit: u32,
}

/// Memory of a full socket.
#[inline(always)]
pub(crate) fn socket_memory<A: Access>(socket: Socket<A>) -> Option<SocketMemory> {
    let state = socket_state(socket);
    if state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV {
        return None;
    }
    Some(SocketMemory {
        used: socket.load(&SOCK_RMEM),
        limit: socket.load(&SOCK_RCVBUF),
        backlog: socket.load(&SOCK_BACKLOG),
        send_limit: socket.load(&SOCK_SNDBUF),
    })
}

/// Adds the facts of the receiving socket.
#[inline(always)]
pub(crate) fn socket_facts<A: Access>(skb: Skb<A>, socket: Socket<A>, facts: Facts) -> Facts {
    let full = match socket_memory(socket) {
        Some(memory) => memory.used.wrapping_add(skb.load(&SKB_TRUESIZE)) > memory.limit,
        None => false,
    };
    facts.with_socket_state(socket_state(socket)).with_receive_buffer_full(full)
}

/// `dev->ifindex`.
#[inline(always)]
pub(crate) fn ifindex<A: Access>(device: Device<A>) -> u32 {
    device.load(&DEV_IFINDEX)
}

/// `dev->name`, as the words it is made of.
#[inline(always)]
pub(crate) fn ifname<A: Access>(device: Device<A>) -> [u64; IFNAME_LEN / 8] {
    device.words(&DEV_NAME)
}

/// `skb->skb_iif`.
#[inline(always)]
pub(crate) fn iif<A: Access>(skb: Skb<A>) -> u32 {
    skb.load(&SKB_IIF)
}

/// `skb->pkt_type`.
#[inline(always)]
pub(crate) fn packet_type<A: Access>(skb: Skb<A>) -> u8 {
    (skb.load::<u8>(&SKB_PKT_TYPE_BYTE) >> (SKB_PKT_TYPE_SHIFT.load() & 7)) & 7
}

/// `dev->_tx[skb->queue_mapping].qdisc` (net/core/dev.c, __dev_queue_xmit).
#[inline(always)]
pub(crate) fn qdisc<A: Access>(skb: Skb<A>, device: Device<A>) -> Option<Raw> {
    let queues = device.at(&DEV_TX).read::<u64>()?;
    let queue = u64::from(skb.load::<u16>(&SKB_QUEUE_MAPPING));
    Raw(queues).offset(queue * u64::from(TXQ_SIZE.load())).follow(&TXQ_QDISC)
}

/// Where an skb's bytes are: offsets count from `head`.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    /// `skb->head`.
    pub(crate) head: Raw,
    /// End of the linear part.
    pub(crate) tail: u32,
    /// Start of what the current layer sees.
    pub(crate) data: u32,
    /// `skb->mac_header`, 0xffff when unset.
    pub(crate) mac: u16,
    /// `skb->network_header`, 0 when unset.
    pub(crate) network: u16,
    /// `skb->protocol` in host order.
    pub(crate) protocol: u16,
    /// `skb->len`, from `data` on, fragments included.
    pub(crate) len: u32,
}

/// `skb->mac_header` when no layer has set it.
pub(crate) const MAC_UNSET: u16 = u16::MAX;

/// Reads the buffer's layout.
#[inline(always)]
pub(crate) fn buffer<A: Access>(skb: Skb<A>) -> Buffer {
    let head: u64 = skb.load(&SKB_HEAD);
    let data: u64 = skb.load(&SKB_DATA);
    Buffer {
        head: Raw(head),
        tail: skb.load(&SKB_TAIL),
        data: data.wrapping_sub(head) as u32,
        mac: skb.load(&SKB_MAC_HEADER),
        network: skb.load(&SKB_NETWORK_HEADER),
        protocol: u16::from_be(skb.load(&SKB_PROTOCOL)),
        len: skb.load(&SKB_LEN),
    }
}

/// Packets in the skb: `gso_segs` of `skb_shared_info`, which lies at the buffer's end. Devices that
/// leave it 0 (virtio, tun) are counted by `gso_size`.
#[inline(always)]
pub(crate) fn segments<A: Access>(skb: Skb<A>) -> u16 {
    /// IPv4 and TCP headers without options.
    const HEADERS: u32 = 40;
    let shared = Raw(skb.load(&SKB_HEAD)).offset(u64::from(skb.load::<u32>(&SKB_END)));
    let size = shared.load::<u16>(&SHARED_GSO_SIZE).unwrap_or(0);
    if size == 0 {
        return 1;
    }
    match shared.load::<u16>(&SHARED_GSO_SEGS) {
        Some(segments) if segments != 0 => segments,
        _ => {
            let size = u32::from(size);
            let len: u32 = skb.load(&SKB_LEN);
            let segments = len.saturating_sub(HEADERS).wrapping_add(size - 1) / size;
            if segments == 0 { 1 } else { segments as u16 }
        }
    }
}
