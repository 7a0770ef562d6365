//! One refused call as sinks see it: no packet was made, so none was dropped.

use std::{collections::HashMap, rc::Rc};

use jiff::Timestamp;
use netdrop_common::{
    event::{TUPLE_ADDRESSES, TUPLE_PORTS, Tuple},
    refusal::{Call, RefusalEvent, RefusalKey, Refused},
};
use serde::Serialize;

use crate::{
    attribute::{Attribution, netns::NetnsId},
    cause::{Catalogue, Class},
    event::Direction,
    evidence::{Holder, PortTable, Ports, text},
    packet::{Family, Packet, Protocol, address},
    process::{Process, ProcessEvidence},
};

/// All that follows from a counter key.
#[derive(Clone, Debug)]
pub struct JudgedRefusal {
    /// Cause id.
    pub cause: String,
    /// Its title.
    pub title: String,
    /// Its class.
    pub class: Class,
    /// What it rests on.
    pub why: String,
    /// The call and what it answered.
    pub call: Refusing,
    /// Keys of the evidence that speaks for this cause.
    evidence: Vec<String>,
}

impl JudgedRefusal {
    /// Whether events of this cause carry this key of `evidence`.
    #[must_use]
    pub fn wants(&self, key: &str) -> bool {
        self.evidence.iter().any(|wanted| wanted == key)
    }
}

/// A call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refusing {
    /// `connect`; nothing where it is not known.
    pub name: Option<&'static str>,
    /// What it answered, `EADDRNOTAVAIL`; nothing where that depends on the call, and it is not known.
    pub errno: Option<&'static str>,
}

/// What speaks for the cause of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusalEvidence {
    /// The call.
    pub call: Refusing,
    /// The ports from which the kernel chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Who has the port that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
}

/// One refused call.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When, by the wall clock.
    pub time: Timestamp,
    /// Cause and call.
    pub judged: Rc<JudgedRefusal>,
    /// What the cause rests on, with what is known of the port's holder.
    pub why: String,
    /// What was asked for.
    pub packet: Packet,
    /// Out, for calls that were to send.
    pub direction: Option<Direction>,
    /// The socket's namespace; nothing when the kernel side could not tell.
    pub netns: Option<NetnsId>,
    /// Names of it.
    pub attribution: Attribution,
    /// Who called.
    pub process: Process,
    /// What speaks for the cause.
    pub evidence: RefusalEvidence,
}

impl Refusal {
    /// Puts a record and what is known of it together; `table` is the namespace's ports just after.
    #[must_use]
    pub fn new(
        record: &RefusalEvent,
        time: Timestamp,
        judged: Rc<JudgedRefusal>,
        attribution: Attribution,
        table: Option<&PortTable>,
    ) -> Self {
        let packet = asked(&record.tuple);
        let ports = table.filter(|_| judged.wants("ports")).and_then(|table| table.ports(&packet));
        let holder = table.filter(|_| judged.wants("holder")).and_then(|table| table.holder(&packet));
        let sends = !matches!(Call::from_code(record.key.call), Call::Bind | Call::Listen | Call::Unknown);
        Self {
            time,
            why: why(&judged, holder.as_ref()),
            packet,
            direction: sends.then_some(Direction::Out),
            netns: NetnsId::of_refusal(&record.key),
            attribution,
            process: Process::new(record.pid, text(&record.comm).unwrap_or_default(), ProcessEvidence::Call),
            evidence: RefusalEvidence { call: judged.call, ports, holder },
            judged,
        }
    }
}

fn why(judged: &JudgedRefusal, holder: Option<&Holder>) -> String {
    let by = match holder {
        None => return judged.why.clone(),
        Some(holder) if holder.listens() => "by another listener: two services want the same port".to_owned(),
        Some(Holder { ephemeral: Some(true), state, .. }) => {
            format!("by a socket in state {state}, whose port the kernel may have chosen")
        }
        Some(Holder { state, .. }) => format!("by a socket in state {state}"),
    };
    format!("{}, {by}", judged.why)
}

/// What was asked for, as a packet that was never made.
fn asked(tuple: &Tuple) -> Packet {
    let v6 = tuple.ethertype == 0x86dd;
    let ip = |bytes| Some(address(bytes, v6)).filter(|ip| !ip.is_unspecified());
    let port = |port| Some(port).filter(|port| *port != 0 && tuple.have & TUPLE_PORTS != 0);
    let known = tuple.have & TUPLE_ADDRESSES != 0;
    Packet {
        family: Family::from_ethertype(tuple.ethertype),
        proto: (tuple.proto != 0).then_some(Protocol::Ip(tuple.proto)),
        src: ip(&tuple.saddr).filter(|_| known),
        sport: port(tuple.sport),
        dst: ip(&tuple.daddr).filter(|_| known),
        dport: port(tuple.dport),
        ..Packet::default()
    }
}

/// What the call answered. Where the hook does not see that, it follows: TCP's `connect()` passes
/// `inet_hash_connect()`'s on, `inet_bind()` and `inet_csk_listen_start()` say EADDRINUSE, and a datagram socket that
/// `inet_autobind()` gives no port says EAGAIN (net/ipv4/af_inet.c).
fn errno(key: &RefusalKey) -> Option<&'static str> {
    match Call::from_code(key.call) {
        Call::Unknown => None,
        Call::Bind | Call::Listen => Some("EADDRINUSE"),
        Call::Connect if Protocol::Ip(key.protocol) == Protocol::TCP => Some("EADDRNOTAVAIL"),
        Call::Connect | Call::Sendto | Call::Sendmsg | Call::Sendmmsg => Some("EAGAIN"),
    }
}

/// Judges keys, and remembers.
pub struct RefusalJudge<'k> {
    catalogue: &'k Catalogue,
    known: HashMap<(u8, u8, u8), Rc<JudgedRefusal>>,
}

impl<'k> RefusalJudge<'k> {
    /// A judge by this catalogue.
    #[must_use]
    pub fn new(catalogue: &'k Catalogue) -> Self {
        Self { catalogue, known: HashMap::new() }
    }

    /// What follows from a key, whatever its namespace.
    pub fn judge(&mut self, key: &RefusalKey) -> Rc<JudgedRefusal> {
        let catalogue = self.catalogue;
        let judged = self.known.entry((key.what, key.call, key.protocol)).or_insert_with(|| {
            let what = Refused::from_code(key.what);
            let cause = catalogue.refused(what);
            let name = Some(Call::from_code(key.call)).filter(|call| *call != Call::Unknown).map(Call::name);
            let call = Refusing { name, errno: errno(key) };
            let found = match what {
                Refused::NoFreePort => "no port of the namespace's range was free",
                Refused::PortTaken => "the port is taken",
                Refused::Unknown => "which port was asked for is not known",
            };
            let spelt = name.map_or_else(|| "a call".to_owned(), |name| format!("{name}()"));
            let answered = call.errno.map(|errno| format!("{errno} from ")).unwrap_or_default();
            Rc::new(JudgedRefusal {
                cause: cause.id.clone(),
                title: cause.title.clone(),
                class: cause.class,
                why: format!("{answered}{spelt}: {found}"),
                call,
                evidence: cause.evidence.clone(),
            })
        });
        Rc::clone(judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(what: Refused, call: Call, protocol: u8) -> RefusalKey {
        RefusalKey { what: what as u8, call: call as u8, protocol, ..RefusalKey::default() }
    }

    #[test]
    fn a_cause_follows_from_the_key() {
        let catalogue = Catalogue::builtin().unwrap();
        let mut judge = RefusalJudge::new(&catalogue);
        let judged = judge.judge(&key(Refused::NoFreePort, Call::Connect, 6));
        assert_eq!(judged.cause, "source-port-exhausted");
        assert_eq!(judged.why, "EADDRNOTAVAIL from connect(): no port of the namespace's range was free");
        assert!(judged.wants("ports") && !judged.wants("holder"));
        let judged = judge.judge(&key(Refused::NoFreePort, Call::Sendto, 17));
        assert_eq!((judged.cause.as_str(), judged.call.errno), ("source-port-exhausted", Some("EAGAIN")));
        let judged = judge.judge(&key(Refused::NoFreePort, Call::Unknown, 17));
        assert_eq!((judged.call.name, judged.call.errno), (None, None));
        let judged = judge.judge(&key(Refused::PortTaken, Call::Listen, 6));
        assert_eq!((judged.cause.as_str(), judged.call.errno), ("listen-port-conflict", Some("EADDRINUSE")));
        let judged = judge.judge(&key(Refused::Unknown, Call::Bind, 6));
        assert_eq!(judged.cause, "unknown");
    }

    #[test]
    fn what_was_not_given_is_not_known() {
        let mut tuple = Tuple { ethertype: 0x0800, proto: 6, ..Tuple::default() };
        let packet = asked(&tuple);
        assert_eq!((packet.src, packet.dst, packet.dport), (None, None, None));
        tuple.have = TUPLE_ADDRESSES | TUPLE_PORTS;
        tuple.daddr[..4].copy_from_slice(&[10, 0, 0, 2]);
        tuple.dport = 80;
        let packet = asked(&tuple);
        assert_eq!((packet.src, packet.sport, packet.dport), (None, None, Some(80)));
        assert_eq!(packet.dst, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(packet.len, None);
    }
}
