//! Connection tracking of a namespace: switched on, counted, and described as events should.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::netns::Netns;

/// One line of names, then one line of hexadecimal cells for each CPU.
const STATISTICS: &str = "/proc/thread-self/net/stat/nf_conntrack";

impl Netns {
    /// Tracks all connections through this namespace: the kernel does so only where a rule asks for it.
    #[track_caller]
    pub fn track(&self) {
        self.nft(
            "table inet ndt-track {
                chain prerouting {
                    type filter hook prerouting priority 0; policy accept;
                    ct state new counter
                }
                chain output {
                    type filter hook output priority 0; policy accept;
                    ct state new counter
                }
            }",
        );
    }

    /// A counter of connection tracking (`drop`, `insert_failed`, `invalid`, `clashres` …), summed up over all CPUs.
    #[track_caller]
    pub fn conntrack(&self, name: &str) -> u64 {
        let text = self.enter(|| fs::read_to_string(STATISTICS));
        let text = text.unwrap_or_else(|error| panic!("read {STATISTICS} in {}: {error}", self.name()));
        sum(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Connections that this namespace tracks.
    #[track_caller]
    pub fn tracked(&self) -> u64 {
        self.read_sysctl("net/netfilter/nf_conntrack_count")
    }
}

/// The sum of one column.
fn sum(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let column = lines.next()?.split_whitespace().position(|known| known == name)?;
    lines.map(|cpu| u64::from_str_radix(cpu.split_whitespace().nth(column)?, 16).ok()).sum()
}

/// A tracked connection: where its first packet came from and went to before translation, and where answers come
/// from and go to.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Source and destination before translation.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of an answer before it is translated back.
    pub reply: (SocketAddr, SocketAddr),
    /// Its zone.
    pub zone: u16,
}

impl Connection {
    /// A connection that is not translated.
    pub fn plain(proto: &'static str, from: SocketAddr, to: SocketAddr) -> Self {
        Self { proto, original: (from, to), reply: (to, from), zone: 0 }
    }

    /// Requires that `evidence.conntrack` of an event is about this connection; `winner` is the one that was there
    /// first, where netdrop must know it.
    #[track_caller]
    pub fn expect(&self, event: &Value, winner: Option<&Self>) {
        let conntrack = &event["evidence"]["conntrack"];
        let translated = (self.reply.1 != self.original.0, self.reply.0 != self.original.1);
        let nat = match translated {
            (false, false) => Value::Null,
            (true, false) => json!("snat"),
            (false, true) => json!("dnat"),
            (true, true) => json!("snat+dnat"),
        };
        let tuples = self.tuples();
        for (field, expected) in [
            ("original", &tuples["original"]),
            ("reply", &tuples["reply"]),
            ("zone", &json!(self.zone)),
            ("nat", &nat),
            ("winner", &winner.map_or(Value::Null, Self::tuples)),
        ] {
            assert_eq!(&conntrack[field], expected, "evidence.conntrack.{field} in {event}");
        }
    }

    /// Both directions, as events spell them.
    fn tuples(&self) -> Value {
        let tuple = |(from, to): (SocketAddr, SocketAddr)| {
            json!({"src": from.ip(), "sport": from.port(), "dst": to.ip(), "dport": to.port(),
                "proto": self.proto})
        };
        json!({"original": tuple(self.original), "reply": tuple(self.reply)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_hexadecimal_and_summed_up() {
        let text = "entries  clashres found drop\n00000003  00000000 00000001 0000000a\n\
            00000003  00000000 00000000 00000010\n";
        assert_eq!(sum(text, "drop"), Some(26));
        assert_eq!(sum(text, "clashres"), Some(0));
        assert_eq!(sum(text, "early_drop"), None);
    }
}
