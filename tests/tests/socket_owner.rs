//! Whose socket it was that had no room, and what that process does. Peers here are the test itself: what comes in is
//! processed while the test is the current task, which is never the owner.

use std::cell::Cell;
use std::sync::LazyLock;

use netdrop_tests::holder::Holder;
use netdrop_tests::lab::{Lab, say_skip};
use netdrop_tests::listen::{fill, shorten};
use netdrop_tests::reason::{known, receiver_is_told};
use netdrop_tests::scene::{PORT, Scene};
use netdrop_tests::tcp::Peer;
use netdrop_tests::traffic::{limit_receive_buffer, send_udp};
use netdrop_tests::{Family, Trace, Tracing, doctor, wait};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::Value;

/// Argument of `listen()`: the queue holds one more.
const BACKLOG: u16 = 2;

/// States as netdrop spells them.
const SLEEPING: &str = "S sleeping";
const STOPPED: &str = "T stopped";
const UNINTERRUPTIBLE: &str = "D uninterruptible";

/// A scene of a family whose listener has a full accept queue.
#[track_caller]
fn full(family: Family, name: &str) -> Option<Scene> {
    let name = format!("{name}-{}", family.name());
    let scene = family.pick(Scene::ipv4 as fn(&str) -> Option<Scene>, Scene::ipv6)(&name)?;
    shorten(&scene.listener, BACKLOG);
    fill(&scene.pair, &scene.listener, PORT);
    Some(scene)
}

/// How the kernel side knows the listener of a SYN.
fn evidence_of_syns() -> &'static str {
    static RUNG: LazyLock<Option<String>> = LazyLock::new(|| doctor::rung("tcp_conn_request"));
    if RUNG.as_deref() == Some("witness") { "sock_diag" } else { "socket" }
}

/// Sends a SYN of a peer for which there is no room, and returns netdrop's event.
#[track_caller]
fn lose_syn(tracing: &Tracing, peer: &Peer) -> Value {
    let (from, _) = peer.addresses();
    peer.send(peer.syn_header(), &[]);
    tracing.await_event("the SYN", |event| {
        event["cause"]["id"] == "tcp-accept-queue-full" && event["packet"]["sport"] == from.port()
    })
}

#[test]
fn listener_of_a_stopped_process() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(Scene { pair, listener, peer, lab: _lab }) = full(family, "owner-stop") else { return };
        let holder = Holder::stopped(&listener);
        drop(listener);
        let tracing = Trace::of(&pair.b).start();
        holder.expect(&lose_syn(&tracing, &peer), evidence_of_syns(), 1, STOPPED);
        tracing.stop();
    }
}

#[test]
fn listener_of_a_process_in_uninterruptible_sleep() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(Scene { pair, listener, peer, lab: _lab }) = full(family, "owner-disk") else { return };
        let holder = Holder::uninterruptible(&listener);
        drop(listener);
        let tracing = Trace::of(&pair.b).start();
        holder.expect(&lose_syn(&tracing, &peer), evidence_of_syns(), 1, UNINTERRUPTIBLE);
        tracing.stop();
    }
}

/// The kernel side has the listener itself, by way of the handshake that it belongs to.
#[test]
fn end_of_a_handshake() {
    let Some(mut scene) = Scene::ipv4("owner-ack") else { return };
    shorten(&scene.listener, BACKLOG);
    scene.peer.open();
    fill(&scene.pair, &scene.listener, PORT);
    let Scene { pair, listener, peer, lab: _lab } = scene;
    let holder = Holder::uninterruptible(&listener);
    drop(listener);
    let tracing = Trace::of(&pair.b).start();

    peer.send(peer.header(), &[]);

    let event = tracing.await_event("the last packet of a handshake", |event| {
        event["cause"]["id"] == "tcp-accept-queue-full"
    });
    let evidence = if receiver_is_told() { "socket" } else { "sock_diag" };
    holder.expect(&event, evidence, 1, UNINTERRUPTIBLE);
    tracing.stop();
}

/// Of a master and its workers, the one that is stuck is named; all are counted.
#[test]
fn listener_that_several_processes_share() {
    let Some(Scene { pair, listener, peer, lab: _lab }) = full(Family::Ipv4, "owner-share") else { return };
    let _master = Holder::sleeping(&listener);
    let stuck = Holder::uninterruptible(&listener);
    let _stopped = Holder::stopped(&listener);
    let _worker = Holder::sleeping(&listener);
    drop(listener);
    let tracing = Trace::of(&pair.b).start();
    stuck.expect(&lose_syn(&tracing, &peer), evidence_of_syns(), 4, UNINTERRUPTIBLE);
    tracing.stop();
}

/// Another program takes the port: the one that had it is not named any more.
#[test]
fn listener_that_follows_another() {
    let Some(scene) = full(Family::Ipv4, "owner-next") else { return };
    let address = scene.address(PORT);
    let Scene { pair, listener, peer, lab: _lab } = scene;
    let first = Holder::stopped(&listener);
    drop(listener);
    let tracing = Trace::of(&pair.b).start();
    first.expect(&lose_syn(&tracing, &peer), evidence_of_syns(), 1, STOPPED);
    let ended = first.id();
    drop(first);

    let listener = pair.b.tcp_listener(&address);
    shorten(&listener, BACKLOG);
    fill(&pair, &listener, PORT);
    let second = Holder::sleeping(&listener);
    drop(listener);
    assert_ne!(second.id(), ended);
    // A slow machine may have no time for another look yet: then nobody is named.
    let ports = Cell::new(5300);
    let event = wait::until("an owner", || {
        let peer = Peer::new(&pair, ports.replace(ports.get() + 1), PORT);
        let event = lose_syn(&tracing, &peer);
        if event["process"].is_null() { Err(event.to_string()) } else { Ok(event) }
    });
    second.expect(&event, evidence_of_syns(), 1, SLEEPING);
    tracing.stop();
}

#[test]
fn datagrams_for_a_stopped_process() {
    let ends = [("10.0.0.2:9000", "10.0.0.1:5003"), ("[fd00::2]:9000", "[fd00::1]:5003")];
    for (family, (to, from)) in [Family::Ipv4, Family::Ipv6].into_iter().zip(ends) {
        let Some(lab) = Lab::new(&format!("owner-udp-{}", family.name()), &[]) else { return };
        let pair = lab.pair_of(family);
        let reader = pair.b.udp_socket(to);
        limit_receive_buffer(&reader, 4096);
        let holder = Holder::stopped(&reader);
        drop(reader);
        let tracing = Trace::of(&pair.b).start();

        send_udp(&pair.a.udp_socket(from), to, 32, 1000);

        let event =
            tracing.await_event("a datagram", |event| event["cause"]["id"] == "udp-receive-buffer-full");
        let evidence = if receiver_is_told() { "socket" } else { "sock_diag" };
        holder.expect(&event, evidence, 1, STOPPED);
        tracing.stop();
    }
}

#[test]
fn segments_for_a_stopped_process() {
    let name = "owner-tcp";
    if !receiver_is_told() && known("NOT_SPECIFIED") {
        say_skip(name, "of a drop deep in TCP this kernel tells neither namespace nor socket (5.17 to 6.10)");
        return;
    }
    let Some(mut scene) = Scene::ipv4(name) else { return };
    let server = scene.peer.connect(&scene.listener);
    set_socket_recv_buffer_size(&server, 4096).unwrap_or_else(|error| panic!("SO_RCVBUF: {error}"));
    let holder = Holder::stopped(&server);
    drop(server);
    let tracing = scene.trace();

    wait::until("a segment without room", || {
        scene.peer.send_data(1000);
        if scene.mib("TcpExtTCPRcvQDrop") > 0 { Ok(()) } else { Err("all were taken".to_owned()) }
    });

    let event = tracing.await_event("a segment", |event| event["cause"]["id"] == "tcp-receive-buffer-full");
    holder.expect(&event, "socket", 1, STOPPED);
    tracing.stop();
}
