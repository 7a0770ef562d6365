//! Questions that only a network namespace itself can answer: a listener's queues, and which socket a packet was for,
//! where no hook had the socket at hand, and how full its conntrack table is. A thread of its own enters the namespace, asks and ends; so none is kept
//! alive for longer than a look-up.

mod ports;

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr as Endpoint,
    os::fd::OwnedFd,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use netdrop_common::event::Listener;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    attribute::netns::NetnsId,
    evidence::{PortTable, Table},
    netlink,
    packet::{Packet, Protocol},
};

/// How long an answer is good: a flood of drops asks once.
const FRESH: Duration = Duration::from_millis(100);

/// Answers that are remembered.
const REMEMBERED: usize = 1024;

/// A listener: namespace, whether IPv6, port.
type ListenerKey = (NetnsId, bool, u16);

/// A listener, and the inode of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its figures.
    pub listener: Listener,
    /// As `/proc/PID/fd` shows it.
    pub inode: u64,
}

/// The two ends of a packet, as the kernel looks for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    udp: bool,
    from: Endpoint,
    to: Endpoint,
    /// The device that it came in by, 0 for any: a socket may be bound to one.
    interface: u32,
}

/// Asks namespaces, and remembers for a moment.
#[derive(Default)]
pub struct Inside {
    listeners: HashMap<ListenerKey, (Instant, Option<Listening>)>,
    receivers: HashMap<(NetnsId, Ends), (Instant, Option<u64>)>,
    tables: HashMap<NetnsId, (Instant, Table)>,
    ports: HashMap<(NetnsId, u8), PortAnswer>,
}

/// The ports of a namespace for one protocol, and until when that is good.
type PortAnswer = (Instant, Option<Rc<PortTable>>);

/// A list of sockets may be long: asking for it may take a twentieth of a CPU, not more.
const PORTS_SHARE: u32 = 20;

/// Protocols whose sockets are looked for.
const TCP_OR_UDP: [u8; 2] = [6, 17];

impl Inside {
    /// The listener that a packet was for, as `ss -ltn` shows it in the namespace that `open` opens.
    pub fn listener(
        &mut self,
        id: NetnsId,
        packet: &Packet,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<Listening> {
        let (address, port) = (packet.dst?, packet.dport?);
        let v6 = address.is_ipv6();
        if let Some((when, known)) = self.listeners.get(&(id, v6, port))
            && when.elapsed() < FRESH
        {
            return *known;
        }
        let found = open().and_then(|netns| within(netns, move || listeners(v6, port)).ok()).flatten();
        make_room(&mut self.listeners);
        self.listeners.insert((id, v6, port), (Instant::now(), found));
        found
    }

    /// The inode of the socket that the kernel finds for a packet of UDP or TCP that came in by `interface`, in the
    /// namespace that `open` opens. Nothing for other protocols, of which it cannot be asked.
    pub fn receiver(
        &mut self,
        id: NetnsId,
        packet: &Packet,
        interface: u32,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<u64> {
        let udp = match packet.proto? {
            Protocol::UDP => true,
            Protocol::TCP => false,
            _ => return None,
        };
        let from = Endpoint::new(packet.src?, packet.sport?);
        let to = Endpoint::new(packet.dst?, packet.dport?);
        let ends = Ends { udp, from, to, interface };
        if let Some((when, known)) = self.receivers.get(&(id, ends))
            && when.elapsed() < FRESH
        {
            return *known;
        }
        let found = open().and_then(|netns| within(netns, move || receiver(ends)).ok()).flatten();
        make_room(&mut self.receivers);
        self.receivers.insert((id, ends), (Instant::now(), found));
        found
    }

    /// Who has which port in the namespace that `open` opens; nothing where it does not say.
    pub fn ports(
        &mut self,
        id: NetnsId,
        protocol: u8,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<Rc<PortTable>> {
        let key = (id, protocol);
        if let Some((until, known)) = self.ports.get(&key)
            && Instant::now() < *until
        {
            return known.clone();
        }
        let started = Instant::now();
        let found = open()
            .filter(|_| TCP_OR_UDP.contains(&protocol))
            .and_then(|netns| within(netns, move || ports::table(protocol)).ok());
        let found = found.map(Rc::new);
        let until = Instant::now() + FRESH.max(started.elapsed() * PORTS_SHARE);
        make_room(&mut self.ports);
        self.ports.insert(key, (until, found.clone()));
        found
    }

    /// How full the conntrack table of the namespace is that `open` opens.
    pub fn table(&mut self, id: NetnsId, open: impl FnOnce() -> Option<OwnedFd>) -> Table {
        if let Some((when, known)) = self.tables.get(&id)
            && when.elapsed() < FRESH
        {
            return *known;
        }
        let found = open().and_then(|netns| within(netns, || Ok(table())).ok()).unwrap_or_default();
        make_room(&mut self.tables);
        self.tables.insert(id, (Instant::now(), found));
        found
    }
}

/// Answers are stale soon: forgetting all of them costs little.
fn make_room<K, V>(answers: &mut HashMap<K, V>) {
    if answers.len() >= REMEMBERED {
        answers.clear();
    }
}

/// Runs `ask` in a namespace.
pub(crate) fn within<T: Send + 'static>(
    netns: OwnedFd,
    ask: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = thread::Builder::new().name("inside".to_owned()).spawn(move || {
        use std::os::fd::AsFd as _;
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        drop(netns);
        ask()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asked has panicked")))
}

/// `nf_conntrack_count` and `nf_conntrack_max` of this thread's namespace (`man 5 proc_sys_net`).
fn table() -> Table {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Table { count: read("nf_conntrack_count"), max: read("nf_conntrack_max") }
}

/// The listener at `port`, by sock_diag (`man 7 sock_diag`): of several the fullest. IPv6's serve IPv4, too.
fn listeners(v6: bool, port: u16) -> io::Result<Option<Listening>> {
    let states = || StateFlags::LISTEN | StateFlags::SYN_RECV;
    let mut sockets = dump(AF_INET6, IPPROTO_TCP, states())?;
    if !v6 {
        sockets.extend(dump(AF_INET, IPPROTO_TCP, states())?);
    }
    Ok(summed_up(&sockets, port))
}

/// `TCP_SYN_RECV` and `TCP_LISTEN` (include/net/tcp_states.h).
const SYN_RECV: u8 = 3;
const LISTEN: u8 = 10;

fn summed_up(sockets: &[InetResponseHeader], port: u16) -> Option<Listening> {
    let here = || sockets.iter().filter(|socket| socket.socket_id.source_port == port);
    let listener = here().filter(|socket| socket.state == LISTEN).max_by_key(|socket| socket.recv_queue)?;
    let half_open = here().filter(|socket| socket.state == SYN_RECV).count();
    let mut address = [0; 16];
    match listener.socket_id.source_address {
        std::net::IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
        std::net::IpAddr::V6(v6) => address = v6.octets(),
    }
    let inode = u64::from(listener.inode);
    let listener = Listener {
        address,
        port,
        family: u16::from(listener.family),
        length: listener.recv_queue,
        limit: listener.send_queue,
        half_open: u32::try_from(half_open).unwrap_or(u32::MAX),
        somaxconn: 0,
        max_syn_backlog: 0,
    };
    Some(Listening { listener, inode })
}

/// The inode of the socket that the kernel finds for a packet between these ends; nothing when there is none, or no
/// process holds it.
fn receiver(Ends { udp, from, to, interface }: Ends) -> io::Result<Option<u64>> {
    /// INET_DIAG_NOCOOKIE (include/uapi/linux/inet_diag.h), twice: whichever socket it is.
    const ANY: [u8; 8] = [0xff; 8];
    // For UDP the kernel takes these the other way round, "for historical reasons" (udp_dump_one, net/ipv4/udp_diag.c).
    let (source, destination) = if udp { (from, to) } else { (to, from) };
    let request = InetRequest {
        family: if to.is_ipv6() { AF_INET6 } else { AF_INET },
        protocol: if udp { IPPROTO_UDP } else { IPPROTO_TCP },
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: source.port(),
            destination_port: destination.port(),
            source_address: source.ip(),
            destination_address: destination.ip(),
            interface_id: interface,
            cookie: ANY,
        },
    };
    let answer = match ask(request, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        answer => answer?,
    };
    Ok(answer.first().map(|socket| u64::from(socket.inode)).filter(|inode| *inode != 0))
}

/// All sockets of a family and a protocol in these states.
fn dump(family: u8, protocol: u8, states: StateFlags) -> io::Result<Vec<InetResponseHeader>> {
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: if family == AF_INET6 { SocketId::new_v6() } else { SocketId::new_v4() },
    };
    ask(request, NLM_F_DUMP)
}

/// Sends a request and takes the answer: one socket, or with `NLM_F_DUMP` all that match.
fn ask(request: InetRequest, flags: u16) -> io::Result<Vec<InetResponseHeader>> {
    let answers = netlink::ask(NETLINK_SOCK_DIAG, SockDiagMessage::InetRequest(request), flags)?;
    let sockets = answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => Some(response.header),
        _ => None,
    });
    Ok(sockets.collect())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::{AsFd, AsRawFd},
    };

    use super::*;

    /// The inode of one of our sockets.
    fn inode_of(socket: &impl AsFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd())).unwrap();
        let text = link.to_str().unwrap();
        text.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn the_socket_that_a_packet_is_for_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (Ok(reader), Ok(listener)) = (UdpSocket::bind(address), TcpListener::bind(address)) else {
                println!("SKIP: no {address} here");
                continue;
            };
            let far = |port| Endpoint::new(reader.local_addr().unwrap().ip(), port);
            let ends = |udp, from, to| Ends { udp, from, to, interface: 0 };
            let to = reader.local_addr().unwrap();
            let found = match receiver(ends(true, far(5), to)) {
                Ok(found) => found,
                Err(error) => {
                    println!("SKIP: no sock_diag for UDP here: {error}");
                    return;
                }
            };
            assert_eq!(found, Some(inode_of(&reader)));
            reader.connect(far(6)).unwrap();
            assert_eq!(receiver(ends(true, far(5), to)).unwrap(), None, "it is connected to another port");
            assert_eq!(receiver(ends(true, far(6), to)).unwrap(), Some(inode_of(&reader)));

            let to = listener.local_addr().unwrap();
            assert_eq!(receiver(ends(false, far(7), to)).unwrap(), Some(inode_of(&listener)));
            let client = TcpStream::connect(to).unwrap();
            let (server, from) = listener.accept().unwrap();
            assert_eq!(receiver(ends(false, from, to)).unwrap(), Some(inode_of(&server)));
            assert_eq!(receiver(ends(false, to, from)).unwrap(), Some(inode_of(&client)));
        }
    }

    #[test]
    fn a_listener_of_this_namespace_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = match listeners(false, address.port()) {
            Ok(found) => found.unwrap(),
            Err(error) => {
                println!("SKIP: no sock_diag here: {error}");
                return;
            }
        };
        assert_eq!((found.listener.port, found.listener.length), (address.port(), 0));
        assert_eq!(found.listener.address[..4], [127, 0, 0, 1]);
        assert!(found.listener.limit > 0);
        assert_eq!(found.inode, inode_of(&listener));
        drop(listener);
        assert_eq!(listeners(false, address.port()).unwrap(), None);
    }
}
