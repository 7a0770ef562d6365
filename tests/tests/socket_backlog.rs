//! TCP segments for a socket that its program keeps locked.

use std::net::TcpStream;
use std::thread;

use netdrop_tests::lab::say_skip;
use netdrop_tests::reason::lacks_evidence;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::stall::{Page, Stall};
use netdrop_tests::wait;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{SendFlags, send};

#[test]
fn while_a_program_sends() {
    locked(Scene::ipv4("backlog"));
}

#[test]
fn while_a_program_sends_over_ipv6() {
    locked(Scene::ipv6("backlog6"));
}

fn locked(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    shrink(&server);
    let page = Page::new();
    thread::scope(|scope| {
        // Before the end of the scope, also after a panic: the sender ends when the stall is gone.
        let Some(stall) = Stall::new(&page) else {
            return say_skip("backlog", "this kernel has no userfaultfd to stop a system call with");
        };
        let tracing = scene.trace();
        // The kernel copies what is to be sent with the socket locked.
        scope.spawn(|| send(&server, page.bytes(), SendFlags::empty()));
        stall.await_reader();

        for _ in 0..200 {
            scene.peer.send_data(1000);
        }
        let refused = "TcpExtTCPBacklogDrop";
        let count = wait::until_stable(refused, || scene.mib(refused));

        let dropped = Rejected {
            cause: "socket-backlog-full",
            verdict: ("harmful", "observed"),
            flags: "P.",
            count,
            counter: &|| scene.mib(refused),
        };
        // Ends the trace before the program goes on: what has waited is outside the window.
        let (_, event) = scene.expect(tracing, &dropped);
        if lacks_evidence(&event, "socket") {
            return;
        }
        let socket = &event["evidence"]["socket"];
        let number = |name: &str| socket[name].as_u64().unwrap_or_else(|| panic!("evidence {socket}"));
        // Buffers of 8 KB and 64 KB more are what the kernel lets wait.
        assert!(number("backlog") > 64 << 10, "evidence {socket}");
        assert_eq!(number("used"), 0, "evidence {socket}");
    });
}

/// The limit of the backlog follows the buffers.
#[track_caller]
fn shrink(server: &TcpStream) {
    set_socket_recv_buffer_size(server, 4096)
        .and_then(|()| set_socket_send_buffer_size(server, 4096))
        .unwrap_or_else(|error| panic!("SO_RCVBUF, SO_SNDBUF: {error}"));
}
