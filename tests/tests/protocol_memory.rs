//! Packets for sockets that have room, while all sockets of the protocol together may hold no more.
//!
//! The limits count for the whole machine. A hoard of unread data makes its use larger than it ever is by
//! itself; the limit is put below the hoard for the moment in which a few packets are sent.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use netdrop_tests::counters::protocol_memory;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_certain, lacks_evidence};
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde_json::{Value, json};

/// Pages that the hoard must hold beyond what was in use before. Each CPU may keep a megabyte uncounted.
const HOARD: u64 = 2048;

/// Packets that find no memory.
const COUNT: u64 = 3;

/// Lets a socket hold much unread data, more than `net.core.rmem_max` allows others.
#[track_caller]
fn unlimited(socket: &impl AsFd) {
    set_socket_recv_buffer_size_force(socket, 64 << 20)
        .unwrap_or_else(|error| panic!("SO_RCVBUFFORCE: {error}"));
}

/// Adds to the hoard until it is large enough, and returns a limit that the protocol exceeds by far.
#[track_caller]
fn grow_hoard(protocol: &str, mut add: impl FnMut()) -> String {
    let before = protocol_memory(protocol);
    for _ in 0..10_000 {
        let used = protocol_memory(protocol);
        if used >= before + HOARD {
            let limit = used - HOARD / 2;
            return format!("{limit} {limit} {limit}");
        }
        add();
    }
    panic!("{protocol} holds {} pages, {before} before", protocol_memory(protocol));
}

/// Waits for what comes at once, but never long: the whole machine is short of memory meanwhile.
fn await_briefly(happened: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_millis(200);
    while !happened() && Instant::now() < end {
        thread::yield_now();
    }
}

/// Requires evidence that all sockets together hold more than the three values of `limit` allow.
#[track_caller]
fn expect_exceeded(event: &Value, sysctl: &str, limit: &str) {
    if lacks_evidence(event, "memory") {
        return;
    }
    let memory = &event["evidence"]["memory"];
    let number = |name: &str| memory[name].as_u64().unwrap_or_else(|| panic!("evidence {memory}"));
    assert_eq!(memory["sysctl"], sysctl, "evidence {memory}");
    assert!(limit.ends_with(&number("limit").to_string()), "evidence {memory}, limits {limit}");
    assert!(number("used") > number("limit"), "evidence {memory}");
}

#[test]
fn udp() {
    let Some(lab) = Lab::alone("udp-mem", &[]) else { return };
    datagrams(&lab, &lab.pair(), "10.0.0.2:9000", "10.0.0.1:5003");
}

#[test]
fn udp_over_ipv6() {
    let Some(lab) = Lab::alone("udp6-mem", &[]) else { return };
    datagrams(&lab, &lab.pair_with_ipv6(), "[fd00::2]:9000", "[fd00::1]:5003");
}

fn datagrams(lab: &Lab, pair: &Pair, to: &str, from: &str) {
    let reader = pair.b.udp_socket(to);
    let writer = pair.a.udp_socket(from);
    let (hoard, filler) = (pair.b.udp_socket("127.0.0.1:9001"), pair.b.udp_socket("127.0.0.1:0"));
    unlimited(&hoard);
    let limit = grow_hoard("UDP", || {
        send_udp(&filler, "127.0.0.1:9001", 10, 60_000);
    });
    let tracing = Trace::of(&pair.b).start();

    let low = lab.global_sysctl("net/ipv4/udp_mem", &limit);
    send_udp(&writer, to, COUNT, 100);
    await_briefly(|| sockopt::drops(&reader) >= COUNT);
    drop(low);

    // UdpMemErrors does not count them on every kernel: 6.18 forgets it.
    wait::until_counter("the socket's drops", COUNT, || sockopt::drops(&reader));
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "protocol-memory-exhausted",
        class: "harmful",
        netns: &pair.b,
        count: COUNT,
        packet: json!({"proto": "udp", "src": pair.a_end.ip.to_string(), "sport": 5003,
            "dst": pair.b_end.ip.to_string(), "dport": 9000}),
    });
    expect_certain(event);
    // Nothing of what was refused is in the socket.
    assert!(event["evidence"]["socket"]["used"] == 0 || lacks_evidence(event, "socket"), "{event}");
    expect_exceeded(event, "net.ipv4.udp_mem", &limit);
    assert_eq!(outcome.number("shown"), COUNT);
}

#[test]
fn tcp() {
    let Some(lab) = Lab::alone("tcp-mem", &[]) else { return };
    let pair = lab.pair();
    segments(Scene::on(pair, lab));
}

#[test]
fn tcp_over_ipv6() {
    let Some(lab) = Lab::alone("tcp6-mem", &[]) else { return };
    let pair = lab.pair_with_ipv6();
    segments(Scene::on(pair, lab));
}

fn segments(mut scene: Scene) {
    let server = scene.peer.connect(&scene.listener);
    // What comes next to an empty queue is taken in any case.
    scene.peer.send_data(1000);
    let hoard = scene.pair.b.tcp_listener("127.0.0.1:9001");
    unlimited(&hoard);
    let connect = || TcpStream::connect("127.0.0.1:9001");
    let mut filler = scene.pair.b.enter(connect).unwrap_or_else(|error| panic!("connect: {error}"));
    let _unread = hoard.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    filler.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    let limit = grow_hoard("TCP", || match filler.write(&[b'h'; 1 << 16]) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("write: {error}"),
        _ => {}
    });
    let tracing = scene.trace();

    let next = scene.peer.next;
    let low = scene.lab.global_sysctl("net/ipv4/tcp_mem", &limit);
    // After a gap first: data that is refused without one makes the kernel close the window.
    for segment in (0..COUNT as u32).rev() {
        scene.peer.next = next.wrapping_add(segment * 1000);
        scene.peer.send_data(1000);
    }
    await_briefly(|| sockopt::drops(&server) >= COUNT);
    drop(low);

    let refused = || scene.mib("TcpExtTCPOFODrop") + scene.mib("TcpExtTCPRcvQDrop");
    let dropped = Rejected {
        cause: "protocol-memory-exhausted",
        verdict: ("harmful", "observed"),
        flags: "P.",
        count: COUNT,
        counter: &refused,
    };
    let (_, event) = scene.expect(tracing, &dropped);
    expect_exceeded(&event, "net.ipv4.tcp_mem", &limit);
}
