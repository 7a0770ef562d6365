//! The rules that may have dropped a packet: those that a base chain of its hook leads to, without those that
//! certainly did not.

use netdrop_common::event::{CHAIN_NAME_LEN, TABLE_NAME_LEN};

use super::model::{Base, Chain, Rule, Ruleset, Verdict};
use crate::packet::Packet;

/// Most chains that are followed for one packet: a ruleset can have more ways than anyone can walk.
const MOST_CHAINS: usize = 10_000;

/// Most rules that are found for one packet.
const MOST_FOUND: usize = 1000;

/// A netfilter hook, and what is known of a packet there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// `ip`, `ip6`, `arp`, `bridge`, `netdev`.
    pub family: &'a str,
    /// `input` ….
    pub hook: &'a str,
    /// The packet's device (`skb->dev`).
    pub device: Option<&'a str>,
    /// Whether a bridge runs the hook, where the device is not the one that rules see.
    pub bridged: bool,
}

impl Place<'_> {
    /// The device that rules see as the one the packet came in by: in these hooks it is that of the packet.
    pub(super) fn came_in_by(&self) -> Option<&str> {
        let known = match self.family {
            "ip" | "ip6" => matches!(self.hook, "prerouting" | "input" | "forward"),
            "netdev" => self.hook == "ingress",
            _ => false,
        };
        self.device.filter(|_| known && !self.bridged)
    }

    /// The device that rules see as the one the packet leaves by: ip_output() and ip6_output() set it before.
    pub(super) fn leaves_by(&self) -> Option<&str> {
        let known = match self.family {
            "ip" | "ip6" => self.hook == "postrouting",
            "netdev" => self.hook == "egress",
            _ => false,
        };
        self.device.filter(|_| known && !self.bridged)
    }
}

/// What freed the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropper {
    /// nftables, also rules by iptables-nft; with what the stack tells of the chain.
    Nftables {
        /// Family of its table.
        family: Option<&'static str>,
        /// Its type: `filter`, `nat`, `route`.
        kind: Option<&'static str>,
    },
    /// A function of the hook that leaves it to the hook to free packets: not nftables.
    OtherThanNftables,
    /// A function of the hook, on a kernel where nftables leaves it to the hook, too.
    Any,
    /// The queue to a program.
    Queue,
}

/// The base chain, where a hook in the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observed<'a> {
    /// Family of the table.
    pub family: Option<&'a str>,
    /// The table.
    pub table: &'a str,
    /// The base chain; nothing where it was not read.
    pub chain: Option<&'a str>,
}

impl Observed<'_> {
    fn is(&self, chain: &Chain) -> bool {
        self.family.is_none_or(|family| family == chain.table.family)
            && cut(self.table, &chain.table.name, TABLE_NAME_LEN)
            && self.chain.is_none_or(|name| cut(name, &chain.name, CHAIN_NAME_LEN))
    }
}

/// Whether a name that was seen is this one: of a long one the kernel side keeps `room` bytes, with the NUL at its end.
fn cut(seen: &str, name: &str, room: usize) -> bool {
    seen == name || seen.len() + 1 >= room && name.starts_with(seen)
}

/// What counters say: they count only when they were read after the drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counters {
    /// The reading began after the drop.
    pub(super) after: bool,
    /// The reading before it ended before the drop.
    pub(super) compared: bool,
}

/// What a rule is looked for with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) place: Place<'a>,
    pub(super) packet: &'a Packet,
    pub(super) dropper: Dropper,
    /// The sender was seen to be told.
    pub(super) rejected: bool,
    pub(super) observed: Option<Observed<'a>>,
    pub(super) counters: Counters,
}

/// A rule that may have dropped the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'r> {
    pub(super) base: &'r Chain,
    pub(super) chain: &'r Chain,
    pub(super) rule: &'r Rule,
    pub(super) verdict: &'r Verdict,
}

impl Search<'_> {
    /// All such rules, in the order in which packets come by.
    pub(super) fn find<'r>(&self, ruleset: &'r Ruleset) -> Vec<Found<'r>> {
        let mut found = Vec::new();
        for (index, chain) in ruleset.chains.iter().enumerate() {
            let Some(base) = chain.base.as_ref().filter(|base| self.begins_at(chain, base)) else { continue };
            self.follow(ruleset, index, &mut found);
            if let Some(policy) = &base.policy
                && self.may_match(policy)
            {
                let outcomes = policy.outcomes.iter();
                found.extend(outcomes.map(|of| Found {
                    base: chain,
                    chain,
                    rule: policy,
                    verdict: &of.verdict,
                }));
            }
        }
        found.retain(|found| match found.verdict {
            Verdict::Queue => self.dropper == Dropper::Queue,
            Verdict::Drop => self.dropper != Dropper::Queue && !self.rejected,
            _ => self.dropper != Dropper::Queue,
        });
        found
    }

    /// Whether the kernel comes by this base chain in the hook.
    fn begins_at(&self, chain: &Chain, base: &Base) -> bool {
        let (table, place) = (&chain.table, &self.place);
        let of_family = table.family == place.family
            || table.family == "inet" && matches!(place.family, "ip" | "ip6")
            // The hook of a device, in a table of family inet (since 5.10).
            || table.family == "inet" && place.family == "netdev" && base.hook == "ingress";
        let by_dropper = match self.dropper {
            Dropper::Nftables { family, kind } => {
                table.tool.in_nftables()
                    && family.is_none_or(|family| table.family == family)
                    && kind.is_none_or(|kind| base.kind.as_deref().is_none_or(|known| known == kind))
            }
            Dropper::OtherThanNftables => !table.tool.in_nftables(),
            Dropper::Any | Dropper::Queue => true,
        };
        let on_device = place.family != "netdev"
            || base.devices.is_empty()
            || place.device.is_none_or(|device| base.devices.iter().any(|known| names(known, device)));
        let seen = self.observed.is_none_or(|observed| observed.is(chain));
        base.hook == place.hook && of_family && by_dropper && on_device && seen
    }

    /// Follows the jumps of a base chain.
    fn follow<'r>(&self, ruleset: &'r Ruleset, base: usize, found: &mut Vec<Found<'r>>) {
        let mut known = vec![false; ruleset.chains.len()];
        let mut ahead = vec![base];
        let mut walked = 0;
        while let Some(index) = ahead.pop() {
            if std::mem::replace(&mut known[index], true) {
                continue;
            }
            walked += 1;
            if walked > MOST_CHAINS || found.len() > MOST_FOUND {
                return;
            }
            let chain = &ruleset.chains[index];
            let steps = ruleset.steps.get(index).map(Vec::as_slice).unwrap_or_default();
            let mut last = None;
            for step in steps {
                let rule = &chain.rules[step.rule];
                // The outcomes of a rule stand together.
                let (place, may) = last
                    .filter(|(place, _)| *place == step.rule)
                    .unwrap_or_else(|| (step.rule, self.may_match(rule)));
                last = Some((place, may));
                let outcome = &rule.outcomes[step.outcome];
                let met = outcome.when.as_ref().is_none_or(|when| when.may_meet(self.packet, &self.place));
                if !may || !met {
                    continue;
                }
                match step.to {
                    Some(to) => ahead.push(to),
                    None => found.push(Found {
                        base: &ruleset.chains[base],
                        chain,
                        rule,
                        verdict: &outcome.verdict,
                    }),
                }
            }
        }
    }

    /// Whether the rule may have matched the packet: no only when it certainly did not.
    fn may_match(&self, rule: &Rule) -> bool {
        let Counters { after, compared } = self.counters;
        let counted = match (rule.packets, rule.before) {
            (Some(0), _) if after => false,
            (Some(now), Some(before)) if after && compared => now != before,
            _ => true,
        };
        counted && rule.conditions.iter().all(|condition| condition.may_meet(self.packet, &self.place))
    }
}

/// A device by its name in a base chain, which may end in `*`.
fn names(known: &str, device: &str) -> bool {
    known.strip_suffix('*').map_or(known == device, |begin| device.starts_with(begin))
}

#[cfg(test)]
mod tests;
