//! Listeners whose queues are short and full, as the kernel itself says.

use std::fs;
use std::io;
use std::mem::size_of_val;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};

use serde_json::{Value, json};

use crate::family::Family;
use crate::link::Pair;
use crate::netns::Netns;
use crate::tcp::Peer;
use crate::wait;

/// The first port of the peers that fill a queue.
const FILLING: u16 = 20_000;

/// Gives a listener this argument of `listen()`.
#[track_caller]
pub fn shorten(listener: &TcpListener, backlog: u16) {
    rustix::net::listen(listener, backlog.into()).unwrap_or_else(|error| panic!("listen: {error}"));
}

/// Connections that wait for `accept()`, and their limit, as `ss -l` shows them.
#[track_caller]
pub fn accept_queue(listener: &impl AsFd) -> (u64, u64) {
    // tcpi_unacked and tcpi_sacked, which mean this of a listener (struct tcp_info, include/uapi/linux/tcp.h).
    const UNACKED: usize = 6;
    let mut info = [0u32; UNACKED + 2];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointers are to live values, and `len` is the size of the first.
    let answer = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(answer, 0, "TCP_INFO: {}", io::Error::last_os_error());
    (info[UNACKED].into(), info[UNACKED + 1].into())
}

/// Fills the accept queue of the listener on `port` with connections of other peers: it holds one more than its
/// limit.
#[track_caller]
pub fn fill(pair: &Pair, listener: &TcpListener, port: u16) {
    let (_, limit) = accept_queue(listener);
    for serial in 0..=limit {
        let mut other = peer(pair, serial, port);
        other.open();
        other.send(other.header(), &[]);
        wait::until("the connection is in the queue", || match accept_queue(listener) {
            (length, _) if length == serial + 1 => Ok(()),
            (length, _) => Err(format!("{length} of {}", serial + 1)),
        });
    }
}

/// Sends SYNs of other peers to `port`, which answer nothing more, until the kernel drops one: `counter` tells.
/// Returns how many handshakes are half open then.
#[track_caller]
pub fn fill_half_open(pair: &Pair, port: u16, counter: &str) -> u64 {
    /// More than any scenario's queue holds.
    const ENOUGH: u64 = 200;
    let before = pair.b.mib(counter);
    for serial in 0..ENOUGH {
        let other = peer(pair, serial, port);
        other.send(other.syn_header(), &[]);
        let dropped = wait::until("the SYN is taken or dropped", || {
            match (half_open(&pair.b, port), pair.b.mib(counter) - before) {
                (taken, 0) if taken == serial + 1 => Ok(false),
                (taken, 1) if taken == serial => Ok(true),
                other => Err(format!("half open and dropped: {other:?}")),
            }
        });
        if dropped {
            return serial;
        }
    }
    panic!("{ENOUGH} half-open handshakes, and {counter} has not moved");
}

/// Another peer of the listener on `port`.
#[track_caller]
fn peer(pair: &Pair, serial: u64, port: u16) -> Peer {
    Peer::new(pair, FILLING + u16::try_from(serial).expect("a short queue"), port)
}

/// Handshakes with `port` of a namespace that wait for their last packet.
#[track_caller]
pub fn half_open(netns: &Netns, port: u16) -> u64 {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let tables = netns.enter(|| ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].map(read));
    // `0: 0100007F:0050 00000000:0000 03 …`: number, local and remote address, state.
    let local = format!(":{port:04X}");
    let half_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|address| address.ends_with(&local)) && words.nth(1) == Some("03")
    };
    tables.iter().flat_map(|table| table.lines()).filter(half_open).count() as u64
}

/// What netdrop must say of the queue that was full.
#[derive(Clone, Debug)]
pub struct Full {
    /// `accept` or `syn`.
    pub queue: &'static str,
    /// The listener's own address and port.
    pub address: String,
    /// What the queue held.
    pub length: u64,
    /// What it may hold.
    pub limit: u64,
    /// Argument of `listen()`, where that is known.
    pub backlog: Option<u64>,
    /// The knob that made the limit.
    pub binds: &'static str,
}

impl Full {
    /// The accept queue of a listener that limits it itself.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        let (length, limit) = accept_queue(listener);
        assert!(length > limit, "{length} of {limit} connections: the queue is not full");
        let address = listener.local_addr().unwrap_or_else(|error| panic!("the listener's address: {error}"));
        Self {
            queue: "accept",
            address: address.to_string(),
            length,
            limit,
            backlog: Some(limit),
            binds: "backlog",
        }
    }

    /// Requires this of the evidence of an event.
    #[track_caller]
    pub fn expect(&self, netns: &Netns, event: &Value) {
        let expected = json!({
            "queue": self.queue,
            "address": self.address,
            "length": self.length,
            "limit": self.limit,
            "backlog": self.backlog,
            "somaxconn": netns.read_sysctl("net/core/somaxconn"),
            "max_syn_backlog": netns.read_sysctl("net/ipv4/tcp_max_syn_backlog"),
            "binds": self.binds,
        });
        let mut listen = event["evidence"]["listen"].clone();
        let found = listen.as_object_mut().unwrap_or_else(|| panic!("no evidence.listen in {event}"));
        let owner = ["owner_state", "owner_wchan"].map(|key| found.remove(key));
        assert_eq!(listen, expected, "{event}");
        let process = &event["process"];
        assert_eq!(owner, [process.get("state").cloned(), process.get("wchan").cloned()], "{event}");
        assert!(process["pid"].is_u64() && process["state"].is_string(), "{event}");
    }
}

/// `0.0.0.0` or `::`.
pub fn any(family: Family) -> std::net::IpAddr {
    family.pick(std::net::Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into())
}
