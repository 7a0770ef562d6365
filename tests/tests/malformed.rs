//! Packets whose headers contradict themselves or end too early.

use netdrop_tests::damage::{
    IPV4_LEN, IPV6_LEN, TCP_OFFSET, UDP_LENGTH, cut, with_byte, with_ipv4_checksum, with_u16,
};
use netdrop_tests::frame::Hop;
use netdrop_tests::reason::lacks;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, wait};
use serde_json::json;

/// Frames of each kind.
const COUNT: usize = 3;

/// Sends frames of each kind to a host; all of them must be dropped and move one of `counters`.
#[track_caller]
fn malformed(name: &str, family: Family, kinds: impl FnOnce(&Hop) -> Vec<Vec<u8>>, counters: &[&str]) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let pair = lab.pair_of(family);
    let kinds = kinds(&Hop::between(pair.a_end, pair.b_end));
    let count = |netns: &Netns| counters.iter().map(|counter| netns.mib(counter)).sum::<u64>();
    let before = count(&pair.b);
    let tracing = Trace::of(&pair.b).start();

    for frame in &kinds {
        pair.a.send_frames("eth0", [frame; COUNT]);
    }
    let sent = (kinds.len() * COUNT) as u64;
    wait::until_counter(&format!("{counters:?}"), before + sent, || count(&pair.b));

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "malformed-header",
        class: "suspect",
        netns: &pair.b,
        count: sent,
        packet: json!({}),
    });
    assert_eq!(outcome.number("shown"), sent, "other drops");
}

#[test]
fn ipv4_header() {
    let kinds = |hop: &Hop| {
        let good = || hop.udp(64, 5700, 5701, &[0; 64]);
        vec![
            // A version that is not 4, and fewer than the 5 words that a header has.
            with_byte(good(), 0, 0x55),
            with_byte(good(), 0, 0x44),
            // More words than there are bytes.
            cut(with_byte(good(), 0, 0x4f), 40),
            cut(good(), 12),
            // A total length beyond the end, and one that ends in the header.
            with_ipv4_checksum(with_u16(good(), 2, 200)),
            with_ipv4_checksum(with_u16(good(), 2, 16)),
        ]
    };
    malformed("bad-ipv4", Family::Ipv4, kinds, &["IpInHdrErrors", "IpExtInTruncatedPkts"]);
}

#[test]
fn ipv6_header() {
    let kinds = |hop: &Hop| {
        let good = || hop.udp(64, 5702, 5703, &[0; 64]);
        vec![
            with_byte(good(), 0, 0x50),
            cut(good(), 30),
            // A payload length beyond the end.
            with_u16(good(), 4, 200),
            // A header of destination options that ends beyond the packet.
            with_byte(with_byte(good(), 6, 60), IPV6_LEN + 1, 200),
        ]
    };
    malformed("bad-ipv6", Family::Ipv6, kinds, &["Ip6InHdrErrors", "Ip6InTruncatedPkts"]);
}

#[test]
fn transport_header() {
    let kinds = |hop: &Hop| {
        let ip_len = if hop.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        vec![
            with_u16(hop.udp(64, 5704, 5705, &[0; 64]), ip_len + UDP_LENGTH, 200),
            // A header of 3 words, where 5 are the least.
            with_byte(hop.syn(5704, 5705), ip_len + TCP_OFFSET, 0x30),
        ]
    };
    malformed("bad-transport", Family::Ipv4, kinds, &["UdpInErrors", "TcpInErrs"]);
    malformed("bad-transport6", Family::Ipv6, kinds, &["Udp6InErrors", "TcpInErrs"]);
}

#[test]
fn tcp_header_that_is_cut_off() {
    for (name, family) in [("cut-tcp", Family::Ipv4), ("cut-tcp6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &["nft"]) else { return };
        let pair = lab.pair_of(family);
        pair.b.nft_count("meta l4proto tcp");
        let tracing = Trace::of(&pair.b).start();

        // The IP header knows that only 8 bytes follow it.
        let syn = Hop::between(pair.a_end, pair.b_end).syn(5706, 5707);
        let frame = cut(syn, family.header_len() + 8);
        let frame = match family {
            Family::Ipv4 => with_ipv4_checksum(with_u16(frame, 2, 28)),
            Family::Ipv6 => with_u16(frame, 4, 8),
        };
        pair.a.send_frames("eth0", [&frame; COUNT]);
        wait::until_counter("input", COUNT as u64, || pair.b.nft_packets("input"));

        tracing.stop().expect(&Dropped {
            cause: "malformed-header",
            class: "suspect",
            netns: &pair.b,
            count: COUNT as u64,
            packet: json!({"family": family.name(), "proto": "tcp", "src": pair.a_end.ip.to_string()}),
        });
    }
}

#[test]
fn udp_header_that_is_cut_off() {
    for (name, family) in [("cut-udp", Family::Ipv4), ("cut-udp6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &["nft"]) else { return };
        let pair = lab.pair_of(family);
        pair.b.nft_count("meta l4proto udp");
        let unsaid = "for IPv4, an IPsec policy that refuses a datagram to a closed port looks the same";
        let tracing = Trace::of(&pair.b).may_be_unknown(unsaid).start();

        // The IP header knows that only 4 bytes follow it.
        let datagram = Hop::between(pair.a_end, pair.b_end).udp(64, 5708, 5709, &[0; 8]);
        let frame = cut(datagram, family.header_len() + 4);
        let frame = match family {
            Family::Ipv4 => with_ipv4_checksum(with_u16(frame, 2, 24)),
            Family::Ipv6 => with_u16(frame, 4, 4),
        };
        pair.a.send_frames("eth0", [&frame; COUNT]);
        wait::until_counter("input", COUNT as u64, || pair.b.nft_packets("input"));

        tracing.stop().expect(&Dropped {
            cause: family.pick("unknown", "malformed-header"),
            class: "suspect",
            netns: &pair.b,
            count: COUNT as u64,
            packet: json!({"family": family.name(), "proto": "udp", "src": pair.a_end.ip.to_string()}),
        });
    }
}

#[test]
fn neighbour_discovery_from_beyond_a_router() {
    /// Type of a neighbour solicitation.
    const SOLICITATION: u8 = 135;
    // Before it had this reason, the kernel freed what it had answered at the same place.
    if lacks("IPV6_NDISC_HOP_LIMIT", "bad-ndisc") {
        return;
    }
    let Some(lab) = Lab::new("bad-ndisc", &[]) else { return };
    let pair = lab.pair_of(Family::Ipv6);
    let before = pair.b.mib("Icmp6InNeighborSolicits");
    let tracing = Trace::of(&pair.b).start();

    // A hop limit below 255 says that the sender is not on this link.
    let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let mut frame = Vec::new();
    Hop::between(pair.a_end, pair.b_end)
        .ip(64)
        .icmpv6_raw(SOLICITATION, 0, [0; 4])
        .write(&mut frame, &target)
        .expect("a message fits a vector");
    pair.a.send_frames("eth0", [&frame; COUNT]);
    wait::until_counter("Icmp6InNeighborSolicits", before + COUNT as u64, || {
        pair.b.mib("Icmp6InNeighborSolicits")
    });

    tracing.stop().expect(&Dropped {
        cause: "malformed-header",
        class: "suspect",
        netns: &pair.b,
        count: COUNT as u64,
        packet: json!({"family": "ipv6", "proto": "icmp6", "src": "fd00::1", "dst": "fd00::2"}),
    });
}
