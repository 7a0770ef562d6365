//! What `nft -a list ruleset` prints (nft 0.9 to 1.1), also for rules that iptables-nft made.

mod matches;

use std::collections::{HashMap, HashSet};

use super::condition::{Condition, Subject};
use super::model::{Base, Chain, Outcome, Rule, Ruleset, Table, Tool, Verdict};
use super::words::{self, Word};
use matches::{conditions, subject_before};

/// What nft writes above a table that iptables-nft made, to standard output or error; not all versions do, and not where
/// nft has words of its own for everything in it.
const MANAGED: &str = "is managed by iptables-nft";

/// The tables that iptables-nft knows.
const TABLES_OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The text of a ruleset; `warnings` is what came by standard error.
pub(super) fn parse(text: &str, warnings: &str) -> Ruleset {
    let managed = managed(text).chain(managed(warnings)).collect();
    let mut reader = Reader { lines: text.lines(), managed };
    let mut ruleset = Ruleset::default();
    while let Some(line) = reader.lines.next() {
        let words = words::nft(line.split('#').next().unwrap_or_default());
        let keys: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        if let ["table", family, name, "{"] = keys[..] {
            reader.table(family, name, &mut ruleset);
        }
    }
    ruleset
}

/// Tables by the warning `table ip filter is managed by iptables-nft, do not touch!`.
fn managed(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let (before, _) = line.strip_prefix('#')?.split_once(MANAGED)?;
        let mut words = before.split_whitespace().skip_while(|word| *word != "table").skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    })
}

/// Whether iptables-nft takes a table for its own: by its name, and by base chains that are called like their hooks.
fn like_iptables(table: &Table, chains: &[(Chain, Vec<Written>)]) -> bool {
    let known = matches!(&*table.family, "ip" | "ip6") && TABLES_OF_IPTABLES.contains(&&*table.name);
    let mut bases =
        chains.iter().filter_map(|(chain, _)| Some((&chain.name, chain.base.as_ref()?))).peekable();
    known && bases.peek().is_some() && bases.all(|(name, base)| *name == base.hook.to_uppercase())
}

struct Reader<'a> {
    lines: std::str::Lines<'a>,
    managed: HashSet<(String, String)>,
}

/// What a table has besides chains.
#[derive(Default)]
struct Objects {
    counters: HashMap<String, u64>,
    /// Elements of verdict maps: key, verdict.
    maps: HashMap<String, Vec<(String, Verdict)>>,
}

/// A rule, with the name of its counter where that is an object of the table.
struct Written {
    rule: Rule,
    counter: Option<String>,
}

impl Reader<'_> {
    fn table(&mut self, family: &str, name: &str, ruleset: &mut Ruleset) {
        let managed = self.managed.contains(&(family.to_owned(), name.to_owned()));
        let table = Table { tool: Tool::Nft, family: family.to_owned(), name: name.to_owned() };
        let mut objects = Objects::default();
        let mut chains = Vec::new();
        let mut dormant = false;
        while let Some(line) = self.lines.next() {
            let words = words::nft(without_handle(line).0);
            let keys: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            match keys[..] {
                ["}", ..] => break,
                ["flags", ..] => dormant |= line.contains("dormant"),
                ["chain", name, "{", ..] => chains.push(self.chain(&table, name)),
                ["counter", name, "{", ..] => {
                    let counted = packets(&words::nft(&self.block()));
                    objects.counters.extend(counted.map(|packets| (name.to_owned(), packets)));
                }
                ["map", name, "{", ..] => {
                    objects.maps.insert(name.to_owned(), elements(&words::nft(&self.block())));
                }
                _ if words::open_braces(line) > 0 => drop(self.block()),
                _ => {}
            }
        }
        let managed = managed || like_iptables(&table, &chains);
        for (mut chain, written) in chains {
            chain.table.tool = if managed { Tool::IptablesNft } else { Tool::Nft };
            // Hooks of a dormant table are not there.
            chain.base = chain.base.filter(|_| !dormant);
            chain.rules = written.into_iter().map(|written| written.resolve(&objects)).collect();
            ruleset.add(chain);
        }
    }

    /// The rest of a block, as one line.
    fn block(&mut self) -> String {
        let mut text = String::new();
        let mut open = 1;
        for line in self.lines.by_ref() {
            open += words::open_braces(line);
            if open <= 0 {
                break;
            }
            text.push_str(line);
            text.push(' ');
        }
        text
    }

    fn chain(&mut self, table: &Table, name: &str) -> (Chain, Vec<Written>) {
        let mut chain = Chain { table: table.clone(), name: name.to_owned(), base: None, rules: Vec::new() };
        let mut rules = Vec::new();
        while let Some(line) = self.lines.next() {
            let mut line = line.trim().to_owned();
            if line.starts_with('}') {
                break;
            }
            // An anonymous chain or a long set goes over several lines.
            let mut open = words::open_braces(&line);
            while open > 0 {
                let Some(next) = self.lines.next() else { break };
                open += words::open_braces(next);
                line = format!("{} {}", without_handle(&line).0, next.trim());
            }
            if line.starts_with("type ") && line.contains(" hook ") {
                chain.base = Some(base(&words::nft(&line)));
            } else if !line.is_empty() && !line.starts_with("comment ") {
                rules.push(rule(&line));
            }
        }
        (chain, rules)
    }
}

/// A line, and the handle in the comment at its end.
fn without_handle(line: &str) -> (&str, Option<u64>) {
    let split = line.rsplit_once("# handle ");
    match split.and_then(|(before, handle)| Some((before, handle.trim().parse().ok()?))) {
        Some((before, handle)) => (before.trim_end(), Some(handle)),
        None => (line, None),
    }
}

/// `type filter hook ingress device "eth0" priority filter; policy drop;`
fn base(words: &[Word]) -> Base {
    let next =
        |key: &str| words.iter().skip_while(|word| word.text != key).nth(1).map(|word| word.text.clone());
    let listed =
        words.iter().skip_while(|word| word.text != "devices").skip_while(|word| word.text != "{").skip(1);
    let listed = listed.take_while(|word| word.text != "}").filter(|word| word.text != ",");
    let devices = match next("device") {
        Some(device) => vec![device],
        None => listed.map(|word| word.text.clone()).collect(),
    };
    let policy = (next("policy").as_deref() == Some("drop")).then(|| {
        let mut policy = Rule::new("policy drop");
        policy.outcomes.push(Verdict::Drop.into());
        policy
    });
    Base { kind: next("type"), hook: next("hook").unwrap_or_default(), devices, policy }
}

/// The count behind the first `packets`.
fn packets(words: &[Word]) -> Option<u64> {
    words.iter().skip_while(|word| word.key() != "packets").nth(1)?.text.parse().ok()
}

/// The elements of a map of verdicts; none of another map.
fn elements(words: &[Word]) -> Vec<(String, Verdict)> {
    let Some(start) = words.iter().position(|word| word.key() == "elements") else { return Vec::new() };
    pairs(&words[start..])
}

/// `key : verdict` pairs up to the brace that closes them.
fn pairs(words: &[Word]) -> Vec<(String, Verdict)> {
    let mut found = Vec::new();
    let mut key = String::new();
    let start = words.iter().position(|word| word.key() == "{").map_or(words.len(), |start| start + 1);
    let mut words = words[start..].iter();
    while let Some(word) = words.next() {
        match word.key() {
            "}" => break,
            "," => key.clear(),
            // What stands between key and colon is not part of the key: counters, comments, timeouts.
            ":" => {
                let verdict = match words.next().map(Word::key) {
                    Some("drop") => Some(Verdict::Drop),
                    Some("queue") => Some(Verdict::Queue),
                    Some("jump" | "goto") => words.next().map(|name| Verdict::Jump(name.text.clone())),
                    _ => None,
                };
                found.extend(verdict.map(|verdict| (std::mem::take(&mut key), verdict)));
            }
            _ if key.is_empty() => key.clone_from(&word.text),
            // A concatenation, which no single subject has.
            "." => key.push_str(" . "),
            _ => {}
        }
    }
    found
}

/// One rule.
fn rule(line: &str) -> Written {
    let (text, handle) = without_handle(line);
    let words = words::nft(text);
    let mut rule = Rule::new(&without_figures(text));
    rule.handle = handle;
    // Only a counter that packets pass before their verdict is one that a dropped packet moves.
    let verdict = words.iter().position(|word| decides(word.key())).unwrap_or(words.len());
    let mut counter = None;
    let mut depth = 0;
    for (place, word) in words[..verdict].iter().enumerate() {
        match (word.key(), words.get(place + 1).map(Word::key)) {
            ("{", _) => depth += 1,
            ("}", _) => depth -= 1,
            ("counter", Some("packets")) if depth == 0 => rule.packets = packets(&words[place..]),
            ("counter", Some("name")) if depth == 0 => {
                counter = words.get(place + 2).map(|word| word.text.clone());
            }
            _ => {}
        }
    }
    rule.conditions = conditions(&words[..verdict]);
    rule.outcomes = outcomes(&words);
    Written { rule, counter }
}

/// Words from which on a packet's fate may be decided.
fn decides(word: &str) -> bool {
    matches!(word, "drop" | "reject" | "queue" | "jump" | "goto" | "vmap" | "accept" | "return" | "continue")
}

fn outcomes(words: &[Word]) -> Vec<Outcome> {
    let mut found: Vec<Outcome> = Vec::new();
    let mut place = 0;
    while let Some(word) = words.get(place) {
        let next = words.get(place + 1);
        match (word.key(), next) {
            ("drop", _) => found.push(Verdict::Drop.into()),
            ("reject", _) => found.push(Verdict::Reject.into()),
            ("queue", _) => found.push(Verdict::Queue.into()),
            // The words of an anonymous chain speak for themselves.
            ("jump" | "goto", Some(name)) if name.key() != "{" => {
                found.push(Verdict::Jump(name.text.clone()).into());
                place += 1;
            }
            ("vmap", Some(map)) => {
                let subject = subject_before(&words[..place]);
                if map.key() == "{" {
                    let listed = pairs(&words[place + 1..]);
                    found.extend(listed.into_iter().map(|(key, verdict)| element(subject, &key, verdict)));
                    let end = words[place..].iter().position(|word| word.key() == "}");
                    place += end.unwrap_or(1);
                } else if let Some(name) = map.text.strip_prefix('@') {
                    found.push(Verdict::Map(name.to_owned(), subject).into());
                }
            }
            // A target of x_tables that nft does not know by a name of its own.
            ("target", Some(target)) if place > 0 && words[place - 1].key() == "xt" => {
                found.extend(super::legacy::target(&target.text).map(Outcome::from));
                place += 1;
            }
            _ => {}
        }
        place += 1;
    }
    found
}

/// An element of a verdict map.
fn element(subject: Option<Subject>, key: &str, verdict: Verdict) -> Outcome {
    Outcome { verdict, when: subject.and_then(|subject| Condition::of(subject, [key], false)) }
}

/// A rule without the figures of its counters: `counter packets 3 bytes 252 drop` is `counter drop`.
fn without_figures(text: &str) -> String {
    let mut parts = text.split("counter packets ");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut words = part.splitn(4, ' ');
        let figures = (words.next(), words.next(), words.next());
        let number = |word: Option<&str>| word.is_some_and(|word| word.parse::<u64>().is_ok());
        if number(figures.0) && figures.1 == Some("bytes") && number(figures.2) {
            shown.push_str("counter");
            shown.extend(words.next().map(|rest| format!(" {rest}")));
        } else {
            shown.push_str("counter packets ");
            shown.push_str(part);
        }
    }
    shown
}

impl Written {
    /// With the table's counters and maps in their places.
    fn resolve(self, objects: &Objects) -> Rule {
        let Self { mut rule, counter } = self;
        rule.packets = rule.packets.or_else(|| objects.counters.get(&counter?).copied());
        let mut outcomes = Vec::with_capacity(rule.outcomes.len());
        for outcome in std::mem::take(&mut rule.outcomes) {
            let Verdict::Map(name, subject) = &outcome.verdict else {
                outcomes.push(outcome);
                continue;
            };
            let listed = objects.maps.get(name).into_iter().flatten();
            outcomes.extend(listed.map(|(key, verdict)| element(*subject, key, verdict.clone())));
        }
        rule.outcomes = outcomes;
        rule
    }
}

#[cfg(test)]
mod tests;
