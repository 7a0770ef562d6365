//! Packets that took their way, although the kernel frees something as if it were dropped.

use etherparse::EtherType;
use netdrop_tests::frame::{Hop, packet_socket};
use netdrop_tests::reason::expect_certain;
use netdrop_tests::traffic::limit_receive_buffer;
use netdrop_tests::{Dropped, Lab, Trace, sockopt, wait};
use serde_json::json;

/// An answer to ping: programs that asked have their copy from a raw socket.
#[test]
fn answer_to_ping() {
    let Some(lab) = Lab::new("ping-reply", &[]) else { return };
    let pair = lab.pair();
    let mut frame = Vec::new();
    let reply = Hop::between(pair.a_end, pair.b_end).ip(64).icmpv4_echo_reply(7, 1);
    reply.write(&mut frame, &[0; 56]).expect("a message fits a vector");
    let tracing = Trace::of(&pair.b).args(&["--all"]).start();

    pair.a.send_frames("eth0", [&frame; 5]);
    wait::until_counter("IcmpInEchoReps", 5, || pair.b.mib("IcmpInEchoReps"));

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "processed-normally",
        class: "benign",
        netns: &pair.b,
        count: 5,
        packet: json!({"family": "ipv4", "proto": "icmp", "src": "10.0.0.1", "dst": "10.0.0.2"}),
    });
}

/// A capture that nobody reads misses copies; the packets themselves arrive.
#[test]
fn capture_copy() {
    let Some(lab) = Lab::new("capture", &[]) else { return };
    let pair = lab.pair();
    let capture = packet_socket(&pair.b, "eth0", EtherType::IPV4.0);
    limit_receive_buffer(&capture, 4096);
    let _reader = pair.b.udp_socket("10.0.0.2:5601");
    let tracing = Trace::of(&pair.b).args(&["--all"]).start();

    let frame = Hop::between(pair.a_end, pair.b_end).udp(64, 5600, 5601, &[0; 1000]);
    pair.a.send_frames("eth0", [&frame; 64]);
    wait::until_counter("IpInDelivers", 64, || pair.b.mib("IpInDelivers"));
    let missed = sockopt::drops(&capture);
    assert!((1..64).contains(&missed), "{missed} of 64 copies");

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "capture-copy-dropped",
        class: "benign",
        netns: &pair.b,
        count: missed,
        packet: json!({"family": "ipv4", "proto": "udp", "sport": 5600, "dport": 5601}),
    });
    expect_certain(event);
    assert_eq!(outcome.number("seen"), missed);
}
