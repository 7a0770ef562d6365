//! Ring record bytes → [`DropEvent`], checked.

use bytes::Buf;
use netdrop_common::{
    event::{CAPTURE_LEN, DropEvent, IFNAME_LEN, Tuple},
    key::DropKey,
};

/// Why a record cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The kernel side and this program do not agree on the layout.
    #[error("a record of {found} bytes, expected {expected}")]
    Length {
        /// Bytes in the record.
        found: usize,
        /// Bytes of a [`DropEvent`].
        expected: usize,
    },
    /// The record says it holds more packet bytes than fit.
    #[error("a record that claims {0} packet bytes")]
    Capture(u16),
}

/// Reads one record. Fields stand in declaration order without gaps, in the machine's byte order.
///
/// # Errors
///
/// When the length is wrong or a field contradicts it.
pub fn decode(mut record: &[u8]) -> Result<DropEvent, DecodeError> {
    if record.len() != size_of::<DropEvent>() {
        return Err(DecodeError::Length { found: record.len(), expected: size_of::<DropEvent>() });
    }
    let buf = &mut record;
    let event = DropEvent {
        key: key(buf),
        time_ns: buf.get_u64_ne(),
        dst_input: buf.get_u64_ne(),
        tuple: tuple(buf),
        ifname: array::<IFNAME_LEN>(buf),
        ifindex: buf.get_u32_ne(),
        iif: buf.get_u32_ne(),
        l3_len: buf.get_u32_ne(),
        socket_used: buf.get_u32_ne(),
        socket_limit: buf.get_u32_ne(),
        segments: buf.get_u16_ne(),
        caplen: buf.get_u16_ne(),
        l3_offset: buf.get_u16_ne(),
        have: buf.get_u16_ne(),
        packet_type: buf.get_u8(),
        socket_state: buf.get_u8(),
        pad: array::<6>(buf),
        bytes: array::<CAPTURE_LEN>(buf),
    };
    if usize::from(event.caplen) > CAPTURE_LEN {
        return Err(DecodeError::Capture(event.caplen));
    }
    Ok(event)
}

fn key(buf: &mut &[u8]) -> DropKey {
    DropKey {
        netns_cookie: buf.get_u64_ne(),
        location: buf.get_u64_ne(),
        facts: buf.get_u64_ne(),
        netns_inode: buf.get_u32_ne(),
        reason: buf.get_u32_ne(),
        probe: buf.get_u32_ne(),
        pad: buf.get_u32_ne(),
    }
}

fn tuple(buf: &mut &[u8]) -> Tuple {
    Tuple {
        saddr: array::<16>(buf),
        daddr: array::<16>(buf),
        ethertype: buf.get_u16_ne(),
        sport: buf.get_u16_ne(),
        dport: buf.get_u16_ne(),
        proto: buf.get_u8(),
        tcp_flags: buf.get_u8(),
        icmp_type: buf.get_u8(),
        icmp_code: buf.get_u8(),
        ttl: buf.get_u8(),
        have: buf.get_u8(),
    }
}

fn array<const N: usize>(buf: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    buf.copy_to_slice(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record in which every byte differs from its neighbours.
    fn record() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size_of::<DropEvent>()).map(|n| (n % 251) as u8).collect();
        bytes[138..140].copy_from_slice(&64u16.to_ne_bytes());
        bytes
    }

    #[test]
    fn every_field_is_where_the_layout_puts_it() {
        let bytes = record();
        let event = decode(&bytes).unwrap();
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(event.key.netns_cookie, u64_at(0));
        assert_eq!(event.time_ns, u64_at(40));
        assert_eq!(event.dst_input, u64_at(48));
        assert_eq!(event.tuple.saddr, bytes[56..72]);
        assert_eq!(event.ifname, bytes[100..116]);
        assert_eq!(event.caplen, 64);
        assert_eq!(event.packet_type, bytes[144]);
        assert_eq!(event.bytes, bytes[152..280]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let bytes = record();
        for len in [0, 1, bytes.len() - 1] {
            let expected = size_of::<DropEvent>();
            assert_eq!(decode(&bytes[..len]), Err(DecodeError::Length { found: len, expected }));
        }
        let mut bytes = record();
        bytes[138..140].copy_from_slice(&129u16.to_ne_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Capture(129)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
