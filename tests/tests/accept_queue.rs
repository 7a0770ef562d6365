//! Handshakes that end at a listener whose program does not accept.

use netdrop_tests::scene::{PORT, Rejected, Scene};
use netdrop_tests::tcp::Peer;

/// Argument of `listen()`: the queue holds one more.
const BACKLOG: u16 = 4;

/// Last packets of a handshake that each scenario sends.
const COUNT: u64 = 3;

/// Fills the accept queue with connections of other peers.
#[track_caller]
fn fill(scene: &Scene) {
    for port in 0..=BACKLOG {
        let mut other = Peer::new(&scene.pair, 5200 + port, PORT);
        other.open();
        other.send(other.header(), &[]);
    }
}

/// A listener with a short queue.
#[track_caller]
fn shorten(scene: &Scene) {
    rustix::net::listen(&scene.listener, BACKLOG.into()).unwrap_or_else(|error| panic!("listen: {error}"));
}

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
    shorten(&scene);
    scene.peer.open();
    fill(&scene);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    let rejected = Rejected {
        cause: "tcp-accept-queue-full",
        verdict: ("harmful", if cookies { "inferred" } else { "observed" }),
        flags: ".",
        count: COUNT,
        counter: &|| scene.mib("TcpExtListenOverflows"),
    };
    scene.expect(tracing, &rejected);
}
