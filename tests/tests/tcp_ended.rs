//! Segments of connections that have ended on one side: normal at an end, suspect when the peer still believed
//! in the connection.

use etherparse::TcpHeader;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::wait;

/// Late segments that most scenarios send.
const COUNT: u64 = 3;

/// What these segments must be called.
fn ended<'a>(
    class: &'static str,
    flags: &'static str,
    count: u64,
    counter: &'a dyn Fn() -> u64,
) -> Rejected<'a> {
    Rejected { cause: "connection-teardown", verdict: (class, "observed"), flags, count, counter }
}

/// The program closes, and data arrives that it will never read.
#[test]
fn data_while_closing() {
    abort_on_data(Scene::ipv4("ended-abort"));
}

#[test]
fn data_while_closing_over_ipv6() {
    abort_on_data(Scene::ipv6("ended-abort6"));
}

fn abort_on_data(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    drop(server);
    scene.peer.receive("FIN", |header| header.fin);
    // The FIN is not acknowledged yet: the socket is in FIN_WAIT1.
    scene.peer.send_data(100);

    let (_, event) = scene.expect(tracing, &ended("suspect", "P.", 1, &|| scene.mib("TcpExtTCPAbortOnData")));
    expect_reason(&event, "TCP_ABORT_ON_DATA");
}

/// As before, but the peer has acknowledged the FIN: only a TIME_WAIT entry is left of the socket.
#[test]
fn data_after_closing() {
    let Some(mut scene) = Scene::ipv4("ended-data") else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    drop(server);
    scene.peer.acknowledge_fin();
    scene.peer.send_data(100);

    scene.expect(tracing, &ended("suspect", "P.", 1, &|| scene.mib("TcpOutRsts")));
}

/// Data of a connection that the listener's host has forgotten, as after a restart.
#[test]
fn data_of_a_forgotten_connection() {
    let Some(mut scene) = Scene::ipv4("ended-forgot") else { return };
    forgotten(&mut scene, "suspect", "P.", |scene| scene.peer.send_data(100));
}

#[test]
fn data_of_a_forgotten_connection_over_ipv6() {
    let Some(mut scene) = Scene::ipv6("ended-forgot6") else { return };
    forgotten(&mut scene, "suspect", "P.", |scene| scene.peer.send_data(100));
}

#[test]
fn end_of_a_forgotten_connection() {
    let Some(mut scene) = Scene::ipv4("ended-fin") else { return };
    forgotten(&mut scene, "benign", "F.", |scene| scene.peer.send_fin());
}

fn forgotten(scene: &mut Scene, class: &'static str, flags: &'static str, send: impl Fn(&mut Scene)) {
    scene.peer.expected = 77;
    let tracing = scene.trace_all();
    for _ in 0..COUNT {
        send(scene);
    }
    scene.expect(tracing, &ended(class, flags, COUNT, &|| scene.mib("TcpOutRsts")));
}

/// As before, but nobody listens any more.
#[test]
fn data_of_a_forgotten_connection_without_a_listener() {
    let Some(scene) = Scene::ipv4("ended-closed") else { return };
    let mut peer = scene.peer_of(9101);
    let tracing = scene.trace();
    for _ in 0..COUNT {
        peer.send_data(100);
    }
    scene.expect_from(&peer, tracing, &ended("suspect", "P.", COUNT, &|| scene.mib("TcpOutRsts")));
}

/// Resets for a port where nobody listens any more are answered with nothing.
#[test]
fn reset_without_a_listener() {
    let Some(scene) = Scene::ipv4("ended-rst") else { return };
    let peer = scene.peer_of(9101);
    let tracing = scene.trace_all();
    for _ in 0..COUNT {
        peer.send(TcpHeader { rst: true, ack: false, ..peer.header() }, &[]);
    }
    scene.expect_from(&peer, tracing, &ended("benign", "R", COUNT, &|| scene.mib("TcpInSegs")));
}

/// Sends late segments to a socket in TIME_WAIT.
fn in_time_wait(scene: Option<Scene>, flags: &'static str, change: impl Fn(&mut TcpHeader)) {
    let Some(mut scene) = scene else { return };
    scene.peer.connect_and_end(&scene.listener);
    let before = wait::until_stable("segments", || scene.mib("TcpInSegs"));
    let tracing = scene.trace_all();

    let mut header = scene.peer.header();
    change(&mut header);
    for _ in 0..COUNT {
        scene.peer.send(header.clone(), &[]);
    }

    let counter = || scene.mib("TcpInSegs") - before;
    scene.expect(tracing, &ended("benign", flags, COUNT, &counter));
}

#[test]
fn repeated_fin_in_time_wait() {
    in_time_wait(Scene::ipv4("ended-tw-fin"), "F.", fin);
}

#[test]
fn repeated_fin_in_time_wait_over_ipv6() {
    in_time_wait(Scene::ipv6("ended-tw-fin6"), "F.", fin);
}

fn fin(header: &mut TcpHeader) {
    header.fin = true;
    header.sequence_number = header.sequence_number.wrapping_sub(1);
}

#[test]
fn acknowledgment_in_time_wait() {
    in_time_wait(Scene::ipv4("ended-tw-ack"), ".", |_| {});
}

/// A reset that is not exactly in place does not end TIME_WAIT.
#[test]
fn reset_in_time_wait() {
    in_time_wait(Scene::ipv4("ended-tw-rst"), "R.", |header| {
        header.rst = true;
        header.sequence_number = header.sequence_number.wrapping_sub(1);
    });
}
