//! The dropped packet as outputs show it; serializes as the `packet` object of an event.

mod decode;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdrop_common::event::DropEvent;
use serde::ser::{Serialize, Serializer};

/// What is known of a packet. A field that could not be read is `None`: a truncated packet is a partial
/// one, never a guessed one.
///
/// Displays as one line of text: `tcp 10.0.0.1:5000 > 10.0.0.2:80 [S]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Packet {
    /// Network layer.
    pub family: Option<Family>,
    /// Transport layer, or `arp`.
    pub proto: Option<Protocol>,
    /// Source address; of ARP, the sender's.
    pub src: Option<IpAddr>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination address; of ARP, the target's.
    pub dst: Option<IpAddr>,
    /// Destination port.
    pub dport: Option<u16>,
    /// Bytes from the network header on, without link-layer padding.
    pub len: Option<u32>,
    /// Packets that this one stands for (GSO).
    pub segments: u16,
    /// TCP flags.
    pub tcp_flags: Option<TcpFlags>,
    /// ICMP type and code.
    pub icmp: Option<Icmp>,
    /// The packet that an ICMP error is about.
    pub inner: Option<Inner>,
    /// VLAN ids in the packet, the outermost first; a tag that the device took off is not among them.
    #[serde(skip)]
    pub vlan: Vec<u16>,
    /// A fragment without transport header: ports, flags and ICMP are in the first one.
    #[serde(skip)]
    pub later_fragment: bool,
}

/// An address of the kernel's, in network order: 16 bytes of IPv6, or the first four for IPv4.
pub(crate) fn address(bytes: &[u8; 16], v6: bool) -> IpAddr {
    if v6 {
        return Ipv6Addr::from(*bytes).into();
    }
    let [a, b, c, d, ..] = *bytes;
    Ipv4Addr::new(a, b, c, d).into()
}

impl Packet {
    /// Reads a packet from its ring record: what the kernel side read counts, captured bytes add the rest.
    #[must_use]
    pub fn from_event(event: &DropEvent) -> Self {
        decode::packet(event)
    }
}

/// Network layer of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// Anything else, by its ethertype.
    Other(u16),
}

impl Family {
    /// The family with this ethertype; 0 is no ethertype.
    #[must_use]
    pub const fn from_ethertype(ethertype: u16) -> Option<Self> {
        match ethertype {
            0 => None,
            0x0800 => Some(Self::Ipv4),
            0x86dd => Some(Self::Ipv6),
            0x0806 => Some(Self::Arp),
            other => Some(Self::Other(other)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4 => f.write_str("ipv4"),
            Self::Ipv6 => f.write_str("ipv6"),
            Self::Arp => f.write_str("arp"),
            Self::Other(ethertype) => write!(f, "0x{ethertype:04x}"),
        }
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a packet carries: a transport protocol by its IP number, or ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// IP protocol number.
    Ip(u8),
    /// ARP, which is none of IP's.
    Arp,
}

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self::Ip(6);
    /// UDP.
    pub const UDP: Self = Self::Ip(17);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self::Ip(1);
    /// ICMP for IPv6.
    pub const ICMP6: Self = Self::Ip(58);

    /// Protocols with a name that people use (IANA's number, tcpdump's spelling).
    pub const NAMED: &[(&str, Self)] = &[
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("icmp", Self::ICMP),
        ("icmp6", Self::ICMP6),
        ("arp", Self::Arp),
        ("igmp", Self::Ip(2)),
        ("ipip", Self::Ip(4)),
        ("dccp", Self::Ip(33)),
        ("ipv6", Self::Ip(41)),
        ("gre", Self::Ip(47)),
        ("esp", Self::Ip(50)),
        ("ah", Self::Ip(51)),
        ("ospf", Self::Ip(89)),
        ("pim", Self::Ip(103)),
        ("vrrp", Self::Ip(112)),
        ("sctp", Self::Ip(132)),
        ("udplite", Self::Ip(136)),
    ];

    /// Its lower-case name, where it has one that people use.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, protocol)| *protocol == self).map(|(name, _)| *name)
    }

    /// Whether its header begins with a source and a destination port.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Ip(6 | 17 | 33 | 132 | 136))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Ip(number)) => write!(f, "{number}"),
            (None, Self::Arp) => f.write_str("arp"),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(self),
        }
    }
}

/// TCP flags, byte 13 of the header; displays in tcpdump's spelling (`S`, `S.`, `R`, `P.`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        for (bit, letter) in ["F", "S", "R", "P", ".", "U", "E", "W"].iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// ICMP type and code, of IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// The packet inside an ICMP error: the one that it is about, from its sender's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inner {
    /// Network layer.
    pub family: Family,
    /// Transport layer.
    pub proto: Option<Protocol>,
    /// Source address.
    pub src: IpAddr,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: Option<u16>,
}
