//! Programs that talk over TCP as clients and servers do, many connections at the same time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use crate::netns::Netns;
use crate::wait::DEADLINE;

/// Programs that talk at the same time.
pub const CLIENTS: u64 = 4;

/// Bytes of a question.
pub const QUESTION: usize = 40;

/// Bytes of an answer: several segments.
const ANSWER: usize = 10_000;

/// `count` connections from `client` to a server at `address` of `server`, each with a question, an answer and an
/// end. All succeed.
#[track_caller]
pub fn connections(client: &Netns, server: &Netns, address: &str, count: u64) {
    let listener = server.tcp_listener(address);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..count / CLIENTS).for_each(|_| answer(&listener)));
            scope.spawn(|| client.enter(|| (0..count / CLIENTS).for_each(|serial| ask(address, serial))));
        }
    });
    assert_eq!(client.mib("TcpActiveOpens"), count);
    assert_eq!(server.mib("TcpPassiveOpens"), count);
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
    assert_eq!(answer.len(), ANSWER);
}

/// Serves one connection.
fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout that is not 0");
    let mut question = [0; QUESTION];
    stream.read_exact(&mut question).unwrap_or_else(|error| panic!("read the question: {error}"));
    stream.write_all(&[b'a'; ANSWER]).unwrap_or_else(|error| panic!("answer: {error}"));
    if question[0] == 0 {
        let left = stream.read(&mut question).unwrap_or_else(|error| panic!("read to the end: {error}"));
        assert_eq!(left, 0);
    }
}
