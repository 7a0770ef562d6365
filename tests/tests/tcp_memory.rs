//! TCP segments for a connection whose receive buffer has no room for them.

use std::io::Read;
use std::net::{Shutdown, TcpStream};

use netdrop_tests::reason::{expect_reason, lacks_evidence};
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;
use netdrop_tests::tcp::FIRST;
use netdrop_tests::wait;
use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_recv_buffer_size};

/// Bytes of data in each segment.
const LEN: u32 = 1000;

/// The kernel's counter of data without a gap that it refused.
const REFUSED: &str = "TcpExtTCPRcvQDrop";

/// What these segments must be called.
fn rejected<'a>(
    verdict: (&'static str, &'static str),
    count: u64,
    counter: &'a dyn Fn() -> u64,
) -> Rejected<'a> {
    Rejected { cause: "tcp-receive-buffer-full", verdict, flags: "P.", count, counter }
}

/// Takes away most of the room that the announced window promised.
#[track_caller]
fn shrink(server: &TcpStream) {
    set_socket_recv_buffer_size(server, 4096).unwrap_or_else(|error| panic!("SO_RCVBUF: {error}"));
}

/// Sends data without a gap until the kernel refuses some.
fn fill(scene: &mut Scene) {
    // Less than the window: all of it would have been welcome.
    for _ in 0..32 {
        if scene.mib(REFUSED) > 0 {
            return;
        }
        scene.peer.send_data(LEN as usize);
    }
}

#[test]
fn next_data() {
    in_order(Scene::ipv4("mem-next"));
}

#[test]
fn next_data_over_ipv6() {
    in_order(Scene::ipv6("mem-next6"));
}

fn in_order(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    shrink(&server);
    let tracing = scene.trace();

    fill(&mut scene);

    let (_, event) = scene.expect(tracing, &rejected(("harmful", "observed"), 1, &|| scene.mib(REFUSED)));
    if lacks_evidence(&event, "socket") {
        return;
    }
    let socket = &event["evidence"]["socket"];
    let number = |name: &str| socket[name].as_u64().unwrap_or_else(|| panic!("evidence {socket}"));
    let limit = socket_recv_buffer_size(&server).unwrap_or_else(|error| panic!("SO_RCVBUF: {error}"));
    assert_eq!(number("limit"), limit as u64, "evidence {socket}");
    assert!(number("used") > number("limit"), "evidence {socket}");
}

/// The rest of what was under way when the window closed.
#[test]
fn data_beyond_a_closed_window() {
    let Some(mut scene) = Scene::ipv4("mem-beyond") else { return };
    let counter = "TcpExtBeyondWindow";
    // Before 6.17 the kernel takes what it has room for, window or not.
    if scene.lacks(counter, "mem-beyond") {
        return;
    }
    let server = scene.peer.connect(&scene.listener);
    shrink(&server);
    fill(&mut scene);
    let tracing = scene.trace();

    for _ in 0..3 {
        scene.peer.send_data(LEN as usize);
    }

    scene.expect(tracing, &rejected(("suspect", "inferred"), 3, &|| scene.mib(counter)));
}

#[test]
fn data_after_a_gap() {
    out_of_order(Scene::ipv4("mem-gap"));
}

#[test]
fn data_after_a_gap_over_ipv6() {
    out_of_order(Scene::ipv6("mem-gap6"));
}

fn out_of_order(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    shrink(&server);
    let tracing = scene.trace();

    scene.peer.next += LEN;
    for _ in 0..20 {
        scene.peer.send_data(LEN as usize);
    }

    // Refused is what comes, or thrown out what is there: that differs between kernels, and has a counter each.
    // The socket counts both.
    let dropped = || sockopt::drops(&server);
    let count = wait::until_stable("segments that the socket dropped", dropped);
    assert!(scene.mib("TcpExtTCPOFODrop") + scene.mib("TcpExtOfoPruned") > 0, "for want of room");
    scene.expect(tracing, &rejected(("harmful", "observed"), count, &dropped));
}

#[test]
fn data_thrown_out_to_make_room() {
    prune(Scene::ipv4("mem-prune"));
}

#[test]
fn data_thrown_out_to_make_room_over_ipv6() {
    prune(Scene::ipv6("mem-prune6"));
}

/// Data after a gap is stored, then evicted by the data of the gap.
fn prune(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    // Something waits to be read: older kernels have room for data without a gap where nothing does.
    scene.peer.send_data(LEN as usize);
    let gap = scene.peer.next;
    scene.peer.next += LEN;
    for _ in 0..20 {
        scene.peer.send_data(LEN as usize);
    }
    wait::until_counter("segments stored", 20, || scene.mib("TcpExtTCPOFOQueue"));
    shrink(&server);
    let tracing = scene.trace();

    scene.peer.next = gap;
    scene.peer.send_data(LEN as usize);

    // OfoPruned counts the attempts, the socket the segments.
    wait::until_counter("attempts", 1, || scene.mib("TcpExtOfoPruned"));
    let count = sockopt::drops(&server);
    let (_, event) =
        scene.expect(tracing, &rejected(("harmful", "observed"), count, &|| sockopt::drops(&server)));
    expect_reason(&event, "TCP_OFO_QUEUE_PRUNE");
}

/// The next data of a peer that was told that the window is closed.
#[test]
fn data_into_a_closed_window() {
    let Some(mut scene) = Scene::ipv4("mem-closed") else { return };
    let mut server = scene.peer.connect(&scene.listener);
    shrink(&server);
    // The window closes when data is refused. Opened again is it when the program reads, unless it has said
    // that it wants no more.
    fill(&mut scene);
    server.shutdown(Shutdown::Read).unwrap_or_else(|error| panic!("shutdown: {error}"));
    let mut read = Vec::new();
    server.read_to_end(&mut read).unwrap_or_else(|error| panic!("read: {error}"));
    let tracing = scene.trace();

    scene.peer.next = FIRST + 1 + u32::try_from(read.len()).expect("a few segments");
    scene.peer.send_data(LEN as usize);

    let counter = "TcpExtTCPZeroWindowDrop";
    let (_, event) = scene.expect(tracing, &rejected(("suspect", "observed"), 1, &|| scene.mib(counter)));
    expect_reason(&event, "TCP_ZEROWINDOW");
}
