//! Traffic without a problem: netdrop must not see one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;

use netdrop_tests::link::Pair;
use netdrop_tests::wait::DEADLINE;
use netdrop_tests::{Lab, Trace, Tracing};

/// Connections, and exchanges of datagrams.
const COUNT: u64 = 10_000;

/// Events to keep: all.
const KEPT: usize = 10 * COUNT as usize;

/// Programs that talk at the same time.
const CLIENTS: u64 = 4;

/// Bytes of a question.
const QUESTION: usize = 40;

/// Bytes of an answer over TCP: several segments.
const STREAM_ANSWER: usize = 10_000;

/// Bytes of an answer over UDP.
const DATAGRAM_ANSWER: usize = 400;

/// Acknowledgments that may come after their connection has ended: where a program moves to another CPU
/// between two segments, the later one can overtake the earlier, and nothing tells that one from a segment of a
/// connection that was never there.
const OVERTAKEN: u64 = COUNT / 1000;

/// Requires of a trace that nothing looked like a problem: what closing sockets leave behind is benign.
#[track_caller]
fn expect_clean(tracing: Tracing) {
    let outcome = tracing.stop();
    let odd: Vec<_> = outcome.events.iter().filter(|event| event["cause"]["class"] != "benign").collect();
    for row in outcome.summary["causes"].as_array().into_iter().flatten() {
        let overtaken = row["class"] == "suspect"
            && row["id"] == "connection-teardown"
            && row["count"].as_u64().is_some_and(|count| count <= OVERTAKEN);
        assert!(row["class"] == "benign" || overtaken, "{row}: {odd:?}");
    }
    for event in odd {
        assert_eq!(event["packet"]["tcp_flags"], ".", "{event}");
    }
}

#[test]
fn ten_thousand_connections() {
    let Some(lab) = Lab::new("clean-tcp", &[]) else { return };
    connections(&lab.pair(), "10.0.0.2:8000");
}

#[test]
fn ten_thousand_connections_over_ipv6() {
    let Some(lab) = Lab::new("clean-tcp6", &[]) else { return };
    connections(&lab.pair_with_ipv6(), "[fd00::2]:8000");
}

fn connections(pair: &Pair, address: &str) {
    let listener = pair.b.tcp_listener(address);
    let traces = [&pair.a, &pair.b].map(|netns| Trace::of(netns).args(&["--all"]).keep_events(KEPT).start());

    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..COUNT / CLIENTS).for_each(|_| answer(&listener)));
            scope.spawn(|| pair.a.enter(|| (0..COUNT / CLIENTS).for_each(|serial| ask(address, serial))));
        }
    });

    assert_eq!(pair.a.mib("TcpActiveOpens"), COUNT);
    assert_eq!(pair.b.mib("TcpPassiveOpens"), COUNT);
    traces.into_iter().for_each(expect_clean);
}

/// One connection: a question, an answer of several segments, and an end that either side may begin.
fn ask(address: &str, serial: u64) {
    let server_closes_first = serial.is_multiple_of(2);
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout that is not 0");
    let mut question = [0; QUESTION];
    question[0] = server_closes_first.into();
    stream.write_all(&question).unwrap_or_else(|error| panic!("ask: {error}"));
    if !server_closes_first {
        stream.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("close one way: {error}"));
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("read the answer: {error}"));
    assert_eq!(answer.len(), STREAM_ANSWER);
}

/// Serves one connection.
fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout that is not 0");
    let mut question = [0; QUESTION];
    stream.read_exact(&mut question).unwrap_or_else(|error| panic!("read the question: {error}"));
    stream.write_all(&[b'a'; STREAM_ANSWER]).unwrap_or_else(|error| panic!("answer: {error}"));
    if question[0] == 0 {
        let left = stream.read(&mut question).unwrap_or_else(|error| panic!("read to the end: {error}"));
        assert_eq!(left, 0);
    }
}

#[test]
fn ten_thousand_exchanges_of_datagrams() {
    let Some(lab) = Lab::new("clean-udp", &[]) else { return };
    exchanges(&lab.pair(), "10.0.0.2:53", "10.0.0.1:0", "UdpInDatagrams");
}

#[test]
fn ten_thousand_exchanges_of_datagrams_over_ipv6() {
    let Some(lab) = Lab::new("clean-udp6", &[]) else { return };
    exchanges(&lab.pair_with_ipv6(), "[fd00::2]:53", "[fd00::1]:0", "Udp6InDatagrams");
}

/// As resolvers ask name servers: every question from a socket and a port of its own.
fn exchanges(pair: &Pair, address: &str, from: &str, received: &str) {
    let server = pair.b.udp_socket(address);
    let traces = [&pair.a, &pair.b].map(|netns| Trace::of(netns).args(&["--all"]).keep_events(KEPT).start());

    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..COUNT / CLIENTS {
                    let mut question = [0; QUESTION];
                    let (len, client) = server.recv_from(&mut question).expect("a question");
                    assert_eq!(len, QUESTION);
                    server.send_to(&[b'a'; DATAGRAM_ANSWER], client).expect("an answer is sent");
                }
            });
            scope.spawn(|| {
                pair.a.enter(|| {
                    for _ in 0..COUNT / CLIENTS {
                        let socket = UdpSocket::bind(from).expect("a free port");
                        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout that is not 0");
                        socket.connect(address).expect("a route");
                        socket.send(&[b'q'; QUESTION]).expect("a question is sent");
                        let mut answer = [0; 512];
                        assert_eq!(socket.recv(&mut answer).expect("an answer in time"), DATAGRAM_ANSWER);
                    }
                });
            });
        }
    });

    assert_eq!([&pair.a, &pair.b].map(|netns| netns.mib(received)), [COUNT; 2]);
    traces.into_iter().for_each(expect_clean);
}
