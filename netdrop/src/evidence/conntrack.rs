//! What connection tracking knows of a packet.

use std::net::IpAddr;

use netdrop_common::event::{ConnTuple, Connection};
use serde::Serialize;

use crate::packet::{Protocol, address};

/// The packet's connection, or the table that had no room for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conntrack {
    /// The connection as its first packet came.
    pub original: Option<Direction>,
    /// As answers are expected: what NAT made of it, turned round.
    pub reply: Option<Direction>,
    /// Conntrack zone.
    pub zone: Option<u16>,
    /// `snat`, `dnat` or `snat+dnat`.
    pub nat: Option<&'static str>,
    /// The connection that was there first, where a hook saw it.
    pub winner: Option<Winner>,
    /// Entries that the namespace has (`nf_conntrack_count`), read after the drop.
    pub count: Option<u32>,
    /// Entries that each namespace may have (`nf_conntrack_max`).
    pub max: Option<u32>,
}

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Direction {
    /// Source address.
    pub src: IpAddr,
    /// Source port, or the id of an ICMP echo.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port; type and code of an ICMP message.
    pub dport: u16,
    /// Transport protocol.
    pub proto: Protocol,
}

/// The other connection of a clash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// As its first packet came.
    pub original: Option<Direction>,
    /// As answers are expected.
    pub reply: Option<Direction>,
}

/// The table of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `nf_conntrack_count`.
    pub count: Option<u32>,
    /// `nf_conntrack_max`.
    pub max: Option<u32>,
}

impl Conntrack {
    /// What a record and the state of the table say; nothing when they say nothing.
    pub(super) fn new(connections: Option<&[Connection; 2]>, table: Table) -> Option<Self> {
        let own = connections.map(|[own, _]| own).filter(|own| own.have != 0);
        if own.is_none() && table == Table::default() {
            return None;
        }
        let winner = connections.map(|[_, winner]| winner).filter(|winner| winner.have != 0);
        // Its memory may have become another connection's since: it must be about the same packets.
        let winner = winner.filter(|winner| own.is_some_and(|own| clash(own, winner)));
        Some(Self {
            original: own.and_then(|own| Direction::new(&own.original)),
            reply: own.and_then(|own| Direction::new(&own.reply)),
            zone: own.map(|own| own.zone),
            nat: own.and_then(|own| nat(own.status)),
            winner: winner.map(|winner| Winner {
                original: Direction::new(&winner.original),
                reply: Direction::new(&winner.reply),
            }),
            count: table.count,
            max: table.max,
        })
    }
}

/// Whether two connections cannot stand in one table: a direction of one is a direction of the other.
fn clash(one: &Connection, other: &Connection) -> bool {
    [one.original, one.reply].iter().any(|tuple| [other.original, other.reply].contains(tuple))
}

fn nat(status: u32) -> Option<&'static str> {
    /// IPS_SRC_NAT and IPS_DST_NAT (include/uapi/linux/netfilter/nf_conntrack_common.h).
    const SRC: u32 = 1 << 4;
    const DST: u32 = 1 << 5;
    match (status & SRC != 0, status & DST != 0) {
        (true, true) => Some("snat+dnat"),
        (true, false) => Some("snat"),
        (false, true) => Some("dnat"),
        (false, false) => None,
    }
}

impl Direction {
    fn new(tuple: &ConnTuple) -> Option<Self> {
        let v6 = match i32::from(tuple.family) {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => return None,
        };
        Some(Self {
            src: address(&tuple.saddr, v6),
            sport: u16::from_be(tuple.sport),
            dst: address(&tuple.daddr, v6),
            dport: u16::from_be(tuple.dport),
            proto: Protocol::Ip(tuple.proto),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(saddr: [u8; 4], sport: u16, daddr: [u8; 4], dport: u16) -> ConnTuple {
        let wide = |address: [u8; 4]| {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&address);
            wide
        };
        ConnTuple {
            saddr: wide(saddr),
            daddr: wide(daddr),
            sport: sport.to_be(),
            dport: dport.to_be(),
            family: libc::AF_INET as u16,
            proto: 17,
            pad: 0,
        }
    }

    fn connection(status: u32) -> Connection {
        Connection {
            original: tuple([10, 0, 0, 1], 4000, [10, 9, 0, 1], 53),
            reply: tuple([10, 9, 0, 1], 53, [192, 0, 2, 1], 5000),
            status,
            zone: 7,
            have: 1,
        }
    }

    #[test]
    fn both_directions_and_nat() {
        let evidence = Conntrack::new(Some(&[connection(0x10), Connection::default()]), Table::default());
        let evidence = evidence.unwrap();
        let json = serde_json::to_value(&evidence).unwrap();
        assert_eq!(json["original"]["src"], "10.0.0.1");
        assert_eq!(json["original"]["dport"], 53);
        assert_eq!(json["reply"]["dst"], "192.0.2.1");
        assert_eq!(json["reply"]["dport"], 5000);
        assert_eq!(json["original"]["proto"], "udp");
        assert_eq!((evidence.zone, evidence.nat, evidence.winner), (Some(7), Some("snat"), None));
        assert_eq!(nat(0x30), Some("snat+dnat"));
        assert_eq!(nat(0x8), None);
    }

    #[test]
    fn a_winner_that_has_become_another_is_left_out() {
        let other = Connection { original: tuple([1, 1, 1, 1], 1, [2, 2, 2, 2], 2), ..connection(0) };
        let told = |winner| Conntrack::new(Some(&[connection(0), winner]), Table::default()).unwrap().winner;
        assert!(told(other).is_some(), "its answers are the same");
        let stranger = Connection { reply: other.original, ..other };
        assert!(told(stranger).is_none());
    }

    #[test]
    fn a_full_table_speaks_for_itself() {
        let table = Table { count: Some(200), max: Some(200) };
        let evidence = Conntrack::new(None, table).unwrap();
        assert_eq!((evidence.original, evidence.count, evidence.max), (None, Some(200), Some(200)));
        assert_eq!(Conntrack::new(None, Table::default()), None);
    }
}
