//! Hosts on a software bridge.

use std::path::Path;

use crate::lab::Lab;
use crate::link::End;
use crate::netns::Netns;
use crate::wait;

/// Two hosts on a switch: `a` 10.0.0.1 on port `left`, `b` 10.0.0.2 on port `right` of `br0` in `s`, which has the
/// address 10.0.0.3 itself.
///
/// Every host knows the others' hardware addresses for good, and so does the bridge: it learns nothing by itself,
/// and floods only frames to addresses that no lab has.
pub struct Bridged {
    /// The left host.
    pub a: Netns,
    /// The switch.
    pub s: Netns,
    /// The right host.
    pub b: Netns,
    /// `a`'s end, on `eth0`.
    pub a_end: End,
    /// `b`'s end, on `eth0`.
    pub b_end: End,
}

impl Lab {
    /// Two hosts on a switch.
    #[track_caller]
    pub fn bridged(&self) -> Bridged {
        let [a, s, b] = ["a", "s", "b"].map(|role| self.netns(role));
        let end = |device, ip: &str| End { device, mac: self.mac(), ip: ip.parse().expect("an address") };
        let (a_end, b_end, own) = (end("eth0", "10.0.0.1"), end("eth0", "10.0.0.2"), end("br0", "10.0.0.3"));
        let bridge = "type bridge forward_delay 0 mcast_snooping 0";
        s.run(&format!("ip link add br0 address {} {bridge}", own.mac_text()));
        for (host, near, port) in [(&a, a_end, "left"), (&b, b_end, "right")] {
            s.run(&format!(
                "ip link add {port} type veth peer name eth0 netns {} address {}",
                host.name(),
                near.mac_text()
            ));
            s.run(&format!("ip link set {port} master br0 up"));
            s.run(&format!("bridge link set dev {port} learning off"));
            s.run(&format!("bridge fdb add {} dev {port} master static", near.mac_text()));
        }
        for (netns, near) in [(&a, a_end), (&b, b_end), (&s, own)] {
            let device = near.device;
            netns.run(&format!("ip addr add {}/24 dev {device}", near.ip));
            netns.run(&format!("ip link set {device} up"));
            for far in [a_end, b_end, own].iter().filter(|far| far.ip != near.ip) {
                let mac = far.mac_text();
                netns.run(&format!("ip neigh add {} lladdr {mac} nud permanent dev {device}", far.ip));
            }
        }
        s.await_forwarding(2);
        Bridged { a, s, b, a_end, b_end }
    }
}

impl Netns {
    /// Waits until this many ports of bridges forward. A port starts to do so when the kernel has noticed its
    /// carrier, which undoes what was set before.
    #[track_caller]
    pub fn await_forwarding(&self, ports: usize) {
        wait::until("every port forwards", || {
            let forwarding = self.run("bridge link show").matches("state forwarding").count();
            if forwarding == ports { Ok(()) } else { Err(format!("{forwarding} of {ports}")) }
        });
    }

    /// Whether iptables rules apply to bridged packets, from now on; `false` where nothing offers that.
    #[track_caller]
    pub fn bridge_firewall(&self, on: bool) -> bool {
        const KEY: &str = "net/bridge/bridge-nf-call-iptables";
        let offered = self.enter(|| Path::new("/proc/sys").join(KEY).exists());
        if offered {
            self.sysctl(KEY, if on { "1" } else { "0" });
        }
        offered
    }
}
