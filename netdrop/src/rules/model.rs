//! A namespace's rules, as far as it takes to find the one that dropped a packet.

use std::collections::HashMap;

use super::condition::Condition;

/// Longest text of a rule that is kept, in bytes: rules may hold whole sets.
const TEXT_LENGTH: usize = 400;

/// The tool that shows and changes a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// `iptables-legacy`, `ip6tables-legacy`: tables of x_tables.
    IptablesLegacy,
    /// `iptables-nft`, which is `iptables` on most hosts: tables of nftables that it manages.
    IptablesNft,
    /// `nft`.
    Nft,
}

impl Tool {
    /// As JSON spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nft => "nft",
        }
    }

    /// Whether the rules are those of nftables in the kernel.
    #[must_use]
    pub const fn in_nftables(self) -> bool {
        !matches!(self, Self::IptablesLegacy)
    }
}

/// All chains of a namespace, or of one family of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: Vec<Chain>,
    names: HashMap<ChainKey, usize>,
    /// For each chain what in it leads to a drop; made by [`Self::link`].
    pub(super) steps: Vec<Vec<Step>>,
}

/// An outcome of a rule that drops, or that leads to a chain in which one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Place of the rule in its chain.
    pub(super) rule: usize,
    /// Place of the outcome in the rule.
    pub(super) outcome: usize,
    /// The chain it leads to; nothing where it is a verdict.
    pub(super) to: Option<usize>,
}

/// Table, then chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ChainKey {
    table: Table,
    name: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    pub(super) tool: Tool,
    /// `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub(super) family: String,
    pub(super) name: String,
}

/// A chain with its rules, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) table: Table,
    pub(super) name: String,
    /// Where the kernel begins with it; nothing for one that is only jumped to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// What makes a base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// `filter`, `nat` or `route`; nothing where the table says it.
    pub(super) kind: Option<String>,
    /// `prerouting`, `input` ….
    pub(super) hook: String,
    /// Of `ingress` and `egress`; none where it is not told.
    pub(super) devices: Vec<String>,
    /// What becomes of packets that no rule decides, where that is to drop them.
    pub(super) policy: Option<Rule>,
}

/// A rule, or a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// As its tool shows it, without figures.
    pub(super) text: String,
    /// What tells it from others of the same text.
    pub(super) handle: Option<u64>,
    /// Packets that came as far as its counter; nothing without one.
    pub(super) packets: Option<u64>,
    /// The same at the reading before, where the rule was there.
    pub(super) before: Option<u64>,
    /// What packets must be like.
    pub(super) conditions: Vec<Condition>,
    /// What may become of them.
    pub(super) outcomes: Vec<Outcome>,
}

/// One thing that a rule may do, and for which packets where that depends (verdict maps).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) when: Option<Condition>,
}

/// What is decided of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is dropped.
    Drop,
    /// It is dropped, and its sender told.
    Reject,
    /// A program decides.
    Queue,
    /// Another chain of the table decides.
    Jump(String),
    /// A named map of the table decides: replaced by its elements when all of the table is read.
    Map(String, Option<super::condition::Subject>),
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, when: None }
    }
}

impl Rule {
    /// A rule without conditions.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: shortened(text),
            handle: None,
            packets: None,
            before: None,
            conditions: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// What stands for the rule in output: its text, and the handle that `nft delete rule` takes.
    pub(super) fn shown(&self) -> String {
        match self.handle {
            Some(handle) => format!("{} # handle {handle}", self.text),
            None => self.text.clone(),
        }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= TEXT_LENGTH {
        return text.to_owned();
    }
    let end = (0..=TEXT_LENGTH).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

impl Ruleset {
    /// Adds a chain; of two with one name the first counts.
    pub(super) fn add(&mut self, chain: Chain) {
        let key = ChainKey { table: chain.table.clone(), name: chain.name.clone() };
        let index = self.chains.len();
        self.names.entry(key).or_insert(index);
        self.chains.push(chain);
    }

    /// Adds another part of the same namespace.
    pub(super) fn extend(&mut self, other: Self) {
        other.chains.into_iter().for_each(|chain| self.add(chain));
    }

    /// The chain of this name in a table.
    fn find(&self, table: &Table, name: &str) -> Option<usize> {
        let key = ChainKey { table: table.clone(), name: name.to_owned() };
        self.names.get(&key).copied()
    }

    /// Finds what leads to a drop: most of a large ruleset does not.
    pub(super) fn link(&mut self) {
        let mut all: Vec<Vec<Step>> = Vec::with_capacity(self.chains.len());
        let mut from = vec![Vec::new(); self.chains.len()];
        let mut leading = Vec::new();
        for (index, chain) in self.chains.iter().enumerate() {
            let mut steps = Vec::new();
            for (rule, known) in chain.rules.iter().enumerate() {
                for (outcome, of) in known.outcomes.iter().enumerate() {
                    let to = match &of.verdict {
                        Verdict::Jump(name) => {
                            let Some(to) = self.find(&chain.table, name) else { continue };
                            from[to].push(index);
                            Some(to)
                        }
                        Verdict::Map(..) => continue,
                        Verdict::Drop | Verdict::Reject | Verdict::Queue => None,
                    };
                    steps.push(Step { rule, outcome, to });
                }
            }
            if steps.iter().any(|step| step.to.is_none()) {
                leading.push(index);
            }
            all.push(steps);
        }
        let mut leads = vec![false; self.chains.len()];
        while let Some(index) = leading.pop() {
            if !std::mem::replace(&mut leads[index], true) {
                leading.extend(&from[index]);
            }
        }
        for steps in &mut all {
            steps.retain(|step| step.to.is_none_or(|to| leads[to]));
        }
        self.steps = all;
    }

    /// Notes in each rule what its counter said at an earlier reading. Rules are the same where handle and text are,
    /// or, without handles, place and text.
    pub(super) fn compare(&mut self, earlier: &Self) {
        for chain in &mut self.chains {
            let Some(old) = earlier.find(&chain.table, &chain.name) else { continue };
            let old = &earlier.chains[old];
            let by_handle: HashMap<u64, &Rule> =
                old.rules.iter().filter_map(|rule| Some((rule.handle?, rule))).collect();
            for (place, rule) in chain.rules.iter_mut().enumerate() {
                let known = match rule.handle {
                    Some(handle) => by_handle.get(&handle).copied(),
                    None => old.rules.get(place),
                };
                rule.before = known.filter(|known| known.text == rule.text).and_then(|known| known.packets);
            }
            let old_policy = old.base.as_ref().and_then(|base| base.policy.as_ref());
            if let Some(policy) = chain.base.as_mut().and_then(|base| base.policy.as_mut()) {
                policy.before = old_policy.and_then(|known| known.packets);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        let long = Rule::new(&"ä".repeat(1000));
        assert!(long.text.len() <= TEXT_LENGTH + '…'.len_utf8());
        assert!(long.text.ends_with('…'));
    }
}
