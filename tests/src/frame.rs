//! Hand-made Ethernet frames, also wrong ones, put on a wire as they are.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use etherparse::{Ethernet2Header, IpHeaders, PacketBuilder, PacketBuilderStep};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};

use crate::link::End;
use crate::netns::Netns;

/// Who a frame says it is from and to.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Source and destination hardware address.
    pub macs: ([u8; 6], [u8; 6]),
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
}

impl Hop {
    /// From one end of a wire to the other.
    pub fn between(from: End, to: End) -> Self {
        Self { macs: (from.mac, to.mac), src: from.ip, dst: to.ip }
    }

    /// The same wire, another source address.
    #[must_use]
    pub fn with_src(self, src: &str) -> Self {
        Self { src: address(src), ..self }
    }

    /// The same wire, another destination address.
    #[must_use]
    pub fn with_dst(self, dst: &str) -> Self {
        Self { dst: address(dst), ..self }
    }

    /// An Ethernet frame to be filled.
    pub fn ethernet(&self) -> PacketBuilderStep<Ethernet2Header> {
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
    }

    /// An IPv4 or IPv6 packet to be filled.
    #[track_caller]
    pub fn ip(&self, ttl: u8) -> PacketBuilderStep<IpHeaders> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ethernet().ipv4(src.octets(), dst.octets(), ttl),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ethernet().ipv6(src.octets(), dst.octets(), ttl),
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
    }

    /// A whole UDP datagram with correct checksums.
    #[track_caller]
    pub fn udp(&self, ttl: u8, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip(ttl).udp(sport, dport).write(&mut frame, payload).expect("a UDP datagram fits a vector");
        frame
    }

    /// A whole TCP SYN with correct checksums.
    #[track_caller]
    pub fn syn(&self, sport: u16, dport: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip(64)
            .tcp(sport, dport, 1, 64240)
            .syn()
            .write(&mut frame, &[])
            .expect("a TCP segment fits a vector");
        frame
    }
}

impl Netns {
    /// Sends each frame once out of `device`, exactly as it is.
    #[track_caller]
    pub fn send_frames<'a>(&self, device: &str, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        // Protocol 0: the socket receives nothing, so it makes no copies that could be dropped.
        let socket = packet_socket(self, device, 0);
        for frame in frames {
            match send(&socket, frame, SendFlags::empty()) {
                Ok(sent) => assert_eq!(sent, frame.len(), "short send on {device}"),
                // A queue or filter of the device dropped it.
                Err(Errno::NOBUFS) => {}
                Err(error) => panic!("send on {device}: {error}"),
            }
        }
    }
}

/// A packet socket on `device` that receives frames of this ethertype, none when it is 0.
#[track_caller]
pub fn packet_socket(netns: &Netns, device: &str, ethertype: u16) -> OwnedFd {
    // From the start without a protocol: a socket that has one receives from all devices until it is bound.
    let socket = netns.enter(|| {
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let index = name_to_index(socket.as_fd(), device)?;
        bind_to_device(&socket, index, ethertype)?;
        Ok::<_, io::Error>(socket)
    });
    socket.unwrap_or_else(|error| panic!("packet socket on {device}: {error}"))
}

/// Binds a packet socket to the device `index` and an ethertype.
fn bind_to_device(socket: &impl AsFd, index: u32, ethertype: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a live sockaddr_ll and the length is that type's.
    let bound = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An address of a scenario's own text.
#[track_caller]
fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
