//! IP packets in pieces.

use std::net::IpAddr;

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header,
};

use crate::damage::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN};
use crate::frame::Hop;

/// A UDP datagram that is cut in pieces.
#[derive(Clone, Debug)]
pub struct Whole {
    hop: Hop,
    id: u16,
    /// UDP header and payload.
    bytes: Vec<u8>,
}

impl Whole {
    /// A datagram with `payload` bytes of data; `id` tells the pieces of one packet from another's.
    #[track_caller]
    pub fn udp(hop: Hop, id: u16, sport: u16, dport: u16, payload: usize) -> Self {
        let frame = hop.udp(64, sport, dport, &vec![b'n'; payload]);
        let header_len = if hop.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        Self { hop, id, bytes: frame[ETHERNET_LEN + header_len..].to_vec() }
    }

    /// The frame that carries the bytes `from..to`. `from` is a multiple of 8, and so is `to` unless it is
    /// the end: then the piece says that it is the last one.
    #[track_caller]
    pub fn piece(&self, from: usize, to: usize) -> Vec<u8> {
        let bytes = &self.bytes[from..to];
        let more = to < self.bytes.len();
        assert!(
            from.is_multiple_of(8) && (!more || to.is_multiple_of(8)),
            "pieces are cut at multiples of 8"
        );
        let offset = IpFragOffset::try_new(u16::try_from(from / 8).expect("an offset of 16 bits"))
            .expect("an offset of 13 bits");
        let mut frame = Vec::new();
        self.hop
            .ethernet()
            .ip(self.header(offset, more))
            .write(&mut frame, IpNumber::UDP, bytes)
            .expect("a fragment fits a vector");
        frame
    }

    /// A header of this piece; lengths and next-header fields are filled in when the frame is written.
    #[track_caller]
    fn header(&self, offset: IpFragOffset, more: bool) -> IpHeaders {
        match (self.hop.src, self.hop.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, src.octets(), dst.octets())
                    .expect("an empty payload fits");
                header.identification = self.id;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = offset;
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                    hop_limit: 64,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Default::default()
                };
                let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, u32::from(self.id));
                IpHeaders::Ipv6(header, Ipv6Extensions { fragment: Some(fragment), ..Default::default() })
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
    }
}
