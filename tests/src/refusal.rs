//! Calls that the kernel refuses for want of a port, and what an outcome says of them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, ipproto, listen, sendto, socket};
use rustix::net::{SendFlags, sockopt};
use serde_json::Value;

use crate::netns::Netns;
use crate::outcome::Outcome;

/// First port of the range that a scenario gives a namespace.
pub const FIRST: u16 = 40_000;

/// A refused call, as a scenario expects every event of it.
pub struct Refused<'a> {
    /// Cause id.
    pub cause: &'static str,
    /// The call, and what it answered; `None` where this kernel does not tell which call it was.
    pub call: Option<(&'static str, &'static str)>,
    /// Where.
    pub netns: &'a Netns,
    /// How many calls failed.
    pub count: u64,
    /// Fields that `packet` of every such event must have.
    pub packet: Value,
}

impl Netns {
    /// Lets the kernel choose among `count` ports from [`FIRST`] on.
    #[track_caller]
    pub fn few_ports(&self, count: u16) {
        self.sysctl("net/ipv4/ip_local_port_range", &format!("{FIRST} {}", FIRST + count - 1));
    }

    /// Sockets of this namespace to `address`, each by a port that the kernel chooses.
    #[track_caller]
    pub fn connect_all(&self, address: SocketAddr, count: u16) -> Vec<TcpStream> {
        let one =
            |_| TcpStream::connect(address).unwrap_or_else(|error| panic!("connect {address}: {error}"));
        self.enter(|| (0..count).map(one).collect())
    }
}

/// A socket of this thread's namespace, of a stream or of datagrams.
#[track_caller]
pub fn new_socket(to: IpAddr, stream: bool) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) =
        if stream { (SocketType::STREAM, ipproto::TCP) } else { (SocketType::DGRAM, ipproto::UDP) };
    socket(family, kind, Some(protocol)).unwrap_or_else(|error| panic!("socket: {error}"))
}

/// Calls `connect()` on a new socket and returns how it failed.
#[track_caller]
pub fn failed_connect(to: SocketAddr, stream: bool) -> io::Error {
    failed("connect", connect(new_socket(to.ip(), stream), &to))
}

/// Calls `bind()` on a new socket and returns how it failed.
#[track_caller]
pub fn failed_bind(address: SocketAddr, stream: bool) -> io::Error {
    failed("bind", bind(new_socket(address.ip(), stream), &address))
}

/// Sends a datagram by a new socket and returns how that failed.
#[track_caller]
pub fn failed_send(to: SocketAddr) -> io::Error {
    failed("sendto", sendto(new_socket(to.ip(), false), b"x", SendFlags::empty(), &to).map(drop))
}

#[track_caller]
fn failed(what: &str, result: rustix::io::Result<()>) -> io::Error {
    io::Error::from(result.err().unwrap_or_else(|| panic!("{what} was not refused")))
}

/// A socket bound to `address`, with SO_REUSEADDR, that does not listen yet.
#[track_caller]
pub fn bound(address: SocketAddr) -> OwnedFd {
    let socket = new_socket(address.ip(), true);
    sockopt::set_socket_reuseaddr(&socket, true).unwrap_or_else(|error| panic!("SO_REUSEADDR: {error}"));
    bind(&socket, &address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket
}

/// Calls `listen()` and returns how it failed.
#[track_caller]
pub fn failed_listen(socket: &OwnedFd) -> io::Error {
    failed("listen", listen(socket, 1))
}

/// The address of a socket.
#[track_caller]
pub fn local(socket: &impl AsFd) -> SocketAddr {
    let name = getsockname(socket).unwrap_or_else(|error| panic!("getsockname: {error}"));
    name.try_into().unwrap_or_else(|error| panic!("getsockname: {error}"))
}

/// A listener that answers `clients` connections by closing them first: its ends wait in TIME_WAIT.
#[track_caller]
pub fn close_first(listener: &TcpListener, clients: &[TcpStream]) {
    for _ in clients {
        let (stream, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
        drop(stream);
    }
}

impl Outcome {
    /// Requires that the refused calls are in the summary and all among the events, named and placed as expected,
    /// and by this process; returns the first event.
    #[track_caller]
    pub fn expect_refused(&self, refused: &Refused<'_>) -> &Value {
        let Refused { cause, call, netns, count, packet } = refused;
        let like = |event: &&Value| {
            let call_fits = call.is_none_or(|(name, _)| event["evidence"]["call"]["name"] == name);
            let fields = packet.as_object().into_iter().flatten();
            event["cause"]["id"] == *cause
                && call_fits
                && fields.into_iter().all(|(field, value)| event["packet"][field] == *value)
        };
        let events: Vec<&Value> = self.refusals.iter().filter(like).collect();
        assert_eq!(events.len() as u64, *count, "{cause}: events like {packet} by {call:?}");
        for event in &events {
            assert_eq!(event["cause"]["class"], "harmful", "{event}");
            assert_eq!(event["cause"]["confidence"], "observed", "{event}");
            assert_eq!(event["netns"]["inode"], netns.inode(), "{event}");
            assert_eq!(event["netns"]["name"], netns.name(), "{event}");
            assert_eq!(event["process"]["pid"], std::process::id(), "{event}");
            assert_eq!(event["process"]["evidence"], "call", "{event}");
            assert!(event["packet"]["len"].is_null(), "{event}");
            if let Some((_, errno)) = call {
                assert_eq!(event["evidence"]["call"]["errno"], *errno, "{event}");
            }
        }
        events[0]
    }

    /// Requires that so many calls were refused, and that all of them were shown.
    #[track_caller]
    pub fn expect_refusals(&self, count: u64) {
        assert_eq!(self.number("refusals"), count, "refusals");
        assert_eq!(self.refusals.len() as u64, count, "refusal events");
        let refused = &self.summary["refused"];
        assert_eq!(refused["shown"], count, "{refused}");
        for none in ["hidden", "lost", "counted_only"] {
            assert_eq!(refused[none], 0, "{refused}");
        }
    }
}
