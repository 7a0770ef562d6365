//! Protocols that nothing on the host speaks.

use netdrop_tests::frame::Hop;
use netdrop_tests::raw::IP_PROTOCOL;
use netdrop_tests::reason::expect_certain;
use netdrop_tests::{Dropped, Family, Lab, Trace, wait};
use serde_json::json;

#[test]
fn ip_protocol_without_a_handler() {
    let counters =
        [("no-proto", Family::Ipv4, "IpInUnknownProtos"), ("no-proto6", Family::Ipv6, "Ip6InUnknownProtos")];
    for (name, family, counter) in counters {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        let tracing = Trace::of(&pair.b).start();

        let frame = Hop::between(pair.a_end, pair.b_end).other(IP_PROTOCOL, &[0; 64]);
        pair.a.send_frames("eth0", [&frame; 5]);
        wait::until_counter(counter, 5, || pair.b.mib(counter));

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "protocol-unhandled",
            class: "suspect",
            netns: &pair.b,
            count: 5,
            packet: json!({"family": family.name(), "proto": IP_PROTOCOL.to_string(),
                "src": pair.a_end.ip.to_string(), "dst": pair.b_end.ip.to_string(), "len": family.header_len() + 64}),
        });
        expect_certain(event);
    }
}

#[test]
fn ethertype_without_a_handler() {
    let Some(lab) = Lab::new("ethertype", &[]) else { return };
    let pair = lab.pair();
    let dropped = || {
        pair.b.link_counter("eth0", "/stats64/rx/nohandler").unwrap_or_default() + pair.b.rx_dropped("eth0")
    };
    let tracing = Trace::of(&pair.b).args(&["--all"]).start();

    /// For experiments (IEEE 802, local use).
    const ETHERTYPE: u16 = 0x88b5;
    let frame = with_ethertype(Hop::between(pair.a_end, pair.b_end).udp(64, 1, 1, &[0; 64]), ETHERTYPE);
    pair.a.send_frames("eth0", [&frame; 5]);
    wait::until_counter("rx_dropped", 5, dropped);

    tracing.stop().expect(&Dropped {
        cause: "protocol-unhandled",
        class: "benign",
        netns: &pair.b,
        count: 5,
        packet: json!({"family": "0x88b5", "src": null}),
    });
}

#[test]
fn ipv6_where_it_is_switched_off() {
    let Some(lab) = Lab::new("no-ipv6", &[]) else { return };
    let pair = lab.pair_of(Family::Ipv6);
    pair.b.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
    let before = pair.b.mib("Ip6InDiscards");
    let tracing = Trace::of(&pair.b).start();

    let frame = Hop::between(pair.a_end, pair.b_end).udp(64, 5750, 5751, &[0; 64]);
    pair.a.send_frames("eth0", [&frame; 5]);
    wait::until_counter("Ip6InDiscards", before + 5, || pair.b.mib("Ip6InDiscards"));

    tracing.stop().expect(&Dropped {
        cause: "protocol-unhandled",
        class: "suspect",
        netns: &pair.b,
        count: 5,
        packet: json!({"family": "ipv6", "proto": "udp", "sport": 5750, "dport": 5751}),
    });
}

/// The frame with another ethertype.
fn with_ethertype(mut frame: Vec<u8>, ethertype: u16) -> Vec<u8> {
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}
