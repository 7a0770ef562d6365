//! The sockets of a namespace that have a port, by sock_diag.

use std::{fs, io, net::SocketAddr};

use netlink_packet_sock_diag::{
    constants::{AF_INET, AF_INET6},
    inet::{InetResponseHeader, StateFlags},
};

use super::dump;
use crate::evidence::{Held, PortTable};

/// Of this thread's namespace.
pub(super) fn table(protocol: u8) -> io::Result<PortTable> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        // All states, also those that the crate has no name for.
        let all = StateFlags::from_bits_retain(u32::MAX);
        match dump(family, protocol, all) {
            Ok(found) => sockets.extend(found.iter().map(held).filter(|held| held.local.port() != 0)),
            // A kernel without IPv6.
            Err(_) if family == AF_INET6 => {}
            Err(error) => return Err(error),
        }
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    Ok(PortTable {
        sockets,
        range: read("ip_local_port_range").and_then(|text| range(&text)),
        reserved: read("ip_local_reserved_ports").map(|text| reserved(&text)).unwrap_or_default(),
    })
}

fn held(header: &InetResponseHeader) -> Held {
    let id = &header.socket_id;
    Held {
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        state: header.state,
        inode: header.inode,
    }
}

/// `32768 60999`, with a tab between.
fn range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace();
    let (low, high) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (low <= high).then_some((low, high))
}

/// `8080,9000-9010`
fn reserved(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some((low.parse().ok()?, high.parse().ok()?))
    };
    text.trim().split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_ports() {
        assert_eq!(range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(range("60999 32768"), None);
        assert_eq!(range(""), None);
        assert_eq!(reserved("8080,9000-9010\n"), [(8080, 8080), (9000, 9010)]);
        assert_eq!(reserved("\n"), []);
    }
}
