//! Packets that are larger than the next link takes.

use std::net::{SocketAddr, UdpSocket};

use netdrop_tests::family::at;
use netdrop_tests::frame::Hop;
use netdrop_tests::reason::{expect_certain, lacks_evidence};
use netdrop_tests::sockopt;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, Tracing, wait};
use serde_json::{Value, json};

/// Frames of each scenario.
const COUNT: usize = 6;

/// Bytes behind the UDP header.
const PAYLOAD: usize = 1400;

/// Ends a trace and requires that all datagrams between these addresses were too long for `device`; returns the
/// first event.
#[track_caller]
fn expect_too_long(
    tracing: Tracing,
    netns: &Netns,
    device: &str,
    (src, dst): (SocketAddr, SocketAddr),
) -> Value {
    let family = if src.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let len = family.header_len() + 8 + PAYLOAD;
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "mtu-exceeded",
        class: "harmful",
        netns,
        count: COUNT as u64,
        packet: json!({"family": family.name(), "proto": "udp", "src": src.ip().to_string(),
            "sport": src.port(), "dst": dst.ip().to_string(), "dport": dst.port(), "len": len}),
    });
    let evidence = json!({"len": len, "limit": 1300, "device": device});
    assert!(event["evidence"]["mtu"] == evidence || lacks_evidence(event, "mtu"), "{event}");
    event.clone()
}

#[test]
fn router_with_a_smaller_mtu_ahead() {
    let counters =
        [("mtu-router", Family::Ipv4, "IpFragFails"), ("mtu-router6", Family::Ipv6, "Ip6InTooBigErrors")];
    for (name, family, counter) in counters {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let routed = lab.routed_of(family);
        routed.r.run("ip link set right mtu 1300");
        let _open = routed.b.udp_socket(&at(routed.b_end.ip, 5401));
        let tracing = Trace::of(&routed.r).start();

        let mut hop = Hop::between(routed.a_end, routed.left);
        hop.dst = routed.b_end.ip;
        // The IPv4 header has DF set, and the sender is a packet socket, which learns no path MTU.
        routed.a.send_frames("eth0", [&hop.udp(64, 5400, 5401, &[0; PAYLOAD]); COUNT]);
        // One that fits.
        routed.a.send_frames("eth0", [&hop.udp(64, 5400, 5401, &[0; 64])]);
        wait::until_counter(counter, COUNT as u64, || routed.r.mib(counter));

        let ends = (SocketAddr::new(routed.a_end.ip, 5400), SocketAddr::new(routed.b_end.ip, 5401));
        let event = expect_too_long(tracing, &routed.r, "right", ends);
        expect_certain(&event);
    }
}

#[test]
fn own_sends_are_refused_and_not_dropped() {
    for (name, family) in [("mtu-own", Family::Ipv4), ("mtu-own6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        pair.a.run("ip link set eth0 mtu 1300");
        let tracing = Trace::of(&pair.a).start();

        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5402));
        never_fragment(&socket, family);
        let sent = socket.send_to(&[0; PAYLOAD], at(pair.b_end.ip, 5403));
        assert_eq!(sent.map_err(|error| error.raw_os_error()), Err(Some(libc::EMSGSIZE)));
        let outcome = tracing.stop();
        assert_eq!(outcome.number("shown"), 0, "drops that are none");
    }
}

#[test]
fn veth_whose_other_end_has_a_smaller_mtu() {
    for (name, family) in [("mtu-veth", Family::Ipv4), ("mtu-veth6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        pair.b.run("ip link set eth0 mtu 1300");
        let tracing = Trace::of(&pair.a).start();

        // Nobody tells the sender: its sends succeed.
        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5404));
        let sent = send_udp(&socket, &at(pair.b_end.ip, 5405), COUNT as u64, PAYLOAD);
        assert_eq!(sent.accepted, COUNT as u64);
        let dropped = || pair.a.tx_dropped("eth0");
        wait::until_counter("tx_dropped", COUNT as u64, dropped);

        let ends = (SocketAddr::new(pair.a_end.ip, 5404), SocketAddr::new(pair.b_end.ip, 5405));
        let event = expect_too_long(tracing, &pair.a, "eth0", ends);
        assert_eq!(event["interface"]["name"], "eth0", "{event}");
    }
}

/// Sets DF and refuses to fragment here.
#[track_caller]
fn never_fragment(socket: &UdpSocket, family: Family) {
    let (level, option) =
        family.pick((libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER));
    sockopt::set(socket, level, option, libc::IP_PMTUDISC_DO);
}
