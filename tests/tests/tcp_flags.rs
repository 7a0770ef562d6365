//! TCP segments whose flags make no sense where they arrive.

use etherparse::TcpHeader;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;

/// Wrong segments that each scenario sends.
const COUNT: u64 = 3;

/// What these segments must be called.
fn rejected<'a>(flags: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    Rejected { cause: "tcp-invalid-flags", verdict: ("suspect", "observed"), flags, count: COUNT, counter }
}

#[test]
fn syn_on_a_connection() {
    live_syn(Scene::ipv4("flags-syn"));
}

#[test]
fn syn_on_a_connection_over_ipv6() {
    live_syn(Scene::ipv6("flags-syn6"));
}

fn live_syn(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let _server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.syn_header(), &[]);
    }

    scene.expect(tracing, &rejected("S", &|| scene.mib("TcpExtTCPSYNChallenge")));
}

#[test]
fn no_acknowledgment_on_a_connection() {
    let Some(mut scene) = Scene::ipv4("flags-noack") else { return };
    let server = scene.peer.connect(&scene.listener);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        let header = TcpHeader { ack: false, acknowledgment_number: 0, psh: true, ..scene.peer.header() };
        scene.peer.send(header, b"data");
    }

    scene.expect(tracing, &rejected("P", &|| sockopt::drops(&server)));
}

/// Sends segments to a listener that knows no connection of the peer.
fn to_a_listener(scene: Option<Scene>, flags: &'static str, change: impl Fn(&mut TcpHeader)) {
    let Some(scene) = scene else { return };
    let tracing = scene.trace();

    let mut header = scene.peer.header();
    change(&mut header);
    for _ in 0..COUNT {
        scene.peer.send(header.clone(), &[]);
    }

    scene.expect(tracing, &rejected(flags, &|| sockopt::drops(&scene.listener)));
}

#[test]
fn syn_with_fin_to_a_listener() {
    to_a_listener(Scene::ipv4("flags-synfin"), "FS", syn_fin);
}

#[test]
fn syn_with_fin_to_a_listener_over_ipv6() {
    to_a_listener(Scene::ipv6("flags-synfin6"), "FS", syn_fin);
}

fn syn_fin(header: &mut TcpHeader) {
    (header.ack, header.syn, header.fin) = (false, true, true);
}

/// What port scanners send.
#[test]
fn no_flag_at_all_to_a_listener() {
    to_a_listener(Scene::ipv4("flags-null"), "none", |header| header.ack = false);
}

/// The "Christmas tree" of port scanners.
#[test]
fn all_wrong_flags_to_a_listener() {
    to_a_listener(Scene::ipv4("flags-xmas"), "FPU", |header| {
        (header.ack, header.fin, header.psh, header.urg) = (false, true, true, true);
    });
}
