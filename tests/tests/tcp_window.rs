//! TCP segments whose sequence or acknowledgment number does not fit the connection.

use etherparse::TcpHeader;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;
use netdrop_tests::tcp::FIRST;
use netdrop_tests::wait;

/// Wrong segments that each scenario sends.
const COUNT: u64 = 3;

/// What these segments must be called.
fn rejected<'a>(flags: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    Rejected { cause: "tcp-out-of-window", verdict: ("suspect", "observed"), flags, count: COUNT, counter }
}

#[test]
fn data_far_beyond() {
    far_beyond(Scene::ipv4("win-seq"));
}

#[test]
fn data_far_beyond_over_ipv6() {
    far_beyond(Scene::ipv6("win-seq6"));
}

fn far_beyond(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    let header = scene.peer.header();
    let far = header.sequence_number.wrapping_add(10_000_000);
    for _ in 0..COUNT {
        scene.peer.send(TcpHeader { sequence_number: far, ..header.clone() }, b"far away");
    }

    scene.expect(tracing, &rejected(".", &|| sockopt::drops(&server)));
}

/// The data begins inside the window and ends outside: the sender does not respect the window.
#[test]
fn data_that_ends_beyond() {
    let Some(mut scene) = Scene::ipv4("win-end") else { return };
    if scene.lacks("TcpExtBeyondWindow", "win-end") {
        return;
    }
    let _server = scene.peer.connect(&scene.listener);
    // Something unread: to an empty queue the kernel adds whatever comes.
    scene.peer.send_data(1000);
    let next = scene.peer.next;
    let answer = scene.peer.receive("acknowledgment", |header| header.acknowledgment_number == next);
    let tracing = scene.trace();

    let last = next.wrapping_add(answer.window_size.into()).wrapping_sub(1);
    for _ in 0..COUNT {
        scene.peer.send(TcpHeader { sequence_number: last, ..scene.peer.header() }, b"two");
    }

    scene.expect(tracing, &rejected(".", &|| scene.mib("TcpExtBeyondWindow")));
}

#[test]
fn acknowledgment_of_data_never_sent() {
    unsent(Scene::ipv4("win-unsent"));
}

#[test]
fn acknowledgment_of_data_never_sent_over_ipv6() {
    unsent(Scene::ipv6("win-unsent6"));
}

fn unsent(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    let header = scene.peer.header();
    let unsent = header.acknowledgment_number.wrapping_add(5000);
    for _ in 0..COUNT {
        scene.peer.send(TcpHeader { acknowledgment_number: unsent, ..header.clone() }, &[]);
    }

    scene.expect(tracing, &rejected(".", &|| sockopt::drops(&server)));
}

#[test]
fn acknowledgment_far_too_old() {
    let Some(mut scene) = Scene::ipv4("win-old-ack") else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    let header = scene.peer.header();
    let old = header.acknowledgment_number.wrapping_sub(1_000_000);
    // A window that has changed: the fast path for segments that hold no surprise does not look at old ones.
    let header = TcpHeader { window_size: 100, ..header };
    for _ in 0..COUNT {
        scene.peer.send(TcpHeader { acknowledgment_number: old, ..header.clone() }, &[]);
    }

    scene.expect(tracing, &rejected(".", &|| sockopt::drops(&server)));
}

/// The last packet of a handshake has a sequence number that the listener did not agree to.
#[test]
fn in_a_handshake() {
    let Some(mut scene) = Scene::ipv4("win-req") else { return };
    scene.peer.open();
    let tracing = scene.trace();

    let header = scene.peer.header();
    let far = header.sequence_number.wrapping_add(10_000_000);
    for _ in 0..COUNT {
        scene.peer.send(TcpHeader { sequence_number: far, ..header.clone() }, &[]);
    }

    scene.expect(tracing, &rejected(".", &|| sockopt::drops(&scene.listener)));
}

/// The answer to an own SYN acknowledges another one.
#[test]
fn in_the_answer_to_a_syn() {
    let Some(scene) = Scene::ipv4("win-active") else { return };
    let mut peer = scene.peer_of(9101);
    let tracing = scene.trace();

    let _client = scene.pair.b.tcp_connecting(&scene.address(9101), peer.address());
    let syn = peer.receive("SYN", |header| header.syn);
    peer.take_over(&syn);
    let wrong = peer.expected.wrapping_add(5000);
    for _ in 0..COUNT {
        peer.send(TcpHeader { ack: true, acknowledgment_number: wrong, ..peer.syn_header() }, &[]);
    }

    scene.expect_from(&peer, tracing, &rejected("S.", &|| scene.mib("TcpOutRsts")));
}

/// A client reuses the port of a connection that has ended, with a sequence number that is not newer.
#[test]
fn syn_to_time_wait() {
    let Some(mut scene) = Scene::ipv4("win-tw") else { return };
    scene.peer.connect_and_end(&scene.listener);
    let before = wait::until_stable("segments", || scene.mib("TcpInSegs"));
    let tracing = scene.trace();

    scene.peer.next = FIRST - 1000;
    for _ in 0..COUNT {
        scene.peer.send(scene.peer.syn_header(), &[]);
    }

    let counter = || scene.mib("TcpInSegs") - before;
    let refused = Rejected { verdict: ("suspect", "inferred"), ..rejected("S", &counter) };
    scene.expect(tracing, &refused);
}
