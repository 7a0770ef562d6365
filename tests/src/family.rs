//! IPv4 and IPv6 side by side: most scenarios have a twin that differs in addresses only.

use std::net::{IpAddr, SocketAddr};

use crate::lab::Lab;
use crate::link::{Pair, Routed};
use crate::netns::Netns;
use crate::wait;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// As events spell it.
    pub fn name(self) -> &'static str {
        self.pick("ipv4", "ipv6")
    }

    /// The `ip` of this family, with its option: `ip -4` or `ip -6`.
    pub fn ip(self) -> &'static str {
        self.pick("ip -4", "ip -6")
    }

    /// Bytes of a header without options.
    pub fn header_len(self) -> usize {
        self.pick(20, 40)
    }

    /// What differs between the twins.
    pub fn pick<T>(self, four: T, six: T) -> T {
        match self {
            Self::Ipv4 => four,
            Self::Ipv6 => six,
        }
    }

    /// An address of a network that no lab has.
    pub fn elsewhere(self) -> IpAddr {
        let text = self.pick("203.0.113.9", "2001:db8::9");
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The network of [`Family::elsewhere`].
    pub fn elsewhere_net(self) -> &'static str {
        self.pick("203.0.113.0/24", "2001:db8::/32")
    }
}

/// `address:port`, as sockets take it.
pub fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

impl Lab {
    /// Two hosts of one family on one wire.
    #[track_caller]
    pub fn pair_of(&self, family: Family) -> Pair {
        if family == Family::Ipv4 {
            return self.pair();
        }
        let (a, b) = (self.netns_of("a"), self.netns_of("b"));
        let (a_end, b_end) = self.wire((&a, "eth0", "fd00::1/64"), (&b, "eth0", "fd00::2/64"));
        settle([&a, &b]);
        Pair { a, b, a_end, b_end }
    }

    /// Two hosts of one family with a forwarding router between them; as [`Lab::routed`], for IPv6
    /// `a` fd01::2 — `r` fd01::1 and fd02::1 — `b` fd02::2.
    #[track_caller]
    pub fn routed_of(&self, family: Family) -> Routed {
        if family == Family::Ipv4 {
            return self.routed();
        }
        let [a, r, b] = ["a", "r", "b"].map(|role| self.netns_of(role));
        r.sysctl("net/ipv6/conf/all/forwarding", "1");
        let (a_end, left) = self.wire((&a, "eth0", "fd01::2/64"), (&r, "left", "fd01::1/64"));
        let (b_end, right) = self.wire((&b, "eth0", "fd02::2/64"), (&r, "right", "fd02::1/64"));
        a.run("ip route add default via fd01::1");
        b.run("ip route add default via fd02::1");
        settle([&a, &r, &b]);
        Routed { a, r, b, a_end, left, right, b_end }
    }

    /// A namespace with IPv6 whose devices say what they must at once: multicast reports come twice, the
    /// second one up to a second later, and count as packets without a route.
    #[track_caller]
    fn netns_of(&self, role: &str) -> Netns {
        let netns = self.netns_with_ipv6(role);
        netns.sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", "1");
        netns.sysctl("net/ipv6/conf/default/router_solicitations", "0");
        netns
    }
}

/// Waits until the devices of all these namespaces have said what they must.
#[track_caller]
fn settle<const N: usize>(netns: [&Netns; N]) {
    wait::until_stable("multicast reports", || netns.map(|netns| netns.mib("Icmp6OutMsgs")));
}
