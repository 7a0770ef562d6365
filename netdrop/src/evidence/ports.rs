//! Ports of a namespace: how many are left, and who has one.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{
    cause::socket_state,
    packet::{Packet, Protocol},
};

/// States of sockets (include/net/tcp_states.h).
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const BOUND: u8 = 13;

/// A socket with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its own address, in plain form.
    pub local: SocketAddr,
    /// Its peer; port 0 without one.
    pub remote: SocketAddr,
    /// Its state.
    pub state: u8,
    /// Its inode; 0 where no process holds it.
    pub inode: u32,
}

/// The sockets of one protocol in a namespace, and the ports that it gives out itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTable {
    /// All sockets that have a port.
    pub sockets: Vec<Held>,
    /// `net.ipv4.ip_local_port_range`.
    pub range: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as ranges.
    pub reserved: Vec<(u16, u16)>,
}

/// The ports from which the kernel chooses one, and what has become of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Lowest.
    pub low: u16,
    /// Highest.
    pub high: u16,
    /// Those in between that are reserved: the kernel chooses none of them.
    pub reserved: u32,
    /// Those that it may choose.
    pub total: u32,
    /// Of these, in use: towards the destination, or by any socket where there is none.
    pub used: u32,
    /// Of those in use, only by connections in TIME_WAIT; nothing for protocols that have none.
    pub time_wait: Option<u32>,
    /// Of `total`, held by listeners: not to be had towards any destination. Nothing for protocols without.
    pub listening: Option<u32>,
}

/// The socket that has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its state.
    pub state: &'static str,
    /// Its address.
    pub local: SocketAddr,
    /// Its peer.
    pub remote: Option<SocketAddr>,
    /// Whether the kernel may have chosen the port: it lies in the range, and is no listener's.
    pub ephemeral: Option<bool>,
    /// How many sockets have the port at that address; this one is the one that is most in the way.
    pub sockets: u32,
    /// The process that holds it; nothing in TIME_WAIT, or where it is not found.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Inode of the socket; 0 where no process holds it.
    #[serde(skip)]
    pub inode: u32,
}

impl Holder {
    /// Whether it waits for connections: then two services want one port.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.state == socket_state(LISTEN)
    }
}

impl PortTable {
    fn is_reserved(&self, port: u16) -> bool {
        self.reserved.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// Whether the kernel may choose this port itself.
    fn may_choose(&self, port: u16) -> Option<bool> {
        let (low, high) = self.range?;
        Some((low..=high).contains(&port) && !self.is_reserved(port))
    }

    /// What is left for this call, which named no port.
    #[must_use]
    pub fn ports(&self, asked: &Packet) -> Option<Ports> {
        let (low, high) = self.range?;
        let reserved = (low..=high).filter(|port| self.is_reserved(*port)).count() as u32;
        let tcp = asked.proto == Some(Protocol::TCP);
        // TCP may use a port again towards another destination; a datagram socket has its port alone.
        let towards = asked.dst.zip(asked.dport).filter(|_| tcp);
        let mut used: HashMap<u16, bool> = HashMap::new();
        let mut listening = HashSet::new();
        for socket in &self.sockets {
            let port = socket.local.port();
            if self.may_choose(port) != Some(true) {
                continue;
            }
            if tcp && socket.state == LISTEN {
                listening.insert(port);
            }
            let in_the_way = match towards {
                Some((dst, dport)) => {
                    socket.remote == SocketAddr::new(dst, dport)
                        && asked.src.is_none_or(|src| src == socket.local.ip())
                }
                None => true,
            };
            if in_the_way {
                *used.entry(port).or_insert(true) &= socket.state == TIME_WAIT;
            }
        }
        Some(Ports {
            low,
            high,
            reserved,
            total: u32::from(high - low) + 1 - reserved,
            used: used.len() as u32,
            time_wait: tcp.then(|| used.values().filter(|waiting| **waiting).count() as u32),
            listening: tcp.then_some(listening.len() as u32),
        })
    }

    /// Who has the port that this call asked for.
    #[must_use]
    pub fn holder(&self, asked: &Packet) -> Option<Holder> {
        let port = asked.sport?;
        let at_it = || {
            self.sockets
                .iter()
                .filter(|socket| socket.local.port() == port && overlap(socket.local.ip(), asked.src))
        };
        let first = at_it().min_by_key(|socket| match socket.state {
            LISTEN => 0,
            TIME_WAIT => 2,
            _ => 1,
        })?;
        let udp = asked.proto == Some(Protocol::UDP);
        let own_choice = !matches!(first.state, LISTEN | BOUND) && (first.remote.port() != 0 || udp);
        Some(Holder {
            state: match first.state {
                CLOSE if udp => "unconnected",
                state => socket_state(state),
            },
            local: first.local,
            remote: Some(first.remote).filter(|remote| remote.port() != 0),
            ephemeral: self.may_choose(port).map(|may| may && own_choice),
            sockets: at_it().count() as u32,
            pid: None,
            comm: None,
            inode: first.inode,
        })
    }
}

/// Whether a socket at `held` is in the way of one at `wanted`; nothing is any address.
fn overlap(held: IpAddr, wanted: Option<IpAddr>) -> bool {
    held.is_unspecified() || wanted.is_none_or(|wanted| wanted == held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(local: &str, remote: &str, state: u8) -> Held {
        Held { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state, inode: 0 }
    }

    fn table() -> PortTable {
        PortTable {
            sockets: vec![
                held("10.0.0.1:32768", "10.0.0.2:80", 1),
                held("10.0.0.1:32769", "10.0.0.2:80", TIME_WAIT),
                held("10.0.0.1:32769", "10.0.0.3:80", 1),
                held("0.0.0.0:32770", "0.0.0.0:0", LISTEN),
                held("10.0.0.1:32771", "10.0.0.2:80", 1),
                held("0.0.0.0:22", "0.0.0.0:0", LISTEN),
                held("10.0.0.1:22", "10.0.0.9:5000", 1),
            ],
            range: Some((32768, 32773)),
            reserved: vec![(32771, 32771), (40000, 50000)],
        }
    }

    fn asked(src: Option<&str>, sport: Option<u16>, dst: Option<(&str, u16)>) -> Packet {
        Packet {
            proto: Some(Protocol::TCP),
            src: src.map(|src| src.parse().unwrap()),
            sport,
            dst: dst.map(|(dst, _)| dst.parse().unwrap()),
            dport: dst.map(|(_, dport)| dport),
            ..Packet::default()
        }
    }

    #[test]
    fn ports_are_counted_towards_the_destination() {
        let ports = table().ports(&asked(Some("10.0.0.1"), None, Some(("10.0.0.2", 80)))).unwrap();
        assert_eq!((ports.low, ports.high, ports.reserved, ports.total), (32768, 32773, 1, 5));
        assert_eq!((ports.used, ports.time_wait, ports.listening), (2, Some(1), Some(1)));
        let any = table().ports(&asked(None, None, None)).unwrap();
        assert_eq!((any.used, any.time_wait), (3, Some(0)));
        assert_eq!(PortTable::default().ports(&asked(None, None, None)), None);
    }

    #[test]
    fn the_holder_is_who_is_most_in_the_way() {
        let listener = table().holder(&asked(None, Some(22), None)).unwrap();
        assert_eq!((listener.state, listener.sockets, listener.ephemeral), ("listen", 2, Some(false)));
        assert!(listener.listens() && listener.remote.is_none());
        let client = table().holder(&asked(Some("10.0.0.1"), Some(32769), None)).unwrap();
        assert_eq!((client.state, client.sockets, client.ephemeral), ("established", 2, Some(true)));
        assert_eq!(table().holder(&asked(Some("10.0.0.7"), Some(32769), None)), None);
        assert_eq!(table().holder(&asked(None, Some(4), None)), None);
    }
}
