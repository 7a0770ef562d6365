//! Handshakes that end at a listener whose program does not accept.

use netdrop_tests::listen::{Full, fill, shorten};
use netdrop_tests::scene::{PORT, Rejected, Scene};
use netdrop_tests::tcp::Peer;
use netdrop_tests::{Dropped, Outcome, wait};
use serde_json::json;

/// Argument of `listen()`: the queue holds one more.
const BACKLOG: u16 = 4;

/// Last packets of a handshake that each scenario sends.
const COUNT: u64 = 3;

/// The kernel's counter of them.
const OVERFLOWS: &str = "TcpExtListenOverflows";

#[test]
fn end_of_a_handshake() {
    overflow(Scene::ipv4("accept-ack"), false);
}

#[test]
fn end_of_a_handshake_over_ipv6() {
    overflow(Scene::ipv6("accept-ack6"), false);
}

#[test]
fn end_of_a_handshake_with_cookies() {
    overflow(Scene::ipv4("accept-cookie"), true);
}

#[test]
fn end_of_a_handshake_with_cookies_over_ipv6() {
    overflow(Scene::ipv6("accept-cookie6"), true);
}

/// The queue fills up while the handshake is under way. With SYN cookies none is: there is only a cookie that
/// comes back.
fn overflow(scene: Option<Scene>, cookies: bool) {
    let Some(mut scene) = scene else { return };
    if cookies {
        scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "2");
    }
    shorten(&scene.listener, BACKLOG);
    scene.peer.open();
    fill(&scene.pair, &scene.listener, PORT);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    wait::until_counter("handshakes dropped", COUNT, || scene.mib(OVERFLOWS));
    assert_eq!(scene.mib("TcpExtListenDrops"), COUNT);
    let rejected = Rejected {
        cause: "tcp-accept-queue-full",
        verdict: ("harmful", "observed"),
        flags: ".",
        count: COUNT,
        counter: &|| scene.mib(OVERFLOWS),
    };
    let (outcome, _) = scene.expect(tracing, &rejected);
    expect_evidence(&scene, &outcome);
}

/// Requires of every event the evidence of the queue, and that no other counter was the witness.
#[track_caller]
fn expect_evidence(scene: &Scene, outcome: &Outcome) {
    for event in &outcome.events {
        assert_eq!(event["cause"]["id"], "tcp-accept-queue-full", "{event}");
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        Full::accept(&scene.listener).expect(&scene.pair.b, event);
        let witness = &event["evidence"]["witness"];
        let overflow = json!({"cell": "ListenOverflows", "delta": 1});
        assert!(witness.is_null() || *witness == overflow, "{event}");
    }
}

#[test]
fn client_that_is_reset() {
    reset(Scene::ipv4("accept-reset"));
}

#[test]
fn client_that_is_reset_over_ipv6() {
    reset(Scene::ipv6("accept-reset6"));
}

/// The system is told to reset whom it has no room for.
fn reset(scene: Option<Scene>) {
    let Some(scene) = scene else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    shorten(&scene.listener, BACKLOG);
    // A reset ends the handshake: one peer for each.
    let mut peers: Vec<Peer> = (0..COUNT).map(|n| Peer::new(&scene.pair, 5200 + n as u16, PORT)).collect();
    peers.iter_mut().for_each(Peer::open);
    fill(&scene.pair, &scene.listener, PORT);
    let tracing = scene.trace();

    for peer in &peers {
        peer.send(peer.header(), &[]);
        peer.receive("reset", |header| header.rst);
    }

    wait::until_counter("handshakes dropped", COUNT, || scene.mib(OVERFLOWS));
    assert_eq!(scene.mib("TcpExtListenDrops"), COUNT);
    let outcome = tracing.stop();
    outcome.expect_named(&Dropped {
        cause: "tcp-accept-queue-full",
        class: "harmful",
        netns: &scene.pair.b,
        count: COUNT,
        packet: json!({"dport": PORT, "tcp_flags": "."}),
    });
    outcome.expect_count("drops that are shown", outcome.number("shown"), COUNT);
    expect_evidence(&scene, &outcome);
}
