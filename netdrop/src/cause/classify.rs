//! From a drop to its cause: the most specific rule that matches.

use netdrop_common::facts::Facts;

use super::catalogue::Catalogue;
use super::model::{Cause, Class, Confidence};
use super::rule::{Rule, bare_symbol, canonical_reason};

/// What the classifier may know of a drop: exactly what its counter key holds.
#[derive(Clone, Copy, Debug)]
pub struct Drop<'a> {
    /// Name of the reason, `subsystem:NAME` for those of a subsystem; `None` where the kernel has none.
    pub reason: Option<&'a str>,
    /// Kernel function that dropped; `None` where symbols cannot be read.
    pub symbol: Option<&'a str>,
    /// Kernel module of that function.
    pub module: Option<&'a str>,
    /// Gathered facts, see [`Catalogue::gather`].
    pub facts: Facts,
}

/// What a drop means.
#[derive(Clone, Debug)]
pub struct Verdict<'c> {
    /// The cause.
    pub cause: &'c Cause,
    /// The rule's class, or else the cause's.
    pub class: Class,
    /// How sure this is.
    pub confidence: Confidence,
    /// What it rests on: reason, place, facts used, the rule's note.
    pub why: String,
}

impl Catalogue {
    /// The cause of a drop. Never fails: a drop that no rule knows is `unknown`.
    #[must_use]
    pub fn classify(&self, drop: &Drop<'_>) -> Verdict<'_> {
        let reason = drop.reason.map(canonical_reason);
        let reason = reason.as_deref();
        let symbol = drop.symbol.map(bare_symbol);
        let matching = self.candidates(reason).find(|atom| {
            let here = match (&atom.location, symbol) {
                (None, _) => true,
                (Some(location), Some(symbol)) => location.matches(symbol),
                (Some(_), None) => false,
            };
            here && self.rule(atom).facts_match(drop.facts)
        });
        let Some(atom) = matching else {
            let cause = self.unknown();
            let why = format!("{}: no rule for this", place(reason, symbol, drop.module));
            return Verdict { cause, class: cause.class, confidence: Confidence::Inferred, why };
        };
        let (cause, rule) = (self.cause(atom), self.rule(atom));
        Verdict {
            cause,
            class: rule.class.unwrap_or(cause.class),
            confidence: rule.confidence,
            why: why(rule, drop, reason, symbol),
        }
    }
}

fn why(rule: &Rule, drop: &Drop<'_>, reason: Option<&str>, symbol: Option<&str>) -> String {
    let mut why = place(reason, symbol, drop.module);
    for test in &rule.facts {
        why.push_str(", ");
        why.push_str(&test.fact.phrase(&[test.fact.read(drop.facts)]));
    }
    if let Some(note) = &rule.why {
        why.push_str(": ");
        why.push_str(note);
    }
    why
}

/// "SOCKET_RCVBUFF at udp_queue_rcv_one_skb", with what is known of it.
fn place(reason: Option<&str>, symbol: Option<&str>, module: Option<&str>) -> String {
    let module = module.map(|module| format!(" [{module}]")).unwrap_or_default();
    match (reason, symbol) {
        (Some(reason), Some(symbol)) => format!("{reason} at {symbol}{module}"),
        (Some(reason), None) => reason.to_owned(),
        (None, Some(symbol)) => format!("dropped at {symbol}{module}"),
        (None, None) => "no reason given, function not known".to_owned(),
    }
}
