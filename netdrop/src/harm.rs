//! What drops cost TCP, for `--harm`: consequences as sinks see them, and their sums.

use std::{collections::HashMap, rc::Rc, time::Duration};

use jiff::Timestamp;
use netdrop_common::{
    codes::tcp,
    event::DropEvent,
    harm::{Harm, HarmEvent},
};
use serde::Serialize;

use crate::{
    attribute::{Attribution, netns::NetnsId},
    clock::Clock,
    judge::Judged,
    packet::{Family, Packet, Protocol, TcpFlags, address},
};

/// A segment sent again or a reset, and the drop that it is laid to.
#[derive(Clone, Debug)]
pub struct Consequence {
    /// When, by the wall clock.
    pub time: Timestamp,
    /// What happened.
    pub what: Harm,
    /// Who sends what to whom.
    pub packet: Packet,
    /// Where it was sent, or taken; another namespace than that of the drop, as a rule.
    pub netns: Option<NetnsId>,
    /// Names of that place.
    pub attribution: Attribution,
    /// How long after the drop.
    pub after: Duration,
    /// When the drop was, as its own event says.
    pub drop_time: Timestamp,
    /// Why it was.
    pub judged: Rc<Judged>,
}

/// `TCP_SYN_SENT` (include/net/tcp_states.h).
const SYN_SENT: u8 = 2;

impl Consequence {
    /// Puts a record and what is known of it together.
    pub fn new(
        record: &HarmEvent,
        judged: Rc<Judged>,
        attribution: Attribution,
        clock: Clock,
        recent: &Recent,
    ) -> Option<Self> {
        let what = Harm::from_code(record.what)?;
        let v6 = record.family == libc::AF_INET6 as u16;
        let tcp_flags = match what {
            Harm::Retransmit => (record.state == SYN_SENT).then_some(TcpFlags(tcp::SYN)),
            Harm::SynackRetransmit => Some(TcpFlags(tcp::SYN | tcp::ACK)),
            // With or without an acknowledgment, that is not known.
            Harm::ResetSent | Harm::ResetReceived => None,
        };
        let packet = Packet {
            family: Some(if v6 { Family::Ipv6 } else { Family::Ipv4 }),
            proto: Some(Protocol::TCP),
            src: Some(address(&record.saddr, v6)),
            sport: Some(record.sport),
            dst: Some(address(&record.daddr, v6)),
            dport: Some(record.dport),
            segments: 1,
            tcp_flags,
            ..Packet::default()
        };
        Some(Self {
            time: clock.wall(record.time_ns),
            what,
            packet,
            netns: netns(record),
            attribution,
            after: Duration::from_nanos(record.time_ns.saturating_sub(record.drop_time_ns)),
            drop_time: recent
                .0
                .get(&record.drop_time_ns)
                .copied()
                .unwrap_or_else(|| clock.wall(record.drop_time_ns)),
            judged,
        })
    }

    /// As JSON spells what happened.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.what {
            Harm::Retransmit => "retransmit",
            Harm::SynackRetransmit => "synack-retransmit",
            Harm::ResetSent => "reset-sent",
            Harm::ResetReceived => "reset-received",
        }
    }

    /// What happened, for people.
    #[must_use]
    pub const fn told(&self) -> &'static str {
        match self.what {
            Harm::Retransmit if self.packet.tcp_flags.is_some() => "SYN sent again",
            Harm::Retransmit => "segment sent again",
            Harm::SynackRetransmit => "SYN-ACK sent again",
            Harm::ResetSent => "reset sent",
            Harm::ResetReceived => "reset received",
        }
    }
}

/// Where a consequence was seen.
#[must_use]
pub fn netns(record: &HarmEvent) -> Option<NetnsId> {
    let HarmEvent { netns_inode: inode, netns_cookie: cookie, .. } = *record;
    (inode != 0).then_some(NetnsId { inode, cookie })
}

/// Wall-clock times of drops that may have consequences, as their events said them: both must name the same moment, and
/// the wall clock moves.
#[derive(Debug, Default)]
pub struct Recent(HashMap<u64, Timestamp>);

impl Recent {
    /// Times that are kept.
    const KEPT: usize = 1 << 15;

    /// Keeps what the event of a drop said.
    pub fn keep(&mut self, drop: &DropEvent, time: Timestamp) {
        if self.0.len() >= Self::KEPT {
            self.0.clear();
        }
        self.0.insert(drop.time_ns, time);
    }
}

/// Sums of a run, of the whole machine: filters choose drops, and with them what is joined, not what TCP does. What
/// was not observed is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HarmTotals {
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Answers to SYNs sent again.
    pub synack_retransmits: Option<u64>,
    /// Resets sent.
    pub resets_sent: Option<u64>,
    /// Resets taken.
    pub resets_received: Option<u64>,
    /// Of all these, those that followed a drop of the same connection within the window.
    pub joined: u64,
    /// Of segments sent again alone.
    pub joined_retransmits: Option<u64>,
    /// Of answers to SYNs.
    pub joined_synack_retransmits: Option<u64>,
    /// Of resets sent.
    pub joined_resets_sent: Option<u64>,
    /// Of resets taken.
    pub joined_resets_received: Option<u64>,
    /// Of the joined ones, those of which no line could tell: the buffer was full.
    pub lost: u64,
}

impl HarmTotals {
    /// From the counters by number of [`Harm`], seen and joined; nothing for what is not `observed`.
    #[must_use]
    pub fn new(counts: [(u64, u64); 4], observed: [bool; 4], lost: u64) -> Self {
        let seen = |what: Harm| observed[what as usize].then_some(counts[what as usize].0);
        let joined = |what: Harm| observed[what as usize].then_some(counts[what as usize].1);
        Self {
            retransmits: seen(Harm::Retransmit),
            synack_retransmits: seen(Harm::SynackRetransmit),
            resets_sent: seen(Harm::ResetSent),
            resets_received: seen(Harm::ResetReceived),
            joined: counts.iter().map(|(_, joined)| joined).sum(),
            joined_retransmits: joined(Harm::Retransmit),
            joined_synack_retransmits: joined(Harm::SynackRetransmit),
            joined_resets_sent: joined(Harm::ResetSent),
            joined_resets_received: joined(Harm::ResetReceived),
            lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_observed_is_not_zero() {
        let counts = [(5, 2), (0, 0), (3, 3), (0, 0)];
        let totals = HarmTotals::new(counts, [true, true, true, false], 1);
        assert_eq!((totals.retransmits, totals.joined_retransmits), (Some(5), Some(2)));
        assert_eq!((totals.resets_received, totals.joined_resets_received), (None, None));
        assert_eq!((totals.synack_retransmits, totals.joined, totals.lost), (Some(0), 5, 1));
    }
}
