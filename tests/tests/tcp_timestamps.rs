//! TCP segments whose timestamps do not fit what the receiver has seen: PAWS in its places, and the echo.

use etherparse::TcpHeader;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::tcp::{CLOCK, stamps};

/// A timestamp from before the connection.
const OLD: u32 = CLOCK - 5000;

/// Segments with a wrong timestamp that each scenario sends.
const COUNT: u64 = 3;

/// What these segments must be called.
fn rejected<'a>(flags: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    Rejected {
        cause: "tcp-timestamp-rejected",
        verdict: ("suspect", "observed"),
        flags,
        count: COUNT,
        counter,
    }
}

#[test]
fn on_a_connection() {
    connection(Scene::ipv4("paws"));
}

#[test]
fn on_a_connection_over_ipv6() {
    connection(Scene::ipv6("paws6"));
}

fn connection(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    scene.peer.use_timestamps();
    let _server = scene.peer.connect(&scene.listener);
    scene.peer.send_data(100);
    let tracing = scene.trace();

    scene.peer.stamps = Some((OLD, 0));
    for _ in 0..COUNT {
        scene.peer.send_data(100);
    }

    scene.expect(tracing, &rejected("P.", &|| scene.mib("TcpExtPAWSEstab")));
}

#[test]
fn in_time_wait() {
    time_wait(Scene::ipv4("paws-tw"));
}

#[test]
fn in_time_wait_over_ipv6() {
    time_wait(Scene::ipv6("paws-tw6"));
}

/// A client behind the same address, with another clock, reuses the port of a connection that has ended.
fn time_wait(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    scene.peer.use_timestamps();
    scene.peer.connect_and_end(&scene.listener);
    let tracing = scene.trace();

    scene.peer.stamps = Some((OLD, 0));
    // A sequence number that would be new enough: the timestamp alone decides.
    scene.peer.next = scene.peer.next.wrapping_add(100_000);
    for _ in 0..COUNT {
        scene.peer.send(scene.peer.syn_header(), &[]);
    }

    // Counted apart since 6.15.
    let newer = "TcpExtPAWSTimewait";
    let counter = if scene.pair.b.try_mib(newer).is_some() { newer } else { "TcpExtPAWSEstab" };
    scene.expect(tracing, &rejected("S", &|| scene.mib(counter)));
}

#[test]
fn in_a_handshake() {
    handshake(Scene::ipv4("paws-req"));
}

#[test]
fn in_a_handshake_over_ipv6() {
    handshake(Scene::ipv6("paws-req6"));
}

/// The last packet of the handshake is older than the first.
fn handshake(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    scene.peer.use_timestamps();
    scene.peer.open();
    let tracing = scene.trace();

    let (_, echo) = scene.peer.stamps.expect("the peer uses timestamps");
    scene.peer.stamps = Some((OLD, echo));
    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    scene.expect(tracing, &rejected(".", &|| scene.mib("TcpExtPAWSEstab")));
}

/// The last packet of the handshake echoes a timestamp that the listener never sent.
#[test]
fn echo_of_a_timestamp_never_sent() {
    let Some(mut scene) = Scene::ipv4("tsecr") else { return };
    let counter = "TcpExtTSEcrRejected";
    // Before 6.16 the kernel does not look at the echo here.
    if scene.lacks(counter, "tsecr") {
        return;
    }
    scene.peer.use_timestamps();
    scene.peer.open();
    let tracing = scene.trace();

    let (value, echo) = scene.peer.stamps.expect("the peer uses timestamps");
    scene.peer.stamps = Some((value, echo.wrapping_add(100_000)));
    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    scene.expect(tracing, &rejected(".", &|| scene.mib(counter)));
}

/// The answer to an own SYN echoes a timestamp that the SYN did not have.
#[test]
fn in_the_answer_to_a_syn() {
    let Some(scene) = Scene::ipv4("paws-active") else { return };
    let mut peer = scene.peer_of(9101);
    peer.use_timestamps();
    let tracing = scene.trace();

    let _client = scene.pair.b.tcp_connecting(&scene.address(9101), peer.address());
    let syn = peer.receive("SYN", |header| header.syn);
    peer.take_over(&syn);
    let (value, _) = stamps(&syn).expect("this kernel uses timestamps");
    peer.stamps = Some((CLOCK, value.wrapping_add(100_000)));
    for _ in 0..COUNT {
        peer.send(TcpHeader { ack: true, acknowledgment_number: peer.expected, ..peer.syn_header() }, &[]);
    }

    scene.expect_from(&peer, tracing, &rejected("S.", &|| scene.mib("TcpExtPAWSActive")));
}
