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

/// What these segments must be called.
fn overflow<'a>(confidence: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    let verdict = ("harmful", confidence);
    Rejected { cause: "tcp-accept-queue-full", verdict, flags: ".", count: COUNT, counter }
}

#[test]
fn end_of_a_handshake() {
    handshake(Scene::ipv4("accept-ack"));
}

#[test]
fn end_of_a_handshake_over_ipv6() {
    handshake(Scene::ipv6("accept-ack6"));
}

/// The queue fills up while the handshake is under way.
fn handshake(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    shorten(&scene);
    scene.peer.open();
    fill(&scene);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    scene.expect(tracing, &overflow("observed", &|| scene.mib("TcpExtListenOverflows")));
}

#[test]
fn end_of_a_handshake_with_cookies() {
    cookies(Scene::ipv4("accept-cookie"));
}

#[test]
fn end_of_a_handshake_with_cookies_over_ipv6() {
    cookies(Scene::ipv6("accept-cookie6"));
}

/// With SYN cookies there is no handshake under way, only a cookie that comes back.
fn cookies(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "2");
    shorten(&scene);
    scene.peer.open();
    fill(&scene);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.header(), &[]);
    }

    scene.expect(tracing, &overflow("inferred", &|| scene.mib("TcpExtListenOverflows")));
}
