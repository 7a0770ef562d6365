//! A TCP peer made by hand: it says what a scenario wants it to say, and keeps no rule.
//!
//! Its address and hardware address belong to no host, so nobody answers or resets in its place. It speaks
//! over a packet socket of `a`, and `b` knows its hardware address.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use etherparse::{EtherType, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};

use crate::frame::{Hop, packet_socket};
use crate::link::{Pair, spell};
use crate::netns::Netns;
use crate::traffic::parse;
use crate::wait::{self, DEADLINE};

/// The hardware address of every peer.
const MAC: [u8; 6] = [0x02, 0x4e, 0x44, 0xff, 0xff, 0x09];

/// The peer's initial sequence number: far from 0, so that numbers below it are no wrap-around.
pub const FIRST: u32 = 1_000_000;

/// The peer's timestamp clock when it starts, far from 0 as well.
pub const CLOCK: u32 = 500_000;

/// How long the peer waits for a frame before it looks at the clock.
const LOOK: Duration = Duration::from_millis(200);

/// A peer of one connection.
pub struct Peer {
    socket: OwnedFd,
    hop: Hop,
    ports: (u16, u16),
    /// TTL or hop limit of what it sends.
    pub ttl: u8,
    /// Sequence number of the next byte it has to send.
    pub next: u32,
    /// The next byte it expects, which it acknowledges.
    pub expected: u32,
    /// Window it announces.
    pub window: u16,
    /// TSval and TSecr of what it sends; `None` when it does not use timestamps.
    pub stamps: Option<(u32, u32)>,
}

impl Peer {
    /// A peer that speaks from port `sport` to port `dport` of `pair.b`.
    #[track_caller]
    pub fn new(pair: &Pair, sport: u16, dport: u16) -> Self {
        let (ip, kind) = match pair.b_end.ip {
            IpAddr::V4(_) => ("10.0.0.9", EtherType::IPV4),
            IpAddr::V6(_) => ("fd00::9", EtherType::IPV6),
        };
        pair.b.run(&format!(
            "ip neigh replace {ip} lladdr {} nud permanent dev {}",
            spell(MAC),
            pair.b_end.device
        ));
        let socket = packet_socket(&pair.a, pair.a_end.device, kind.0);
        set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))
            .unwrap_or_else(|error| panic!("SO_RCVTIMEO: {error}"));
        let mut hop = Hop::between(pair.a_end, pair.b_end).with_src(ip);
        hop.macs.0 = MAC;
        let ports = (sport, dport);
        Self { socket, hop, ports, ttl: 64, next: FIRST, expected: 0, window: 64240, stamps: None }
    }

    /// Uses timestamps from now on.
    pub fn use_timestamps(&mut self) {
        self.stamps = Some((CLOCK, 0));
    }

    /// The peer's address and port.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.hop.src, self.ports.0)
    }

    /// Addresses and ports of what it sends: its own and `b`'s.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.address(), SocketAddr::new(self.hop.dst, self.ports.1))
    }

    /// The header of an acknowledgment without data, to be changed where a scenario wants it wrong.
    pub fn header(&self) -> TcpHeader {
        let mut header = TcpHeader::new(self.ports.0, self.ports.1, self.next, self.window);
        header.ack = true;
        header.acknowledgment_number = self.expected;
        if let Some((value, echo)) = self.stamps {
            set_options(&mut header, &[TcpOptionElement::Timestamp(value, echo)]);
        }
        header
    }

    /// The header of a SYN with the usual options, without window scaling: windows are what the headers say.
    pub fn syn_header(&self) -> TcpHeader {
        let mut header = TcpHeader { ack: false, acknowledgment_number: 0, syn: true, ..self.header() };
        let mut options = vec![TcpOptionElement::MaximumSegmentSize(1400)];
        options.extend(self.stamps.map(|(value, echo)| TcpOptionElement::Timestamp(value, echo)));
        set_options(&mut header, &options);
        header
    }

    /// Sends a segment exactly as it is, with correct checksums.
    #[track_caller]
    pub fn send(&self, header: TcpHeader, payload: &[u8]) {
        let mut frame = Vec::new();
        self.hop.ip(self.ttl).tcp_header(header).write(&mut frame, payload).expect("a segment fits a vector");
        match send(&self.socket, &frame, SendFlags::empty()) {
            Ok(sent) => assert_eq!(sent, frame.len(), "short send"),
            Err(error) => panic!("send a segment: {error}"),
        }
    }

    /// Sends the next `len` bytes of its stream.
    #[track_caller]
    pub fn send_data(&mut self, len: usize) {
        self.send(TcpHeader { psh: true, ..self.header() }, &vec![b'n'; len]);
        self.next = self.next.wrapping_add(len as u32);
    }

    /// Sends its FIN.
    #[track_caller]
    pub fn send_fin(&mut self) {
        self.send(TcpHeader { fin: true, ..self.header() }, &[]);
        self.next = self.next.wrapping_add(1);
    }

    /// Waits for a segment to this peer that `wanted` accepts, and forgets those before it.
    #[track_caller]
    pub fn receive(&self, what: &str, wanted: impl Fn(&TcpHeader) -> bool) -> TcpHeader {
        let end = Instant::now() + DEADLINE;
        let mut frame = vec![0; 1 << 16];
        loop {
            assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
            let len = match recv(&self.socket, &mut frame, RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let Some(header) = self.parse(&frame[..len]) else { continue };
            if wanted(&header) {
                return header;
            }
        }
    }

    /// The header of a segment to this peer.
    fn parse(&self, frame: &[u8]) -> Option<TcpHeader> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        let ports = (tcp.destination_port(), tcp.source_port());
        (ports == self.ports).then(|| tcp.to_header())
    }

    /// Sends a SYN and waits for the answer, whose numbers it takes over.
    #[track_caller]
    pub fn open(&mut self) {
        self.send(self.syn_header(), &[]);
        let answer = self.receive("SYN-ACK", |header| header.syn && header.ack);
        self.next = self.next.wrapping_add(1);
        self.take_over(&answer);
    }

    /// Takes over the sequence number and timestamp of a SYN or SYN-ACK.
    pub fn take_over(&mut self, header: &TcpHeader) {
        self.expected = header.sequence_number.wrapping_add(1);
        if let (Some((_, echo)), Some((value, _))) = (&mut self.stamps, stamps(header)) {
            *echo = value;
        }
    }

    /// Connects to a listener of `b` and returns the listener's side.
    #[track_caller]
    pub fn connect(&mut self, listener: &TcpListener) -> TcpStream {
        self.open();
        self.send(self.header(), &[]);
        accept(listener)
    }

    /// Connects to a listener, lets its side close first, and closes: its side is in TIME_WAIT then.
    #[track_caller]
    pub fn connect_and_end(&mut self, listener: &TcpListener) {
        drop(self.connect(listener));
        self.receive("FIN", |header| header.fin);
        self.expected = self.expected.wrapping_add(1);
        self.send_fin();
    }

    /// Waits for the FIN and acknowledges it.
    #[track_caller]
    pub fn acknowledge_fin(&mut self) {
        self.receive("FIN", |header| header.fin);
        self.expected = self.expected.wrapping_add(1);
        self.send(self.header(), &[]);
    }
}

impl Netns {
    /// A TCP socket of this namespace that listens on `address`.
    #[track_caller]
    pub fn tcp_listener(&self, address: &str) -> TcpListener {
        let address = parse(address);
        self.enter(|| TcpListener::bind(address))
            .unwrap_or_else(|error| panic!("listen on {address} in {}: {error}", self.name()))
    }
}

impl Netns {
    /// A TCP socket of this namespace that is about to connect from one address to the other: its SYN is sent.
    #[track_caller]
    pub fn tcp_connecting(&self, from: &str, to: SocketAddr) -> OwnedFd {
        let from = parse(from);
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connecting = self.enter(|| {
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            bind(&socket, &from)?;
            match connect(&socket, &to) {
                Err(Errno::INPROGRESS) => Ok(socket),
                Err(error) => Err(error),
                Ok(()) => panic!("connected to {to} before it could answer"),
            }
        });
        connecting.unwrap_or_else(|error| panic!("connect from {from} to {to}: {error}"))
    }
}

/// Waits for a connection.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    wait::until("a connection to accept", || match listener.accept() {
        Ok((stream, _)) => Ok(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err("none".to_owned()),
        Err(error) => panic!("accept: {error}"),
    })
}

/// TSval and TSecr of a segment.
pub fn stamps(header: &TcpHeader) -> Option<(u32, u32)> {
    header.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::Timestamp(value, echo)) => Some((value, echo)),
        _ => None,
    })
}

/// Gives a header these options and no others.
fn set_options(header: &mut TcpHeader, options: &[TcpOptionElement]) {
    header.set_options(options).expect("a few options fit a TCP header");
}
