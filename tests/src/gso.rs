//! Packets that the kernel is to cut into segments, handed over as a guest or a VPN program does: with a
//! virtio header in front that says how.

use rustix::net::{SendFlags, send};

use crate::damage::{ETHERNET_LEN, IPV4_LEN, TCP_CHECKSUM};
use crate::frame::packet_socket;
use crate::netns::Netns;
use crate::sockopt;

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h) for TCP over IPv4 in Ethernet: segments of
/// `size` bytes, checksums to be filled in.
fn virtio_header(size: u16) -> Vec<u8> {
    const NEEDS_CSUM: u8 = 1;
    const GSO_TCPV4: u8 = 1;
    const TCP_LEN: usize = 20;
    let csum_start = (ETHERNET_LEN + IPV4_LEN) as u16;
    let mut header = vec![NEEDS_CSUM, GSO_TCPV4];
    for field in [csum_start + TCP_LEN as u16, size, csum_start, TCP_CHECKSUM as u16] {
        header.extend(field.to_ne_bytes());
    }
    header
}

impl Netns {
    /// Sends a frame with a TCP segment over IPv4 out of `device`, to be cut into segments of `size` bytes.
    #[track_caller]
    pub fn send_gso(&self, device: &str, frame: &[u8], size: u16) -> rustix::io::Result<()> {
        let socket = packet_socket(self, device, 0);
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1);
        let whole = [virtio_header(size).as_slice(), frame].concat();
        send(&socket, &whole, SendFlags::empty()).map(|sent| assert_eq!(sent, whole.len(), "short send"))
    }
}
