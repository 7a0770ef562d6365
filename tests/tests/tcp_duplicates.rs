//! TCP segments that the receiver already had: nothing is lost.

use etherparse::TcpHeader;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;
use netdrop_tests::tcp::CLOCK;
use netdrop_tests::wait;

/// Repetitions that most scenarios send.
const COUNT: u64 = 3;

/// What these segments must be called.
fn duplicate<'a>(flags: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    Rejected { cause: "duplicate-data", verdict: ("benign", "observed"), flags, count: COUNT, counter }
}

/// The peer sends `sent` segments, and the first of them again.
fn repeated(scene: Option<Scene>, sent: u64, reason: &str) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    let first = scene.peer.next;
    for _ in 0..sent {
        scene.peer.send_data(100);
    }
    let last = scene.peer.next;
    scene.peer.receive("acknowledgment", |header| header.acknowledgment_number == last);
    let tracing = scene.trace_all();

    for _ in 0..COUNT {
        scene.peer.next = first;
        scene.peer.send_data(100);
    }

    let (_, event) = scene.expect(tracing, &duplicate("P.", &|| sockopt::drops(&server)));
    expect_reason(&event, reason);
}

#[test]
fn the_last_segment_again() {
    repeated(Scene::ipv4("dup-last"), 1, "TCP_OLD_DATA");
}

#[test]
fn the_last_segment_again_over_ipv6() {
    repeated(Scene::ipv6("dup-last6"), 1, "TCP_OLD_DATA");
}

#[test]
fn an_older_segment_again() {
    repeated(Scene::ipv4("dup-old"), 2, "TCP_OLD_SEQUENCE");
}

#[test]
fn an_older_segment_again_over_ipv6() {
    repeated(Scene::ipv6("dup-old6"), 2, "TCP_OLD_SEQUENCE");
}

/// Data after a gap, again and again.
#[test]
fn data_after_a_gap_again() {
    let Some(mut scene) = Scene::ipv4("dup-gap") else { return };
    let _server = scene.peer.connect(&scene.listener);
    let gap = scene.peer.next;
    scene.peer.next = gap.wrapping_add(100);
    scene.peer.send_data(100);
    let tracing = scene.trace_all();

    for _ in 0..COUNT {
        scene.peer.next = gap.wrapping_add(100);
        scene.peer.send_data(100);
    }

    scene.expect(tracing, &duplicate("P.", &|| scene.mib("TcpExtTCPOFOMerge")));
}

/// The data of a gap comes together with what came after it.
#[test]
fn data_after_a_gap_with_the_gap() {
    let Some(mut scene) = Scene::ipv4("dup-fill") else { return };
    let server = scene.peer.connect(&scene.listener);
    let gap = scene.peer.next;
    scene.peer.next = gap.wrapping_add(100);
    // Apart from each other, or the kernel joins them.
    for _ in 0..COUNT {
        scene.peer.send_data(100);
        scene.peer.next = scene.peer.next.wrapping_add(100);
    }
    let tracing = scene.trace_all();

    scene.peer.next = gap;
    scene.peer.send_data(1000);

    scene.expect(tracing, &duplicate("P.", &|| sockopt::drops(&server)));
}

/// The answer to a SYN got lost: the client sends it again.
#[test]
fn syn_again() {
    syn(Scene::ipv4("dup-syn"));
}

#[test]
fn syn_again_over_ipv6() {
    syn(Scene::ipv6("dup-syn6"));
}

fn syn(scene: Option<Scene>) {
    let Some(scene) = scene else { return };
    scene.peer.send(scene.peer.syn_header(), &[]);
    scene.peer.receive("SYN-ACK", |header| header.syn && header.ack);
    let before = scene.mib("TcpInSegs");
    let tracing = scene.trace_all();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.syn_header(), &[]);
    }

    scene.expect(tracing, &duplicate("S", &|| scene.mib("TcpInSegs") - before));
}

/// The last packet of the handshake got lost: the server answers the SYN again.
#[test]
fn syn_ack_again() {
    let Some(scene) = Scene::ipv4("dup-synack") else { return };
    let mut peer = scene.peer_of(9101);
    let client = scene.pair.b.tcp_connecting(&scene.address(9101), peer.address());
    let syn = peer.receive("SYN", |header| header.syn);
    peer.take_over(&syn);
    let answer = TcpHeader { ack: true, acknowledgment_number: peer.expected, ..peer.syn_header() };
    peer.send(answer.clone(), &[]);
    peer.receive("the end of the handshake", |header| !header.syn);
    let tracing = scene.trace_all();

    for _ in 0..COUNT {
        peer.send(answer.clone(), &[]);
    }

    scene.expect_from(&peer, tracing, &duplicate("S.", &|| sockopt::drops(&client)));
}

/// An acknowledgment that data overtook, which both timestamp and sequence number tell.
#[test]
fn acknowledgment_overtaken() {
    let Some(mut scene) = Scene::ipv4("dup-ack") else { return };
    let counter = "TcpExtPAWSOldAck";
    if scene.lacks(counter, "dup-ack") {
        return;
    }
    scene.peer.use_timestamps();
    let _server = scene.peer.connect(&scene.listener);
    let (_, echo) = scene.peer.stamps.expect("the peer uses timestamps");
    let overtaken = scene.peer.header();
    scene.peer.stamps = Some((CLOCK + 100, echo));
    scene.peer.send_data(100);
    wait::until_counter("segments", 3, || scene.mib("TcpInSegs"));
    let tracing = scene.trace_all();

    for _ in 0..COUNT {
        scene.peer.send(overtaken.clone(), &[]);
    }

    scene.expect(tracing, &duplicate(".", &|| scene.mib(counter)));
}
