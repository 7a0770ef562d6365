//! What is said of the rules that may have dropped a packet.

use serde::Serialize;

use super::candidates::Found;
use super::model::{Tool, Verdict};
use super::owner::owner;

/// Chains, and rules of each, that are listed; the rest is counted.
const LISTED: usize = 8;

/// A chain with rules that may have dropped the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The tool that shows and changes it.
    pub tool: Tool,
    /// Family of the table: `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub table_family: String,
    /// The table.
    pub table: String,
    /// The chain that holds the rules.
    pub chain: String,
    /// The chain of the hook, where that is another one.
    pub base_chain: Option<String>,
    /// The rules, as their tool shows them; of many the first.
    pub rules: Vec<String>,
    /// Who is known to make chains of this name.
    pub owner: Option<&'static str>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// At least one.
    pub candidates: Vec<Candidate>,
    /// How many rules there are, also those that are not listed.
    pub rules: usize,
    /// `drop` or `reject`, where all agree.
    pub verdict: Option<&'static str>,
}

impl Culprit {
    /// Sorts what was found by chain; nothing where nothing was found.
    pub(super) fn new(found: &[Found<'_>]) -> Option<Self> {
        let verdict = |found: &Found<'_>| match found.verdict {
            Verdict::Drop => Some("drop"),
            Verdict::Reject => Some("reject"),
            _ => None,
        };
        let first = found.first()?;
        let agreed = verdict(first).filter(|known| found.iter().all(|other| verdict(other) == Some(known)));
        let mut candidates: Vec<(&Found<'_>, Candidate)> = Vec::new();
        let mut rules: Vec<(usize, &super::model::Rule)> = Vec::new();
        for found in found {
            let known = candidates.iter().position(|(other, _)| {
                std::ptr::eq(other.chain, found.chain) && std::ptr::eq(other.base, found.base)
            });
            let place = known.unwrap_or_else(|| {
                candidates.push((found, candidate(found)));
                candidates.len() - 1
            });
            // A rule with several verdicts is still one.
            if rules.iter().any(|(chain, rule)| *chain == place && std::ptr::eq(*rule, found.rule)) {
                continue;
            }
            rules.push((place, found.rule));
            let listed = &mut candidates[place].1.rules;
            if listed.len() < LISTED {
                listed.push(found.rule.shown());
            }
        }
        let candidates = candidates.into_iter().take(LISTED).map(|(_, candidate)| candidate).collect();
        Some(Self { candidates, rules: rules.len(), verdict: agreed })
    }

    /// What all candidates agree on; nothing where they do not.
    #[must_use]
    pub fn agreed<'a, T: PartialEq>(&'a self, of: impl Fn(&'a Candidate) -> Option<T>) -> Option<T> {
        let first = of(self.candidates.first()?)?;
        self.candidates.iter().all(|candidate| of(candidate).as_ref() == Some(&first)).then_some(first)
    }
}

fn candidate(found: &Found<'_>) -> Candidate {
    let chain = found.chain;
    let other = !std::ptr::eq(found.base, chain);
    Candidate {
        tool: chain.table.tool,
        table_family: chain.table.family.clone(),
        table: chain.table.name.clone(),
        chain: chain.name.clone(),
        base_chain: other.then(|| found.base.name.clone()),
        rules: Vec::new(),
        owner: owner(&chain.table.name, &chain.name),
    }
}
