//! Ordinary traffic through sockets inside a namespace, counted by the sender.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use crate::netns::Netns;

/// What a sender was told about its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sends that succeeded.
    pub accepted: u64,
    /// Sends the kernel refused with EPERM: a firewall dropped the packet on its way out.
    pub refused: u64,
}

impl Netns {
    /// A UDP socket of this namespace, bound to `address`.
    #[track_caller]
    pub fn udp_socket(&self, address: &str) -> UdpSocket {
        self.enter(|| UdpSocket::bind(address))
            .unwrap_or_else(|error| panic!("bind UDP {address} in {}: {error}", self.name()))
    }

    /// Connects to `address`, expecting the peer to refuse.
    #[track_caller]
    pub fn connect_refused(&self, address: &str) {
        let target = parse(address);
        match self.enter(|| TcpStream::connect(target)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => panic!("connect to {address} should have been refused: {other:?}"),
        }
    }
}

/// Sends `count` datagrams of `len` bytes, one after the other.
#[track_caller]
pub fn send_udp(socket: &UdpSocket, to: &str, count: u64, len: usize) -> Sent {
    let target = parse(to);
    let payload = vec![b'n'; len];
    let mut sent = Sent::default();
    for _ in 0..count {
        match socket.send_to(&payload, target) {
            Ok(_) => sent.accepted += 1,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => sent.refused += 1,
            Err(error) => panic!("send to {to}: {error}"),
        }
    }
    sent
}

/// Limits how much a socket may hold unread, and returns what the kernel made of it.
#[track_caller]
pub fn limit_receive_buffer(socket: &impl AsFd, bytes: usize) -> u64 {
    let limited = rustix::net::sockopt::set_socket_recv_buffer_size(socket, bytes)
        .and_then(|()| rustix::net::sockopt::socket_recv_buffer_size(socket))
        .map_err(io::Error::from);
    limited.unwrap_or_else(|error| panic!("SO_RCVBUF {bytes}: {error}")) as u64
}

/// An `address:port` of a scenario's own text.
#[track_caller]
pub(crate) fn parse(address: &str) -> SocketAddr {
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}
