//! A listener on `b` and a hand-made peer that talks to it: where TCP scenarios play.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::family::{Family, at};
use crate::lab::{Lab, say_skip};
use crate::link::Pair;
use crate::outcome::{Dropped, Outcome};
use crate::reason;
use crate::tcp::Peer;
use crate::trace::{Trace, Tracing};
use crate::wait;

/// The peer's port.
pub const PEER_PORT: u16 = 5100;
/// The listener's port.
pub const PORT: u16 = 9100;

/// A lab with a listener and a peer.
pub struct Scene {
    /// The two hosts; the kernel of `b` is the one under test.
    pub pair: Pair,
    /// `b`'s listener, on [`PORT`].
    pub listener: TcpListener,
    /// The peer, without timestamps until a scenario asks for them.
    pub peer: Peer,
    /// Where it plays.
    pub lab: Lab,
}

/// Segments of the peer that `b` dropped.
pub struct Rejected<'a> {
    /// Cause id.
    pub cause: &'static str,
    /// Class and confidence of the verdict.
    pub verdict: (&'static str, &'static str),
    /// Their flags as tcpdump spells them.
    pub flags: &'static str,
    /// How many.
    pub count: u64,
    /// The kernel's own counter of them, which is 0 when the scenario begins.
    pub counter: &'a dyn Fn() -> u64,
}

impl Scene {
    /// An IPv4 scene, or `None`, after a visible `SKIP`, when this machine cannot play it.
    #[track_caller]
    pub fn ipv4(name: &str) -> Option<Self> {
        let lab = Lab::new(name, &[])?;
        Some(Self::on(lab.pair(), lab))
    }

    /// An IPv6 scene. Both hosts have said what they must: `--all` shows reports that nobody there waits for.
    #[track_caller]
    pub fn ipv6(name: &str) -> Option<Self> {
        let lab = Lab::new(name, &[])?;
        Some(Self::on(lab.pair_of(Family::Ipv6), lab))
    }

    /// A scene in a lab that has been made.
    #[track_caller]
    pub fn on(pair: Pair, lab: Lab) -> Self {
        let listener = pair.b.tcp_listener(&at(pair.b_end.ip, PORT));
        let peer = Peer::new(&pair, PEER_PORT, PORT);
        Self { pair, listener, peer, lab }
    }

    /// Another peer, which talks to another port of `b`, where nobody listens.
    #[track_caller]
    pub fn peer_of(&self, port: u16) -> Peer {
        Peer::new(&self.pair, PEER_PORT, port)
    }

    /// `b`'s address with a port.
    pub fn address(&self, port: u16) -> String {
        at(self.pair.b_end.ip, port)
    }

    /// A trace of `b`.
    #[track_caller]
    pub fn trace(&self) -> Tracing {
        Trace::of(&self.pair.b).start()
    }

    /// A trace of `b` that shows benign drops.
    #[track_caller]
    pub fn trace_all(&self) -> Tracing {
        Trace::of(&self.pair.b).args(&["--all"]).start()
    }

    /// A counter of `b`.
    #[track_caller]
    pub fn mib(&self, name: &str) -> u64 {
        self.pair.b.mib(name)
    }

    /// Whether this kernel has no such counter, nor what it counts; the scenario `name` is skipped then.
    #[track_caller]
    pub fn lacks(&self, counter: &str, name: &str) -> bool {
        let lacks = self.pair.b.try_mib(counter).is_none();
        if lacks {
            say_skip(name, &format!("this kernel has no {counter}"));
        }
        lacks
    }

    /// Ends the trace. It must have named these segments, and nothing else as a problem; returns the first event.
    #[track_caller]
    pub fn expect(&self, tracing: Tracing, rejected: &Rejected<'_>) -> (Outcome, Value) {
        self.expect_from(&self.peer, tracing, rejected)
    }

    /// The same for segments of another peer.
    #[track_caller]
    pub fn expect_from(&self, peer: &Peer, tracing: Tracing, rejected: &Rejected<'_>) -> (Outcome, Value) {
        let Rejected { cause, verdict: (class, confidence), flags, count, counter } = rejected;
        wait::until_counter("the kernel's counter", *count, counter);
        let outcome = tracing.stop();
        let packet = dropped_segment(peer, flags);
        let dropped = Dropped { cause, class, netns: &self.pair.b, count: *count, packet };
        let event = outcome.expect(&dropped).clone();
        if !reason::may_be_unnamed(&event) {
            assert_eq!(event["cause"]["confidence"], *confidence, "{event}");
        }
        assert_eq!(event["direction"], "in", "{event}");
        if *class == "benign" && !reason::lacks_some() {
            outcome.expect_benign();
        } else {
            outcome.expect_count("drops that are shown", outcome.number("shown"), *count);
        }
        (outcome, event)
    }
}

/// What netdrop must say of a segment of `peer`.
fn dropped_segment(peer: &Peer, flags: &str) -> Value {
    let (from, to) = peer.addresses();
    let family = if from.is_ipv4() { "ipv4" } else { "ipv6" };
    json!({"family": family, "proto": "tcp", "src": from.ip().to_string(), "sport": from.port(),
        "dst": to.ip().to_string(), "dport": to.port(), "tcp_flags": flags})
}
