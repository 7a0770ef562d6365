//! Damaged packets: fields of a whole frame, overwritten so that its headers contradict themselves.

/// Bytes of an Ethernet header without VLAN tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_LEN: usize = 40;

/// Where the length is in a UDP header.
pub const UDP_LENGTH: usize = 4;
/// Where the length of the header is in a TCP header.
pub const TCP_OFFSET: usize = 12;
/// Where the checksum is in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;
/// In a UDP header.
pub const UDP_CHECKSUM: usize = 6;
/// In a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// In the header of an ICMP message, of either family.
pub const ICMP_CHECKSUM: usize = 2;

/// The frame with one byte overwritten, `offset` bytes behind the Ethernet header.
#[must_use]
pub fn with_byte(mut frame: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    frame[ETHERNET_LEN + offset] = value;
    frame
}

/// The frame with a 16-bit field overwritten, `offset` bytes behind the Ethernet header.
#[must_use]
pub fn with_u16(mut frame: Vec<u8>, offset: usize, value: u16) -> Vec<u8> {
    frame[ETHERNET_LEN + offset..][..2].copy_from_slice(&value.to_be_bytes());
    frame
}

/// The frame with another value in a checksum, `offset` bytes behind the Ethernet header. Never 0: in UDP
/// that means that there is none.
#[must_use]
pub fn with_wrong_checksum(mut frame: Vec<u8>, offset: usize) -> Vec<u8> {
    let field = &mut frame[ETHERNET_LEN + offset..][..2];
    field[1] ^= 0x55;
    if field == [0, 0] {
        field[1] = 0xaa;
    }
    frame
}

/// The first bytes of the frame: `len` behind the Ethernet header.
#[must_use]
pub fn cut(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.truncate(ETHERNET_LEN + len);
    frame
}

/// The frame with a right checksum of its IPv4 header without options.
#[must_use]
pub fn with_ipv4_checksum(frame: Vec<u8>) -> Vec<u8> {
    let frame = with_u16(frame, IPV4_CHECKSUM, 0);
    let header = &frame[ETHERNET_LEN..][..IPV4_LEN];
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    // The carries of ten 16-bit words fit the upper half; adding them can carry once more.
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    with_u16(frame, IPV4_CHECKSUM, !(folded as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_known_header() {
        // A worked example that is widely printed: 4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7.
        let header: [u16; 10] = [0x4500, 0x0073, 0x0000, 0x4000, 0x4011, 0, 0xc0a8, 0x0001, 0xc0a8, 0x00c7];
        let mut frame = vec![0; ETHERNET_LEN];
        frame.extend(header.iter().flat_map(|word| word.to_be_bytes()));
        let frame = with_ipv4_checksum(frame);
        assert_eq!(frame[ETHERNET_LEN + 10..][..2], [0xb8, 0x61]);
    }
}
