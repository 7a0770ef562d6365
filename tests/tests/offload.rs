//! Packets that the kernel was asked to cut into segments, and could not.

use netdrop_tests::damage::{IPV4_LEN, TCP_OFFSET, with_byte};
use netdrop_tests::frame::Hop;
use netdrop_tests::{Dropped, Lab, Trace};
use serde_json::json;

#[test]
fn segments_without_a_whole_header() {
    const COUNT: u64 = 4;
    let Some(lab) = Lab::new("gso", &[]) else { return };
    let pair = lab.pair();
    // The device takes no packets with more than one segment: the kernel must cut.
    pair.a.run("ip link set eth0 gso_max_segs 1");
    let tracing = Trace::of(&pair.a).start();

    let mut frame = Vec::new();
    Hop::between(pair.a_end, pair.b_end)
        .ip(64)
        .tcp(5460, 5461, 1, 64240)
        .ack(1)
        .write(&mut frame, &[0; 3000])
        .expect("a segment fits a vector");
    // A TCP header of 3 words, where 5 are the least: nobody knows where the data starts.
    let frame = with_byte(frame, IPV4_LEN + TCP_OFFSET, 0x30);
    for _ in 0..COUNT {
        let sent = pair.a.send_gso("eth0", &frame, 1000);
        assert!(sent.is_err(), "it was sent");
    }
    let dropped = pair.a.tx_dropped("eth0");
    assert_eq!(dropped, COUNT);

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "offload-failure",
        class: "suspect",
        netns: &pair.a,
        count: dropped,
        packet: json!({"family": "ipv4", "proto": "tcp", "src": "10.0.0.1", "sport": 5460,
            "dst": "10.0.0.2", "dport": 5461, "len": 3040}),
    });
}
