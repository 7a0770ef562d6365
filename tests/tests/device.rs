//! Packets that a device cannot send on: a tap device whose reader is slow or gone.

use netdrop_tests::frame::Hop;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::{Dropped, Family, Lab, Netns, Outcome, Trace, wait};
use serde_json::json;

/// Packets that the ring of the device holds.
const RING: u32 = 4;

/// Frames of each family.
const FRAMES: u64 = 10;

/// Sends frames of both families out of `tap0`.
fn send(netns: &Netns) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let (src, dst) = addresses(family);
        let hop = Hop {
            macs: ([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]),
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
        };
        netns.send_frames("tap0", [&hop.udp(64, 5490, 5491, &[0; 64]); FRAMES as usize]);
    }
}

fn addresses(family: Family) -> (&'static str, &'static str) {
    family.pick(("10.7.0.1", "10.7.0.2"), ("fd07::1", "fd07::2"))
}

/// Requires that every event of the cause is on its way out of `tap0`, with these counts for each family.
#[track_caller]
fn expect_leaving(outcome: &Outcome, cause: &str, netns: &Netns, counts: [(Family, u64); 2]) {
    let events = outcome.events_of(cause, netns);
    for (family, count) in counts {
        let (src, dst) = addresses(family);
        let of_family = events.iter().filter(|event| event["packet"]["family"] == family.name());
        outcome.expect_count(family.name(), of_family.clone().count() as u64, count);
        for event in of_family {
            assert_eq!(event["packet"]["src"], src, "{event}");
            assert_eq!(event["packet"]["dst"], dst, "{event}");
            assert_eq!(event["interface"]["name"], "tap0", "{event}");
            assert_eq!(event["direction"], "out", "{event}");
        }
    }
}

#[test]
fn ring_that_nobody_reads() {
    let Some(lab) = Lab::new("tap-ring", &[]) else { return };
    let netns = lab.netns("only");
    let _tap = netns.tap("tap0", RING);
    let tracing = Trace::of(&netns).start();
    send(&netns);
    let dropped = 2 * FRAMES - u64::from(RING);
    wait::until_counter("tx dropped", dropped, || netns.tx_dropped("tap0"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "nic-ring-overflow",
        class: "harmful",
        netns: &netns,
        count: dropped,
        packet: json!({"proto": "udp", "sport": 5490, "dport": 5491}),
    });
    expect_reason(event, "FULL_RING");
    let counts = [(Family::Ipv4, FRAMES - u64::from(RING)), (Family::Ipv6, FRAMES)];
    expect_leaving(&outcome, "nic-ring-overflow", &netns, counts);
}

#[test]
fn queue_that_is_detached() {
    let Some(lab) = Lab::new("tap-detached", &[]) else { return };
    let netns = lab.netns("only");
    let tap = netns.tap("tap0", RING);
    tap.detach();
    let tracing = Trace::of(&netns).start();
    send(&netns);
    wait::until_counter("tx dropped", 2 * FRAMES, || netns.tx_dropped("tap0"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "interface-down",
        class: "suspect",
        netns: &netns,
        count: 2 * FRAMES,
        packet: json!({"proto": "udp", "sport": 5490, "dport": 5491}),
    });
    expect_reason(event, "DEV_READY");
    expect_leaving(&outcome, "interface-down", &netns, [(Family::Ipv4, FRAMES), (Family::Ipv6, FRAMES)]);
}
