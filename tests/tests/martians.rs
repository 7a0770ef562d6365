//! Source and destination addresses that cannot be where they arrive.

use netdrop_tests::frame::Hop;
use netdrop_tests::{Dropped, Family, Lab, Outcome, Trace, wait};
use serde_json::json;

/// Frames of each kind.
const COUNT: usize = 3;

/// First source port; each kind has its own.
const SPORT: u16 = 5300;

/// Sends UDP datagrams with each pair of addresses to a host which must not take any of them, waits until
/// `counter` has counted them, and returns the trace.
#[track_caller]
fn impossible(name: &str, family: Family, kinds: &[(&str, &str)], counter: &str) -> Option<Outcome> {
    let lab = Lab::new(name, &["nft"])?;
    let pair = lab.pair_of(family);
    pair.b.nft_count("udp dport 5221");
    let count = || if counter == "prerouting" { pair.b.nft_packets(counter) } else { pair.b.mib(counter) };
    let before = count();
    let tracing = Trace::of(&pair.b).start();

    for (sport, (src, dst)) in (SPORT..).zip(kinds) {
        let hop = Hop::between(pair.a_end, pair.b_end).with_src(src).with_dst(dst);
        pair.a.send_frames("eth0", [&hop.udp(64, sport, 5221, &[0; 64]); COUNT]);
    }
    let sent = (kinds.len() * COUNT) as u64;
    wait::until_counter(counter, before + sent, count);
    assert_eq!(pair.b.nft_packets("input"), 0, "datagrams that were taken");

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "martian-address",
        class: "suspect",
        netns: &pair.b,
        count: sent,
        packet: json!({"family": family.name(), "proto": "udp", "dport": 5221,
            "len": family.header_len() + 8 + 64}),
    });
    for (sport, (src, dst)) in (SPORT..).zip(kinds) {
        let events: Vec<_> =
            outcome.events.iter().filter(|event| event["packet"]["sport"] == sport).collect();
        outcome.expect_count(&format!("{src} to {dst}"), events.len() as u64, COUNT as u64);
        for event in events {
            assert_eq!(event["packet"]["src"], *src, "{event}");
            assert_eq!(event["packet"]["dst"], *dst, "{event}");
            // IPv6 gives one reason for all that is wrong with a header.
            let named = event["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("IP_LOCAL") || reason.starts_with("IP_INVALID"));
            let confidence = if named { "observed" } else { "inferred" };
            assert_eq!(event["cause"]["confidence"], confidence, "{event}");
        }
    }
    Some(outcome)
}

#[test]
fn ipv4() {
    let kinds = [
        ("127.0.0.5", "10.0.0.2"),
        // The host's own address.
        ("10.0.0.2", "10.0.0.2"),
        ("224.0.0.9", "10.0.0.2"),
        ("255.255.255.255", "10.0.0.2"),
        ("0.0.0.0", "10.0.0.2"),
        ("10.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "0.0.0.0"),
    ];
    impossible("martians", Family::Ipv4, &kinds, "prerouting");
}

#[test]
fn ipv6() {
    let kinds = [
        ("::1", "fd00::2"),
        ("fd00::1", "::1"),
        ("ff02::9", "fd00::2"),
        // Scopes that no packet on a wire can have: the host itself, and none.
        ("fd00::1", "ff01::9"),
        ("fd00::1", "ff00::9"),
    ];
    impossible("martians6", Family::Ipv6, &kinds, "Ip6InHdrErrors");
}
