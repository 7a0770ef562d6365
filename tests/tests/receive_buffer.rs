//! Datagrams for a socket whose reader does not keep up.

use netdrop_tests::traffic::{limit_receive_buffer, send_udp};
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

#[test]
fn udp_receive_buffer_full() {
    let Some(lab) = Lab::new("rcvbuf", &[]) else { return };
    let pair = lab.pair();
    let reader = pair.b.udp_socket("10.0.0.2:9000");
    let limit = limit_receive_buffer(&reader, 4096);
    let tracing = Trace::of(&pair.b).start();

    let writer = pair.a.udp_socket("10.0.0.1:5003");
    send_udp(&writer, "10.0.0.2:9000", 64, 1000);
    wait::until_counter("IpInDelivers", 64, || pair.b.mib("IpInDelivers"));
    let dropped = wait::until_stable("UdpRcvbufErrors", || pair.b.mib("UdpRcvbufErrors"));
    assert!(dropped < 64, "the first datagram always fits");

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "udp-receive-buffer-full",
        class: "harmful",
        netns: &pair.b,
        count: dropped,
        packet: json!({"family": "ipv4", "proto": "udp", "src": "10.0.0.1", "sport": 5003,
            "dst": "10.0.0.2", "dport": 9000, "len": 1028}),
    });
    let socket = &event["evidence"]["socket"];
    assert_eq!(socket["limit"], limit, "evidence {socket}");
    // Full means that one more datagram does not fit: these take less than half of the limit each.
    let used = socket["used"].as_u64().unwrap_or_else(|| panic!("evidence {socket}"));
    assert!(used > limit / 2, "evidence {socket}");
}
