//! A verdict follows from the counter key: whatever a rule asks for must fit into it and be gathered.

use netdrop_common::facts::{Facts, Gather};
use proptest::prelude::*;

use super::{builtin, example_facts};
use crate::cause::rule::{NOT_SPECIFIED, ReasonPattern, canonical_reason};

#[test]
fn every_value_a_rule_asks_for_fits_the_counter_key() {
    for atom in builtin().atoms() {
        let rule = builtin().rule(atom);
        for (index, test) in rule.facts.iter().enumerate() {
            for value in &test.values {
                let mut only = rule.clone();
                only.facts[index].values = vec![*value];
                assert!(only.facts_match(example_facts(&only)), "{:?} {value}: {rule:?}", test.fact);
            }
        }
    }
}

#[test]
fn values_of_one_fact_differ_in_the_key() {
    for atom in builtin().atoms() {
        let rule = builtin().rule(atom);
        for (index, test) in rule.facts.iter().enumerate() {
            let mut only = rule.clone();
            for (value, _) in test.fact.values() {
                only.facts[index].values = vec![value];
                assert_eq!(test.fact.read(example_facts(&only)), value, "{:?} {value}", test.fact);
            }
        }
    }
}

#[test]
fn everything_means_everything() {
    // Reasons of subsystems, and those beyond the table of reasons, get this instead of what their rules ask for.
    for atom in builtin().atoms() {
        let rule = builtin().rule(atom);
        assert!(Gather::ALL.contains(rule.gather()), "{}: {rule:?}", builtin().cause(atom).id);
    }
}

#[test]
fn rules_spell_reasons_as_drops_do() {
    // A drop's reason is brought into this spelling before rules are asked: any other one would never match.
    for atom in builtin().atoms() {
        let ReasonPattern::Named(pattern) = &atom.reason else { continue };
        let spelt = pattern.to_string();
        assert_eq!(canonical_reason(&spelt), spelt, "{}", builtin().cause(atom).id);
        let too_wide = spelt.strip_suffix('*').is_some_and(|start| NOT_SPECIFIED.starts_with(start));
        assert!(
            !too_wide,
            "{}: `{spelt}` takes drops without a reason for drops with one",
            builtin().cause(atom).id
        );
    }
}

proptest! {
    /// `no_two_rules_tie` reasons about rules; this looks at drops.
    #[test]
    fn one_rule_wins(
        reason in prop::sample::select(builtin().atoms().iter().collect::<Vec<_>>()),
        location in prop::sample::select(builtin().atoms().iter().collect::<Vec<_>>()),
        facts in any::<u64>(),
        as_asked in any::<bool>(),
    ) {
        let name = reason.reason.to_string().trim_end_matches('*').to_owned();
        let name = (name != "absent").then_some(name);
        let symbol = location.location.as_ref().map(|location| location.to_string().replace('*', "x"));
        let facts = if as_asked { example_facts(builtin().rule(location)) } else { Facts(facts) };
        let mut matching = builtin().candidates(name.as_deref()).filter(|atom| {
            let here = atom.location.as_ref().is_none_or(|wanted| {
                symbol.as_deref().is_some_and(|symbol| wanted.matches(symbol))
            });
            here && builtin().rule(atom).facts_match(facts)
        });
        if let Some(first) = matching.next() {
            let rule = |atom| std::ptr::from_ref(builtin().rule(atom));
            prop_assert!(matching.all(|other| other.specificity < first.specificity || rule(other) == rule(first)));
        }
    }
}
