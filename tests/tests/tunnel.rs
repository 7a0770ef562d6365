//! Packets that a VXLAN tunnel cannot accept or send.

use std::net::UdpSocket;

use netdrop_tests::family::at;
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Trace, lab, wait};
use rustix::net::sockopt::{set_ip_tos, set_ipv6_tclass};
use serde_json::json;

/// Packets of each kind.
const PACKETS: u64 = 5;

/// The VNI of `vxlan0`, and its hardware address.
const VNI: u32 = 42;
const MAC: [u8; 6] = [0x02, 0x4e, 0x44, 0, 1, 1];

/// Hardware address of the host behind the tunnel.
const FAR_MAC: [u8; 6] = [0x02, 0x4e, 0x44, 0, 1, 2];

/// Bit of the first byte of a VXLAN header that says that there is a VNI (RFC 7348).
const HAS_VNI: u8 = 0x08;

/// Bits of the outer traffic class: congestion experienced (RFC 3168).
const CONGESTED: u8 = 3;

/// One kind of datagram to a VXLAN device.
struct Encapsulated {
    flags: u8,
    vni: u32,
    /// Source hardware address inside.
    source: [u8; 6],
    /// Traffic class of the outer header.
    tos: u8,
    /// Why the device refuses it.
    reason: &'static str,
    /// Where the packet is then.
    device: &'static str,
    /// Whether the event shows the inner packet.
    inner: bool,
}

/// What all kinds begin with; a device would take it.
const GOOD: Encapsulated = Encapsulated {
    flags: HAS_VNI,
    vni: VNI,
    source: FAR_MAC,
    tos: 0,
    reason: "",
    device: "vxlan0",
    inner: false,
};

const REFUSED: [Encapsulated; 5] = [
    Encapsulated { vni: VNI + 1, reason: "VXLAN_VNI_NOT_FOUND", device: "eth0", ..GOOD },
    Encapsulated { flags: 0, reason: "VXLAN_INVALID_HDR", device: "eth0", ..GOOD },
    Encapsulated { source: MAC, reason: "LOCAL_MAC", ..GOOD },
    Encapsulated { source: [0; 6], reason: "MAC_INVALID_SOURCE", ..GOOD },
    // The inner packet cannot carry the mark.
    Encapsulated { tos: CONGESTED, reason: "IP_TUNNEL_ECN", inner: true, ..GOOD },
];

/// Source and destination of the inner packet, which is of the same family as the outer one.
fn inner(family: Family) -> (&'static str, &'static str) {
    family.pick(("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2"))
}

impl Encapsulated {
    /// VXLAN header and inner frame.
    fn bytes(&self, family: Family, sport: u16) -> Vec<u8> {
        let (src, dst) = inner(family);
        let address = |text: &str| text.parse().expect("an address");
        let inner = Hop { macs: (self.source, MAC), src: address(src), dst: address(dst) };
        let mut bytes = vec![self.flags, 0, 0, 0];
        bytes.extend((self.vni << 8).to_be_bytes());
        bytes.extend(inner.udp(64, sport, 5461, &[0; 32]));
        bytes
    }
}

/// A VXLAN device on `b`; `Err` holds the kernel's refusal.
fn tunnel(pair: &Pair) -> Result<(), String> {
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    let local = pair.b_end.ip;
    let link = format!(
        "link add vxlan0 address {mac} type vxlan id {VNI} local {local} dstport 4789\nlink set vxlan0 up\n"
    );
    pair.b.try_run_with_input("ip -batch -", &link).map(drop)
}

/// Sets the bits of the outer header in which ECN is.
#[track_caller]
fn set_traffic_class(socket: &UdpSocket, family: Family, tos: u8) {
    let set = match family {
        Family::Ipv4 => set_ip_tos(socket, tos),
        Family::Ipv6 => set_ipv6_tclass(socket, tos.into()),
    };
    set.unwrap_or_else(|error| panic!("traffic class {tos}: {error}"));
}

#[test]
fn packets_that_vxlan_refuses() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let name = format!("vxlan-{}", family.name());
        let Some(lab) = Lab::new(&name, &[]) else { return };
        let pair = lab.pair_of(family);
        if let Err(refused) = tunnel(&pair) {
            return lab::skip_for_kernel(&name, "VXLAN", &refused);
        }
        let sent = PACKETS * REFUSED.len() as u64;
        let delivered = family.pick("IpInDelivers", "Ip6InDelivers");
        let before = pair.b.mib(delivered);
        let tracing = Trace::of(&pair.b).start();

        for (kind, sport) in REFUSED.iter().zip(5470..) {
            let sender = pair.a.udp_socket(&at(pair.a_end.ip, sport));
            set_traffic_class(&sender, family, kind.tos);
            for _ in 0..PACKETS {
                sender
                    .send_to(&kind.bytes(family, sport), at(pair.b_end.ip, 4789))
                    .expect("send to the tunnel");
            }
        }
        wait::until_counter(delivered, before + sent, || pair.b.mib(delivered));
        assert_eq!(pair.b.link_counter("vxlan0", "/stats64/rx/packets"), Some(0), "the tunnel took one");

        let outcome = tracing.stop();
        outcome.expect(&Dropped {
            cause: "tunnel-drop",
            class: "suspect",
            netns: &pair.b,
            count: sent,
            packet: json!({"proto": "udp"}),
        });
        for (kind, sport) in REFUSED.iter().zip(5470..) {
            let events = outcome.events.iter().filter(|event| event["packet"]["sport"] == sport);
            outcome.expect_count(kind.reason, events.clone().count() as u64, PACKETS);
            for event in events {
                expect_reason(event, kind.reason);
                let dst = if kind.inner { inner(family).1.to_owned() } else { pair.b_end.ip.to_string() };
                assert_eq!(event["packet"]["dst"], dst, "{event}");
                assert_eq!(event["interface"]["name"], kind.device, "{event}");
                assert_eq!(event["direction"], "in", "{event}");
            }
        }
    }
}

#[test]
fn no_remote_for_the_destination() {
    let Some(lab) = Lab::new("vxlan-remote", &[]) else { return };
    let pair = lab.pair();
    if let Err(refused) = tunnel(&pair) {
        return lab::skip_for_kernel("vxlan-remote", "VXLAN", &refused);
    }
    pair.b.run("ip addr add 10.9.0.2/24 dev vxlan0");
    pair.b.run("ip neigh add 10.9.0.1 lladdr 02:4e:44:00:01:02 nud permanent dev vxlan0");
    let tracing = Trace::of(&pair.b).start();
    send_udp(&pair.b.udp_socket("10.9.0.2:5460"), "10.9.0.1:5461", PACKETS, 64);
    let dropped = || pair.b.tx_dropped("vxlan0");
    wait::until_counter("tx dropped", PACKETS, dropped);
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "tunnel-drop",
        class: "suspect",
        netns: &pair.b,
        count: PACKETS,
        packet: json!({"src": "10.9.0.2", "sport": 5460, "dst": "10.9.0.1", "dport": 5461}),
    });
    expect_reason(event, "NO_TX_TARGET");
    assert_eq!(event["interface"]["name"], "vxlan0", "{event}");
    assert_eq!(event["direction"], "out", "{event}");
}
