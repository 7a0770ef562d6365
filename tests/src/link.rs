//! Wires between namespaces: veth pairs with fixed addresses, and the two usual shapes of a lab.

use std::net::IpAddr;

use crate::counters::json;
use crate::lab::Lab;
use crate::netns::{Netns, finish};
use crate::wait;

/// One end of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Interface name.
    pub device: &'static str,
    /// Hardware address.
    pub mac: [u8; 6],
    /// The address without its prefix length.
    pub ip: IpAddr,
}

impl End {
    /// The hardware address as `ip` spells it.
    pub fn mac_text(&self) -> String {
        spell(self.mac)
    }
}

/// Two namespaces on one wire: `a` 10.0.0.1 and `b` 10.0.0.2 (fd00::1 and fd00::2), both on `eth0`.
pub struct Pair {
    /// The first host.
    pub a: Netns,
    /// The second host.
    pub b: Netns,
    /// `a`'s end.
    pub a_end: End,
    /// `b`'s end.
    pub b_end: End,
}

/// Host, forwarding router, host: `a` 10.1.0.2 — `r` 10.1.0.1 on `left`, 10.2.0.1 on `right` — `b` 10.2.0.2.
/// Both hosts have a default route through the router.
pub struct Routed {
    /// The left host.
    pub a: Netns,
    /// The router.
    pub r: Netns,
    /// The right host.
    pub b: Netns,
    /// `a`'s end of the left wire.
    pub a_end: End,
    /// The router's left end.
    pub left: End,
    /// The router's right end.
    pub right: End,
    /// `b`'s end of the right wire.
    pub b_end: End,
}

impl Lab {
    /// Connects two namespaces; `(namespace, device, address/prefix)` for each end.
    ///
    /// Both ends know each other's hardware address for good: no ARP or ND packet is ever needed.
    #[track_caller]
    pub fn wire(&self, one: (&Netns, &'static str, &str), other: (&Netns, &'static str, &str)) -> (End, End) {
        let (mac_one, mac_other) = (self.mac(), self.mac());
        finish(
            std::process::Command::new("ip").args(
                format!(
                    "link add {} netns {} address {} type veth peer name {} netns {} address {}",
                    one.1,
                    one.0.name(),
                    spell(mac_one),
                    other.1,
                    other.0.name(),
                    spell(mac_other)
                )
                .split_whitespace(),
            ),
        );
        let one_end = address(one.0, one.1, one.2, mac_one);
        let other_end = address(other.0, other.1, other.2, mac_other);
        for (netns, near, far) in [(one.0, one_end, other_end), (other.0, other_end, one_end)] {
            let device = near.device;
            netns.run(&format!(
                "ip neigh add {} lladdr {} nud permanent dev {device}",
                far.ip,
                spell(far.mac)
            ));
        }
        await_carrier(one.0, one.1);
        await_carrier(other.0, other.1);
        (one_end, other_end)
    }

    /// Two IPv4 hosts on one wire.
    #[track_caller]
    pub fn pair(&self) -> Pair {
        let (a, b) = (self.netns("a"), self.netns("b"));
        let (a_end, b_end) = self.wire((&a, "eth0", "10.0.0.1/24"), (&b, "eth0", "10.0.0.2/24"));
        Pair { a, b, a_end, b_end }
    }

    /// Two IPv6 hosts on one wire, which announce themselves for another second, as hosts do. Those of
    /// [`Lab::pair_of`] have done so.
    #[track_caller]
    pub fn pair_with_ipv6(&self) -> Pair {
        let (a, b) = (self.netns_with_ipv6("a"), self.netns_with_ipv6("b"));
        let (a_end, b_end) = self.wire((&a, "eth0", "fd00::1/64"), (&b, "eth0", "fd00::2/64"));
        Pair { a, b, a_end, b_end }
    }

    /// Two IPv4 hosts with a forwarding router between them.
    #[track_caller]
    pub fn routed(&self) -> Routed {
        let (a, r, b) = (self.netns("a"), self.netns("r"), self.netns("b"));
        let (a_end, left) = self.wire((&a, "eth0", "10.1.0.2/24"), (&r, "left", "10.1.0.1/24"));
        let (b_end, right) = self.wire((&b, "eth0", "10.2.0.2/24"), (&r, "right", "10.2.0.1/24"));
        a.run("ip route add default via 10.1.0.1");
        b.run("ip route add default via 10.2.0.1");
        r.sysctl("net/ipv4/ip_forward", "1");
        Routed { a, r, b, a_end, left, right, b_end }
    }
}

/// Gives `device` its address and sets it up.
#[track_caller]
fn address(netns: &Netns, device: &'static str, cidr: &str, mac: [u8; 6]) -> End {
    let nodad = if cidr.contains(':') { "nodad" } else { "" };
    netns.run(&format!("ip addr add {cidr} dev {device} {nodad}"));
    netns.run(&format!("ip link set {device} up"));
    let ip = cidr.split_once('/').map_or(cidr, |(ip, _)| ip);
    let ip = ip.parse().unwrap_or_else(|error| panic!("{ip}: {error}"));
    End { device, mac, ip }
}

impl Netns {
    /// Waits until the kernel has noticed that the other end of `device` is down: its state follows some time
    /// after the loss of the carrier, and so does its queue, which is then noop.
    #[track_caller]
    pub fn await_loss_of_carrier(&self, device: &str) {
        await_state(self, device, &["DOWN", "LOWERLAYERDOWN"]);
    }
}

/// Waits until the kernel has noticed that a device's other end is up: it does so in the background, and drops
/// what is sent before.
#[track_caller]
fn await_carrier(netns: &Netns, device: &str) {
    await_state(netns, device, &["UP"]);
}

/// Waits until a device has one of these states.
#[track_caller]
fn await_state(netns: &Netns, device: &str, states: &[&str]) {
    wait::until(&format!("{device} in {} is {}", netns.name(), states.join(" or ")), || {
        let links = json(&netns.run(&format!("ip -j link show dev {device}")));
        match links[0]["operstate"].as_str() {
            Some(state) if states.contains(&state) => Ok(()),
            state => Err(format!("{state:?}")),
        }
    });
}

/// A hardware address as `ip` spells it.
pub(crate) fn spell(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
