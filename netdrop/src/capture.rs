//! The captured bytes of a dropped packet, and what they start with.

use netdrop_common::event::{CAPTURE_LEN, DropEvent, NO_OFFSET, TUPLE_NOT_NETWORK};

/// What captured bytes start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header, which says by its first bits which of the two it is.
    Ip,
    /// The header of what this ethertype stands for: ARP that has no Ethernet header yet, or an IP header that
    /// contradicts its ethertype.
    Network(u16),
}

/// The first bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// What they start with.
    pub link: Link,
    /// Length of the whole packet, from the same place on; never less than what was captured.
    pub original: u32,
    /// `skb->pkt_type` (include/uapi/linux/if_packet.h).
    pub packet_type: u8,
    bytes: [u8; CAPTURE_LEN],
    start: u16,
    end: u16,
}

impl Capture {
    /// The captured bytes of a record; nothing when it has none, or none that a reader could make sense of.
    #[must_use]
    pub fn of(record: &DropEvent) -> Option<Self> {
        let end = usize::from(record.caplen).min(CAPTURE_LEN);
        if end == 0 || record.l3_offset == NO_OFFSET || record.tuple.have & TUPLE_NOT_NETWORK != 0 {
            return None;
        }
        let (link, start) = if record.has_ethernet() {
            (Link::Ethernet, 0)
        } else {
            let network = record.bytes[..end].get(usize::from(record.l3_offset)..)?;
            (network_link(record.tuple.ethertype, *network.first()?)?, record.l3_offset)
        };
        // `start` lies at the network header or, with an Ethernet header, that far before it.
        let before_network = u32::from(record.l3_offset - start);
        let end = end as u16;
        Some(Self {
            link,
            original: record.l3_len.saturating_add(before_network).max(u32::from(end - start)),
            packet_type: record.packet_type,
            bytes: record.bytes,
            start,
            end,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }
}

/// What a packet without link-layer header starts with, by its ethertype (0: not known) and first byte.
fn network_link(ethertype: u16, first: u8) -> Option<Link> {
    match (ethertype, first >> 4) {
        (0 | 0x0800, 4) | (0 | 0x86dd, 6) => Some(Link::Ip),
        (0, _) => None,
        _ => Some(Link::Network(ethertype)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use netdrop_common::event::HAVE_MAC;

    /// A record of a packet of 100 bytes from the network header on.
    fn record(have: u16, l3_offset: u16, ethertype: u16, bytes: &[u8]) -> DropEvent {
        let mut record = crate::decode::decode(&[0; size_of::<DropEvent>()]).unwrap().event;
        (record.have, record.l3_offset, record.tuple.ethertype) = (have, l3_offset, ethertype);
        (record.l3_len, record.caplen) = (100, bytes.len() as u16);
        record.bytes[..bytes.len()].copy_from_slice(bytes);
        record
    }

    #[test]
    fn what_the_bytes_start_with() {
        let ip = [&[0x45; 40][..]].concat();
        let cases = [
            (HAVE_MAC, 14, 0x0800, Some((Link::Ethernet, 114, 40))),
            (HAVE_MAC, 22, 0x0800, Some((Link::Ethernet, 122, 40))),
            // An outer IP header, no Ethernet header.
            (HAVE_MAC, 20, 0x0800, Some((Link::Ip, 100, 20))),
            (0, 0, 0x0800, Some((Link::Ip, 100, 40))),
            (0, 0, 0, Some((Link::Ip, 100, 40))),
            (0, 0, 0x86dd, Some((Link::Network(0x86dd), 100, 40))),
            (0, 0, 0x0806, Some((Link::Network(0x0806), 100, 40))),
            (0, NO_OFFSET, 0x0800, None),
            (HAVE_MAC, 20 + 40, 0x0800, None),
        ];
        for (have, l3_offset, ethertype, expected) in cases {
            let capture = Capture::of(&record(have, l3_offset, ethertype, &ip));
            let found = capture.map(|capture| (capture.link, capture.original, capture.bytes().len()));
            assert_eq!(found, expected, "{have} {l3_offset} {ethertype:#x}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_capture() {
        assert_eq!(Capture::of(&record(0, 0, 0, &[0x20; 40])), None);
        assert_eq!(Capture::of(&record(0, 0, 0x0800, &[])), None);
        let mut local = record(0, 0, 0, &[0x45; 40]);
        local.tuple.have = TUPLE_NOT_NETWORK;
        assert_eq!(Capture::of(&local), None);
    }

    #[test]
    fn a_packet_is_never_shorter_than_what_was_captured() {
        let mut short = record(HAVE_MAC, 14, 0x0800, &[0x45; 60]);
        short.l3_len = 0;
        assert_eq!(Capture::of(&short).map(|capture| capture.original), Some(60));
    }

    proptest! {
        #[test]
        fn never_panics(
            bytes in proptest::collection::vec(any::<u8>(), CAPTURE_LEN),
            (have, caplen, l3_offset, ethertype) in any::<(u16, u16, u16, u16)>(),
            near in any::<bool>(),
        ) {
            let mut record = record(have, if near { l3_offset % 64 } else { l3_offset }, ethertype, &bytes);
            record.caplen = if near { caplen % 129 } else { caplen };
            if let Some(capture) = Capture::of(&record) {
                prop_assert!(capture.original as usize >= capture.bytes().len());
            }
        }
    }
}
