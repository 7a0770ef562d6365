//! Packets for a socket whose reader does not keep up.

use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_certain, receiver_is_told};
use netdrop_tests::traffic::{limit_receive_buffer, send_udp};
use netdrop_tests::{Dropped, Lab, Trace, sockopt, wait};
use serde_json::{Value, json};

/// Requires evidence of a socket that holds more than half of what it may, and may hold `limit`.
#[track_caller]
fn expect_full(event: &Value, limit: u64) {
    let socket = &event["evidence"]["socket"];
    if !receiver_is_told() {
        // Rather nothing than the figures of another socket.
        assert!(socket.is_null(), "{event}");
        return;
    }
    assert_eq!(socket["limit"], limit, "evidence {socket}");
    // Full means that one more packet does not fit: these take less than half of the limit each.
    let used = socket["used"].as_u64().unwrap_or_else(|| panic!("evidence {socket}"));
    assert!(used > limit / 2, "evidence {socket}");
}

#[test]
fn udp_receive_buffer_full() {
    let Some(lab) = Lab::new("rcvbuf", &[]) else { return };
    let pair = lab.pair();
    let counters = ["IpInDelivers", "UdpRcvbufErrors"];
    udp(&pair, "10.0.0.2:9000", "10.0.0.1:5003", counters, 28);
}

#[test]
fn udp_receive_buffer_full_over_ipv6() {
    let Some(lab) = Lab::new("rcvbuf6", &[]) else { return };
    let pair = lab.pair_with_ipv6();
    let counters = ["Ip6InDelivers", "Udp6RcvbufErrors"];
    udp(&pair, "[fd00::2]:9000", "[fd00::1]:5003", counters, 48);
}

fn udp(pair: &Pair, to: &str, from: &str, [delivered, refused]: [&str; 2], headers: u64) {
    let reader = pair.b.udp_socket(to);
    let limit = limit_receive_buffer(&reader, 4096);
    let tracing = Trace::of(&pair.b).start();
    let before = pair.b.mib(delivered);

    let writer = pair.a.udp_socket(from);
    send_udp(&writer, to, 64, 1000);
    wait::until("all datagrams", || match pair.b.mib(delivered) - before {
        64.. => Ok(()),
        arrived => Err(format!("{arrived} of 64")),
    });
    let dropped = wait::until_stable(refused, || pair.b.mib(refused));
    assert!(dropped < 64, "the first datagram always fits");

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "udp-receive-buffer-full",
        class: "harmful",
        netns: &pair.b,
        count: dropped,
        packet: json!({"proto": "udp", "src": pair.a_end.ip.to_string(), "sport": 5003,
            "dst": pair.b_end.ip.to_string(), "dport": 9000, "len": 1000 + headers}),
    });
    expect_certain(event);
    expect_full(event, limit);
}

#[test]
fn ping_receive_buffer_full() {
    let Some(lab) = Lab::new("rcvbuf-ping", &[]) else { return };
    let pair = lab.pair();
    let reply = Hop::between(pair.a_end, pair.b_end).ip(64).icmpv4_echo_reply(PING, 1);
    let mut frame = Vec::new();
    reply.write(&mut frame, &[0; 1000]).expect("a message fits a vector");
    ping(&pair, "0.0.0.0", &frame, "icmp");
}

#[test]
fn ping_receive_buffer_full_over_ipv6() {
    let Some(lab) = Lab::new("rcvbuf-ping6", &[]) else { return };
    let pair = lab.pair_with_ipv6();
    let reply = Hop::between(pair.a_end, pair.b_end).ip(64).icmpv6_echo_reply(PING, 1);
    let mut frame = Vec::new();
    reply.write(&mut frame, &[0; 1000]).expect("a message fits a vector");
    ping(&pair, "::", &frame, "icmp6");
}

/// What the answers to one ping have in common.
const PING: u16 = 777;

/// Answers for a ping that does not read them.
fn ping(pair: &Pair, any: &str, answer: &Vec<u8>, proto: &str) {
    let reader = pair.b.ping_socket(any, PING);
    let limit = limit_receive_buffer(&reader, 4096);
    let tracing = Trace::of(&pair.b).start();

    pair.a.send_frames("eth0", [answer; 64]);
    let dropped = wait::until_stable("drops of the socket", || sockopt::drops(&reader));
    assert!((1..64).contains(&dropped), "{dropped} of 64 answers");

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "socket-receive-buffer-full",
        class: "harmful",
        netns: &pair.b,
        count: dropped,
        packet: json!({"proto": proto, "src": pair.a_end.ip.to_string(),
            "dst": pair.b_end.ip.to_string()}),
    });
    expect_certain(event);
    expect_full(event, limit);
}
