//! Packets that a program's own classic filter refuses; extended ones are with the control groups.

use netdrop_tests::frame::Hop;
use netdrop_tests::raw::IP_PROTOCOL;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::{Dropped, Lab, Trace, sockopt, wait};
use serde_json::json;

/// Packets that each scenario sends.
const COUNT: u64 = 3;

#[test]
fn on_a_tcp_listener() {
    tcp(Scene::ipv4("filter-tcp"));
}

#[test]
fn on_a_tcp_listener_over_ipv6() {
    tcp(Scene::ipv6("filter-tcp6"));
}

fn tcp(scene: Option<Scene>) {
    let Some(scene) = scene else { return };
    sockopt::refuse_everything(&scene.listener);
    let tracing = scene.trace();

    for _ in 0..COUNT {
        scene.peer.send(scene.peer.syn_header(), &[]);
    }

    let refused = Rejected {
        cause: "socket-filter-drop",
        verdict: ("harmful", "observed"),
        flags: "S",
        count: COUNT,
        counter: &|| sockopt::drops(&scene.listener),
    };
    scene.expect(tracing, &refused);
}

/// A raw socket declines its copy of a packet that went its way.
#[test]
fn on_a_raw_socket() {
    let Some(lab) = Lab::new("filter-raw", &[]) else { return };
    let pair = lab.pair();
    let reader = pair.b.raw_socket(false, IP_PROTOCOL);
    sockopt::refuse_everything(&reader);
    let tracing = Trace::of(&pair.b).args(&["--all"]).start();

    let frame = Hop::between(pair.a_end, pair.b_end).other(IP_PROTOCOL, &[0; 100]);
    pair.a.send_frames("eth0", [&frame; COUNT as usize]);
    // Neither the socket nor the MIB counts a copy that was declined.
    wait::until_counter("IpInDelivers", COUNT, || pair.b.mib("IpInDelivers"));

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "socket-filter-drop",
        class: "benign",
        netns: &pair.b,
        count: COUNT,
        packet: json!({"proto": IP_PROTOCOL.to_string(), "src": "10.0.0.1", "dst": "10.0.0.2"}),
    });
}
