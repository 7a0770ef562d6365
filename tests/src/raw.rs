//! Raw and ping sockets, and packets of protocols that have no other.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use etherparse::IpNumber;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, bind, ipproto, socket_with,
};

use crate::frame::Hop;
use crate::netns::Netns;

/// An IP protocol for experiments (RFC 3692), which no kernel handles.
pub const IP_PROTOCOL: u8 = 253;

impl Hop {
    /// A whole packet of any IP protocol.
    #[track_caller]
    pub fn other(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip(64).write(&mut frame, IpNumber(protocol), payload).expect("a packet fits a vector");
        frame
    }
}

impl Netns {
    /// A raw socket of this namespace that gets every packet of an IP protocol.
    #[track_caller]
    pub fn raw_socket(&self, ipv6: bool, protocol: u8) -> OwnedFd {
        let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let protocol = RawProtocol::new(protocol.into()).map(Protocol::from_raw);
        let socket = self.enter(|| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol));
        socket.unwrap_or_else(|error| panic!("raw socket in {}: {error}", self.name()))
    }

    /// A socket of this namespace as ping opens it, for answers with the identifier `id`.
    #[track_caller]
    pub fn ping_socket(&self, any: &str, id: u16) -> OwnedFd {
        let any: IpAddr = any.parse().unwrap_or_else(|error| panic!("{any}: {error}"));
        let (family, protocol) = match any {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        // Who may open one, for both families: nobody, by the kernel's default.
        self.sysctl("net/ipv4/ping_group_range", "0 0");
        let socket = self.enter(|| {
            let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(protocol))?;
            bind(&socket, &SocketAddr::new(any, id))?;
            Ok::<_, rustix::io::Errno>(socket)
        });
        socket.unwrap_or_else(|error| panic!("ping socket in {}: {error}", self.name()))
    }
}
