//! What `iptables-legacy-save -c` and `ip6tables-legacy-save -c` print.

use super::condition::{Condition, Subject};
use super::model::{Base, Chain, Outcome, Rule, Ruleset, Table, Tool, Verdict};
use super::words::{self, Word};

/// The tables of a family, `ip` or `ip6`.
pub(super) fn parse(text: &str, family: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let mut chains: Vec<Chain> = Vec::new();
    let mut table: Option<Table> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let name = name.trim().to_owned();
            table = Some(Table { tool: Tool::IptablesLegacy, family: family.to_owned(), name });
        } else if line == "COMMIT" {
            finish(&mut chains, &mut ruleset);
            table = None;
        } else if let (Some(line), Some(table)) = (line.strip_prefix(':'), &table) {
            chains.extend(chain(line, table));
        } else if line.starts_with('[') && table.is_some() {
            rule(line, &mut chains);
        }
    }
    finish(&mut chains, &mut ruleset);
    ruleset
}

/// `INPUT DROP [3:252]`, or `FOO - [0:0]` for a chain without a hook.
fn chain(line: &str, table: &Table) -> Option<Chain> {
    let mut words = line.split_whitespace();
    let (name, policy) = (words.next()?, words.next()?);
    let base = (policy != "-").then(|| Base {
        kind: None,
        hook: name.to_lowercase(),
        devices: Vec::new(),
        policy: (policy == "DROP").then(|| {
            let mut rule = Rule::new(&format!("-P {name} DROP"));
            rule.packets = words.next().and_then(count);
            rule.outcomes.push(Verdict::Drop.into());
            rule
        }),
    });
    Some(Chain { table: table.clone(), name: name.to_owned(), base, rules: Vec::new() })
}

/// The packets of `[3:252]`.
fn count(figures: &str) -> Option<u64> {
    figures.strip_prefix('[')?.split_once(':')?.0.parse().ok()
}

/// `[3:252] -A INPUT -p udp -j DROP`.
fn rule(line: &str, chains: &mut [Chain]) {
    let Some((figures, text)) = line.split_once(' ') else { return };
    let words = words::xtables(text);
    let name = match &words[..] {
        [add, name, ..] if add.key() == "-A" => name.text.clone(),
        _ => return,
    };
    let mut rule = Rule::new(text);
    rule.packets = count(figures);
    understand(&words[2..], &mut rule);
    if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
        chain.rules.push(rule);
    }
}

/// Conditions and target of a rule.
fn understand(words: &[Word], rule: &mut Rule) {
    let mut negated = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let subject = match word.key() {
            "!" => {
                negated = true;
                continue;
            }
            "-p" => Some(Subject::Protocol),
            "-s" => Some(Subject::Source),
            "-d" => Some(Subject::Destination),
            "-i" => Some(Subject::In),
            "-o" => Some(Subject::Out),
            "--dport" | "--dports" => Some(Subject::DestinationPort),
            "--sport" | "--sports" => Some(Subject::SourcePort),
            "-j" | "-g" => {
                let target = words.next().map(|word| word.text.as_str()).unwrap_or_default();
                // Whether it is a chain shows when all of the table is read.
                let verdict = self::target(target).unwrap_or_else(|| Verdict::Jump(target.to_owned()));
                rule.outcomes.push(Outcome::from(verdict));
                return;
            }
            // Their values may look like options.
            "-m" | "--comment" | "--string" | "--hex-string" | "--u32" | "--bytecode" => {
                words.next();
                None
            }
            _ => None,
        };
        if let Some(subject) = subject {
            let value = words.next().map(|word| word.text.as_str()).unwrap_or_default();
            rule.conditions.extend(Condition::of(subject, value.split(','), negated));
        }
        negated = false;
    }
}

/// What a target of x_tables does with packets, if it takes them.
pub(super) fn target(name: &str) -> Option<Verdict> {
    match name {
        "DROP" => Some(Verdict::Drop),
        // Those of xtables-addons drop as well as answer.
        "REJECT" | "TARPIT" | "DELUDE" | "CHAOS" => Some(Verdict::Reject),
        "NFQUEUE" | "QUEUE" => Some(Verdict::Queue),
        _ => None,
    }
}

/// The chains of a table are complete.
fn finish(chains: &mut Vec<Chain>, ruleset: &mut Ruleset) {
    chains.drain(..).for_each(|chain| ruleset.add(chain));
}

#[cfg(test)]
mod tests;
