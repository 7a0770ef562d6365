//! What a rule asks of packets, as far as it can be held against a dropped one. What is not understood asks for nothing:
//! a rule is left out only when it certainly does not match.

use std::net::IpAddr;

use ipnet::IpNet;

use super::candidates::Place;
use crate::packet::{Family, Packet, Protocol};

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Network layer: 4 or 6.
    Version,
    /// Transport protocol.
    Protocol,
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// Device that the packet came in by.
    In,
    /// Device that it leaves by.
    Out,
}

/// Values that a condition accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Numbers from, to.
    Numbers(Vec<(u16, u16)>),
    /// Addresses.
    Networks(Vec<IpNet>),
    /// Names of devices; a `*` or `+` at the end stands for anything.
    Names(Vec<String>),
}

/// One thing that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) subject: Subject,
    pub(super) values: Values,
    pub(super) negated: bool,
}

impl Condition {
    /// A protocol.
    pub(super) fn protocol(number: u8) -> Self {
        Self::number(Subject::Protocol, u16::from(number))
    }

    /// IP version 4 or 6.
    pub(super) fn version(number: u16) -> Self {
        Self::number(Subject::Version, number)
    }

    fn number(subject: Subject, number: u16) -> Self {
        Self { subject, values: Values::Numbers(vec![(number, number)]), negated: false }
    }

    /// Whether a packet may meet it: no only when it certainly does not.
    pub(super) fn may_meet(&self, packet: &Packet, place: &Place<'_>) -> bool {
        let met = match (&self.values, self.subject) {
            (Values::Numbers(ranges), subject) => number(subject, packet)
                .map(|number| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number))),
            (Values::Networks(networks), Subject::Source) => within(packet.src, networks),
            (Values::Networks(networks), Subject::Destination) => within(packet.dst, networks),
            (Values::Names(names), Subject::In) => place.came_in_by().map(|device| named(device, names)),
            (Values::Names(names), Subject::Out) => place.leaves_by().map(|device| named(device, names)),
            (Values::Networks(_) | Values::Names(_), _) => None,
        };
        met.is_none_or(|met| met != self.negated)
    }

    /// Values of a subject; nothing where one of them is not understood.
    pub(super) fn of<'a>(
        subject: Subject,
        values: impl IntoIterator<Item = &'a str>,
        negated: bool,
    ) -> Option<Self> {
        let values = values.into_iter();
        let values = match subject {
            Subject::Version => return None,
            Subject::Protocol => Values::Numbers(
                values.map(|name| protocol(name).map(u16::from).map(|n| (n, n))).collect::<Option<_>>()?,
            ),
            Subject::Source | Subject::Destination => {
                Values::Networks(values.map(network).collect::<Option<_>>()?)
            }
            Subject::SourcePort | Subject::DestinationPort => {
                Values::Numbers(values.map(range).collect::<Option<_>>()?)
            }
            Subject::In | Subject::Out => Values::Names(values.map(name).collect::<Option<_>>()?),
        };
        Some(Self { subject, values, negated })
    }
}

/// A number of the packet; nothing where it is not known.
fn number(subject: Subject, packet: &Packet) -> Option<u16> {
    /// Extension headers of IPv6: as a "protocol" they say that nobody looked behind them.
    const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];
    match subject {
        Subject::Version => match packet.family? {
            Family::Ipv4 => Some(4),
            Family::Ipv6 => Some(6),
            _ => None,
        },
        Subject::Protocol => match packet.proto? {
            Protocol::Ip(number) if packet.family == Some(Family::Ipv6) && EXTENSIONS.contains(&number) => {
                None
            }
            Protocol::Ip(number) => Some(u16::from(number)),
            Protocol::Arp => None,
        },
        Subject::SourcePort => packet.sport,
        Subject::DestinationPort => packet.dport,
        _ => None,
    }
}

fn within(address: Option<IpAddr>, networks: &[IpNet]) -> Option<bool> {
    Some(networks.iter().any(|network| address.is_some_and(|address| network.contains(&address))))
        .filter(|_| address.is_some())
}

fn named(device: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_suffix(['*', '+']) {
        Some(begin) => device.starts_with(begin),
        None => device == name,
    })
}

/// The number of a protocol by its name in /etc/protocols.
fn protocol(name: &str) -> Option<u8> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    // Those names that differ from ours: the IANA's.
    match name {
        "ipv6-icmp" | "icmpv6" => return Some(58),
        "ipencap" => return Some(4),
        _ => {}
    }
    Protocol::NAMED.iter().find(|(known, _)| *known == name).and_then(|(_, protocol)| match protocol {
        // `ipip` is 94 there.
        Protocol::Ip(4) | Protocol::Arp => None,
        Protocol::Ip(number) => Some(*number),
    })
}

/// `10.0.0.0/8`, `::1`; no masks with holes.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    text.parse().ok()
}

/// `80`, `1000-2000`, `1000:2000`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once(['-', ':']).unwrap_or((text, text));
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// A device, but no range of names: nft prints ranges that it cannot read back.
fn name(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['{', '}', '@', '$', '"']) && text.len() < 16;
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            family: Some(Family::Ipv4),
            proto: Some(Protocol::TCP),
            src: Some("10.0.0.1".parse().unwrap()),
            dst: Some("192.0.2.9".parse().unwrap()),
            sport: Some(4000),
            dport: Some(80),
            ..Packet::default()
        }
    }

    fn meets(subject: Subject, values: &[&str], negated: bool) -> bool {
        let place = Place { family: "ip", hook: "input", device: Some("eth0"), bridged: false };
        let condition = Condition::of(subject, values.iter().copied(), negated).expect("understood");
        condition.may_meet(&packet(), &place)
    }

    #[test]
    fn what_is_certain_leaves_out() {
        assert!(meets(Subject::Protocol, &["tcp"], false));
        assert!(!meets(Subject::Protocol, &["udp", "icmp"], false));
        assert!(!meets(Subject::Protocol, &["tcp"], true));
        assert!(meets(Subject::DestinationPort, &["22", "79:81"], false));
        assert!(!meets(Subject::DestinationPort, &["22", "8080-8090"], false));
        assert!(!meets(Subject::Source, &["10.0.0.2/32"], false));
        assert!(meets(Subject::Source, &["10.0.0.0/8"], false));
        assert!(!meets(Subject::Destination, &["192.0.2.0/24"], true));
        assert!(meets(Subject::In, &["eth*"], false));
        assert!(!meets(Subject::In, &["lo"], false));
        assert!(meets(Subject::Out, &["lo"], false), "not known in this hook");
    }

    #[test]
    fn what_is_not_understood_or_not_known_leaves_out_nothing() {
        assert_eq!(Condition::of(Subject::DestinationPort, ["@ports"], false), None);
        assert_eq!(Condition::of(Subject::Protocol, ["unheard-of"], false), None);
        assert_eq!(Condition::of(Subject::Source, ["10.0.0.1", "map"], false), None);
        assert_eq!(Condition::of(Subject::Source, ["10.0.0.1/255.0.255.0"], false), None);
        let unknown = Packet::default();
        let place = Place { family: "ip", hook: "input", device: None, bridged: false };
        for condition in [Condition::protocol(6), Condition::version(4)] {
            assert!(condition.may_meet(&unknown, &place));
        }
    }

    #[test]
    fn protocols_by_the_names_of_the_tools() {
        let names = ["tcp", "udp", "icmp", "ipv6-icmp", "sctp", "esp", "ah", "gre", "99", "ipencap", "ipip"];
        let numbers = names.map(protocol);
        let known = [6, 17, 1, 58, 132, 50, 51, 47, 99, 4].map(Some);
        assert_eq!(numbers[..10], known);
        assert_eq!(numbers[10], None);
    }
}
