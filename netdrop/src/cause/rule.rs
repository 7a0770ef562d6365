//! Rules: what they match, and which of two matching rules wins.
//!
//! A rule is expanded into *atoms*, one for each pair of its reasons and locations. Specificity of an
//! atom is compared part by part, the first difference decides:
//!
//! 1. the reason: an exact name (also `absent` and `NOT_SPECIFIED`), then a prefix, longer first;
//! 2. the location: an exact symbol, then a prefix, longer first, then none;
//! 3. the number of facts asked for.
//!
//! A rule without a reason applies where the kernel gives none, and is short for both ways of giving
//! none: `absent` (kernels before 5.17) and `NOT_SPECIFIED`. A stated reason that no rule knows is
//! therefore `unknown`, wherever it comes from.

use netdrop_common::facts::{Facts, Gather};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::fact::Fact;
use super::model::{Class, Confidence};

/// Spelling of "this kernel has no reasons" in a rule.
pub(crate) const ABSENT: &str = "absent";

/// The reason of a call site that states none.
pub(crate) const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// What a rule asks of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// Any name that starts so; written with a trailing `*`.
    Prefix(String),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Self {
        text.strip_suffix('*')
            .map_or_else(|| Self::Exact(text.to_owned()), |start| Self::Prefix(start.to_owned()))
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(start) => name.starts_with(start.as_str()),
        }
    }

    #[cfg(test)]
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Exact(name), Self::Prefix(_)) => other.matches(name),
            (Self::Prefix(a), Self::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
        }
    }

    /// Exact names rank above every prefix, long prefixes above short ones.
    fn rank(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Prefix(start) => 1 + start.len(),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(start) => write!(f, "{start}*"),
        }
    }
}

/// What a rule asks of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonPattern {
    /// The kernel has no reasons at all (before 5.17); written `absent`.
    Absent,
    /// A name as [`canonical_reason`] spells it.
    Named(Pattern),
}

impl ReasonPattern {
    pub(crate) fn parse(text: &str) -> Self {
        if text == ABSENT { Self::Absent } else { Self::Named(Pattern::parse(text)) }
    }

    pub(crate) fn matches(&self, reason: Option<&str>) -> bool {
        match (self, reason) {
            (Self::Absent, None) => true,
            (Self::Named(pattern), Some(name)) => pattern.matches(name),
            (Self::Absent, Some(_)) | (Self::Named(_), None) => false,
        }
    }

    #[cfg(test)]
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a.overlaps(b),
            (Self::Absent, Self::Named(_)) | (Self::Named(_), Self::Absent) => false,
            (Self::Absent, Self::Absent) => true,
        }
    }

    fn rank(&self) -> usize {
        match self {
            Self::Absent => usize::MAX,
            Self::Named(pattern) => pattern.rank(),
        }
    }
}

impl std::fmt::Display for ReasonPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str(ABSENT),
            Self::Named(pattern) => pattern.fmt(f),
        }
    }
}

/// What a rule without a reason asks for: no reason given.
pub(crate) fn unstated() -> Vec<ReasonPattern> {
    [ABSENT, NOT_SPECIFIED].map(ReasonPattern::parse).to_vec()
}

/// A reason as rules spell it: without `SKB_DROP_REASON_`, and for subsystems `subsystem:NAME` without
/// the prefix that the subsystem's own enum repeats (`OVS_DROP_METER` is `openvswitch:METER`).
pub(crate) fn canonical_reason(reason: &str) -> std::borrow::Cow<'_, str> {
    let Some((subsystem, name)) = reason.split_once(':') else {
        return reason.strip_prefix("SKB_DROP_REASON_").unwrap_or(reason).into();
    };
    let bare = name.trim_start_matches('_');
    let bare = ["OVS_DROP_", "QDISC_DROP_", "RX_DROP_U_", "RX_DROP_M_", "RX_DROP_"]
        .iter()
        .find_map(|prefix| bare.strip_prefix(prefix))
        .unwrap_or(name);
    if bare.len() == name.len() { reason.into() } else { format!("{subsystem}:{bare}").into() }
}

/// A kernel symbol without the suffixes that compilers add (`init_conntrack.isra.0`).
pub(crate) fn bare_symbol(symbol: &str) -> &str {
    symbol.split_once('.').map_or(symbol, |(name, _)| name)
}

/// One condition of a rule: a fact and the values it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FactTest {
    pub(crate) fact: Fact,
    pub(crate) values: Vec<u8>,
}

/// What leads to a cause. All parts that are given must match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Any of these reasons. Never empty: a rule that names none holds [`unstated`].
    pub reasons: Vec<ReasonPattern>,
    /// Any of these kernel functions; none given means anywhere.
    pub locations: Vec<Pattern>,
    pub(crate) facts: Vec<FactTest>,
    /// Overrides the class of the cause.
    pub class: Option<Class>,
    /// How sure the rule is.
    pub confidence: Confidence,
    /// A note for the reader of the verdict.
    pub why: Option<String>,
}

impl Rule {
    /// Whether the facts are as the rule asks.
    pub(crate) fn facts_match(&self, facts: Facts) -> bool {
        self.facts.iter().all(|test| test.values.contains(&test.fact.read(facts)))
    }

    /// Groups of facts the rule asks for.
    pub(crate) fn gather(&self) -> Gather {
        self.facts.iter().fold(Gather::default(), |all, test| all.union(test.fact.group()))
    }

    /// The fact conditions in words.
    #[must_use]
    pub fn conditions(&self) -> Vec<String> {
        self.facts.iter().map(|test| test.fact.phrase(&test.values)).collect()
    }

    /// The rule as pairs of one reason and one location.
    pub(crate) fn atoms(&self) -> impl Iterator<Item = (&ReasonPattern, Option<&Pattern>)> {
        self.reasons.iter().flat_map(move |reason| {
            let anywhere = self.locations.is_empty().then_some((reason, None));
            anywhere.into_iter().chain(self.locations.iter().map(move |location| (reason, Some(location))))
        })
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        let locations: Option<Vec<String>> =
            (!self.locations.is_empty()).then(|| self.locations.iter().map(ToString::to_string).collect());
        let facts: serde_json::Map<String, serde_json::Value> = self
            .facts
            .iter()
            .map(|test| {
                let values = test.values.iter().map(|value| test.fact.spell(*value)).collect::<Vec<_>>();
                (test.fact.name().to_owned(), values.into())
            })
            .collect();
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("reason", &reasons)?;
        map.serialize_entry("location", &locations)?;
        map.serialize_entry("facts", &facts)?;
        map.serialize_entry("class", &self.class)?;
        map.serialize_entry("confidence", &self.confidence)?;
        map.serialize_entry("why", &self.why)?;
        map.end()
    }
}

/// Rank of an atom; the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Specificity {
    reason: usize,
    location: usize,
    facts: usize,
}

impl Specificity {
    pub(crate) fn of(reason: &ReasonPattern, location: Option<&Pattern>, rule: &Rule) -> Self {
        Self { reason: reason.rank(), location: location.map_or(0, Pattern::rank), facts: rule.facts.len() }
    }
}

/// Whether some drop could match both atoms.
#[cfg(test)]
pub(crate) fn overlap(
    a: (&ReasonPattern, Option<&Pattern>, &Rule),
    b: (&ReasonPattern, Option<&Pattern>, &Rule),
) -> bool {
    let locations = match (a.1, b.1) {
        (Some(one), Some(other)) => one.overlaps(other),
        _ => true,
    };
    let facts = a.2.facts.iter().all(|test| {
        b.2.facts
            .iter()
            .filter(|other| other.fact == test.fact)
            .all(|other| other.values.iter().any(|value| test.values.contains(value)))
    });
    a.0.overlaps(b.0) && locations && facts
}
