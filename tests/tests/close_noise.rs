//! What sockets leave behind when they close: nothing of it is a problem.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};

use netdrop_tests::reason::expect_certain;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Lab, Trace, wait};

/// Datagrams that a program had not read are freed after a grace period, when the namespace is not told any more.
#[test]
fn unread_datagrams() {
    let Some(lab) = Lab::new("close-udp", &[]) else { return };
    let pair = lab.pair();
    let reader = pair.b.udp_socket("10.0.0.2:9377");
    let tracing = Trace::everywhere().args(&["--all", "--port", "9377"]).start();

    let writer = pair.a.udp_socket("10.0.0.1:5377");
    send_udp(&writer, "10.0.0.2:9377", 5, 100);
    wait::until_counter("IpInDelivers", 5, || pair.b.mib("IpInDelivers"));
    drop(reader);
    let events = tracing.await_events("unread datagrams", 5, |event| event["packet"]["sport"] == 5377);

    let outcome = tracing.stop();
    outcome.expect_benign();
    assert_eq!(outcome.cause_count("queue-purge"), 5);
    for event in events {
        assert_eq!(event["cause"]["id"], "queue-purge", "{event}");
        expect_certain(&event);
    }
}

/// Unread data makes TCP reset the connection; the data itself is freed in silence.
#[test]
fn unread_stream() {
    let Some(lab) = Lab::new("close-tcp", &[]) else { return };
    let pair = lab.pair();
    let listener = pair.b.tcp_listener("10.0.0.2:9378");
    let traces = [&pair.a, &pair.b].map(|netns| Trace::of(netns).start());

    let connect = || TcpStream::connect("10.0.0.2:9378");
    let mut client = pair.a.enter(connect).unwrap_or_else(|error| panic!("connect: {error}"));
    let (server, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    client.write_all(&[b'n'; 1000]).unwrap_or_else(|error| panic!("write: {error}"));
    wait::until("unread data", || match server.peek(&mut [0; 1000]) {
        Ok(1000) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(server);
    wait::until_counter("TCPAbortOnClose", 1, || pair.b.mib("TcpExtTCPAbortOnClose"));
    wait::until_counter("resets received", 1, || pair.a.mib("TcpEstabResets"));

    traces.into_iter().for_each(|tracing| tracing.stop().expect_benign());
}

/// A connection that was never accepted, with data that nobody read.
#[test]
fn listener_with_a_connection_in_its_queue() {
    queued(Scene::ipv4("close-listen"));
}

#[test]
fn listener_with_a_connection_in_its_queue_over_ipv6() {
    queued(Scene::ipv6("close-listen6"));
}

fn queued(scene: Option<Scene>) {
    let Some(mut scene) = scene else { return };
    scene.peer.open();
    scene.peer.send(scene.peer.header(), &[]);
    scene.peer.send_data(1000);
    wait::until_counter("segments", 3, || scene.mib("TcpInSegs"));
    let tracing = scene.trace_all();

    // The first listener is closed here.
    scene.listener = scene.pair.b.tcp_listener(&scene.address(9101));

    let dropped = Rejected {
        cause: "queue-purge",
        verdict: ("benign", "observed"),
        flags: "P.",
        count: 1,
        counter: &|| scene.mib("TcpOutRsts"),
    };
    scene.expect(tracing, &dropped);
}

/// Messages of local sockets are packets too, without addresses.
#[test]
fn unread_messages_of_local_sockets() {
    let Some(lab) = Lab::new("close-unix", &[]) else { return };
    let netns = lab.netns("a");
    let (sender, reader) = netns.enter(UnixDatagram::pair).unwrap_or_else(|error| panic!("{error}"));
    let (mut stream, other_end) = netns.enter(UnixStream::pair).unwrap_or_else(|error| panic!("{error}"));
    let tracing = Trace::of(&netns).args(&["--all"]).start();

    for _ in 0..3 {
        sender.send(b"unread").unwrap_or_else(|error| panic!("send: {error}"));
    }
    stream.write_all(b"unread").unwrap_or_else(|error| panic!("write: {error}"));
    drop((reader, other_end));
    // A process that another test is just starting may hold the sockets for a moment longer.
    tracing.await_events("unread messages", 4, |_| true);

    let outcome = tracing.stop();
    outcome.expect_benign();
    assert_eq!(outcome.events_of("queue-purge", &netns).len(), 4);
    assert_eq!(outcome.number("seen"), 4);
}
