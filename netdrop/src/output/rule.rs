//! A netfilter drop in a few words: hook, table, chain and rule.

use super::table::fit;
use crate::{attribute::untrusted::printable, evidence::Netfilter};

/// Longest text of a rule, in characters: what is left out is in JSON.
const RULE_WIDTH: usize = 100;

/// `ip input, reject, by ruleset: filter INPUT, -A INPUT -j REJECT`; `ip input, filter INPUT, by ruleset: -A INPUT -j DROP`
/// where a hook saw the table.
pub(super) fn filtered(netfilter: &Netfilter) -> Vec<String> {
    let told = netfilter.verdict.filter(|verdict| *verdict == "reject");
    let mut parts = Vec::new();
    parts.extend(netfilter.family.zip(netfilter.hook).map(|(family, hook)| format!("{family} {hook}")));
    parts.extend(told.map(str::to_owned));
    let named = |chain: &str, owner: Option<&str>| {
        let owner = owner.map(|owner| format!(" ({owner})")).unwrap_or_default();
        format!("{}{owner}", printable(chain))
    };
    let placed = |table: &str, chain: &str, owner| format!("{} {}", printable(table), named(chain, owner));
    let Netfilter { table, chain, base_chain, owner, rules, candidates, rule_count, .. } = netfilter;
    let count = rule_count.unwrap_or_default();
    let observed = netfilter.by == Some("hook");
    if let (true, Some(table)) = (observed, table) {
        let base = base_chain.as_deref().or(chain.as_deref()).unwrap_or("?");
        parts.push(placed(table, base, owner.filter(|_| base_chain.is_none())));
    }
    match (rules, table, chain, candidates) {
        (Some(rules), Some(table), Some(chain), _) => {
            let rule = match &rules[..] {
                [rule] if count == 1 => fit(&printable(rule), RULE_WIDTH),
                _ => format!("one of {count} rules"),
            };
            parts.push(match (observed, base_chain) {
                (true, None) => format!("by ruleset: {rule}"),
                (true, Some(_)) => format!("by ruleset: {}, {rule}", named(chain, *owner)),
                (false, _) => format!("by ruleset: {}, {rule}", placed(table, chain, *owner)),
            });
        }
        (_, _, _, Some(candidates)) => {
            /// Chains that a line has room for.
            const NAMED: usize = 2;
            let mut chains: Vec<String> =
                candidates.iter().map(|chain| placed(&chain.table, &chain.chain, chain.owner)).collect();
            chains.dedup();
            if chains.len() > NAMED {
                chains.truncate(NAMED);
                chains.push("…".to_owned());
            }
            parts.push(format!("by ruleset: one of {count} rules in {}", chains.join(" or ")));
        }
        _ => {}
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(netfilter: &Netfilter) -> String {
        filtered(netfilter).join(", ")
    }

    fn forward() -> Netfilter {
        Netfilter { family: Some("ip"), hook: Some("forward"), ..Netfilter::default() }
    }

    #[test]
    fn a_rejecting_hook_says_so() {
        let with = |verdict| text(&Netfilter { verdict, ..forward() });
        assert_eq!(with(Some("reject")), "ip forward, reject");
        assert_eq!(with(Some("drop")), "ip forward");
        assert_eq!(with(None), "ip forward");
    }

    #[test]
    fn a_rule_with_its_owner() {
        let concluded = Netfilter {
            table: Some("filter".to_owned()),
            chain: Some("DOCKER-USER".to_owned()),
            base_chain: Some("FORWARD".to_owned()),
            owner: Some("Docker"),
            rules: Some(vec!["-A DOCKER-USER -j DROP".to_owned()]),
            rule_count: Some(1),
            by: Some("ruleset"),
            ..forward()
        };
        let rule = "-A DOCKER-USER -j DROP";
        let by_ruleset = format!("ip forward, by ruleset: filter DOCKER-USER (Docker), {rule}");
        assert_eq!(text(&concluded), by_ruleset);
        let seen = Netfilter { by: Some("hook"), ..concluded.clone() };
        let by_hook = format!("ip forward, filter FORWARD, by ruleset: DOCKER-USER (Docker), {rule}");
        assert_eq!(text(&seen), by_hook);
        let several = Netfilter { rule_count: Some(3), ..concluded };
        let one_of = "ip forward, by ruleset: filter DOCKER-USER (Docker), one of 3 rules";
        assert_eq!(text(&several), one_of);
    }

    #[test]
    fn a_table_that_a_hook_saw() {
        let seen = Netfilter {
            table: Some("raw".to_owned()),
            chain: Some("PREROUTING".to_owned()),
            by: Some("hook"),
            ..forward()
        };
        assert_eq!(text(&seen), "ip forward, raw PREROUTING");
    }
}
