//! From the text of a catalogue file to causes, with errors that name file, cause and key.

use std::collections::BTreeMap;

use netdrop_common::refusal::Refused;
use serde::Deserialize;
use thiserror::Error;

use super::fact::{Fact, evidence_group};
use super::model::{Cause, Class, Confidence, Scope, Step};
use super::rule::{FactTest, NOT_SPECIFIED, Pattern, ReasonPattern, Rule, unstated};

/// A catalogue file that cannot be used. Since the files are part of the binary, a user should never see
/// this; someone who writes a cause will.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// Not TOML, or a key that is unknown, missing or of the wrong type.
    #[error("netdrop/causes/{file}, {cause}: {problem}")]
    Syntax {
        /// File name.
        file: String,
        /// The cause the error lies in, as far as it can be told.
        cause: String,
        /// The parser's message, with line and key.
        problem: Box<toml::de::Error>,
    },
    /// A value that means nothing.
    #[error("netdrop/causes/{file}, cause `{cause}`, key `{key}`: {problem}")]
    Value {
        /// File name.
        file: String,
        /// Id of the cause.
        cause: String,
        /// Path of the key.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    cause: Vec<RawCause>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCause {
    id: String,
    title: String,
    layer: String,
    class: Class,
    meaning: String,
    #[serde(default)]
    recognised: String,
    #[serde(default)]
    evidence: Vec<String>,
    #[serde(default)]
    counters: Vec<String>,
    #[serde(default)]
    confirm: Vec<RawStep>,
    fix: Vec<RawStep>,
    #[serde(default)]
    cost: String,
    #[serde(default)]
    references: Vec<String>,
    #[serde(default)]
    scenarios: Vec<String>,
    #[serde(default)]
    no_scenario: String,
    #[serde(default)]
    rule: Vec<RawRule>,
    #[serde(default)]
    refused: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    scope: Scope,
    #[serde(default)]
    text: String,
    #[serde(default)]
    run: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    reason: Option<Vec<String>>,
    location: Option<Vec<String>>,
    #[serde(default)]
    facts: BTreeMap<String, toml::Value>,
    class: Option<Class>,
    confidence: Option<Confidence>,
    why: Option<String>,
}

/// Where an error is, for its message.
struct Place<'a> {
    file: &'a str,
    cause: &'a str,
}

impl Place<'_> {
    fn error(&self, key: impl Into<String>, problem: impl Into<String>) -> CatalogueError {
        CatalogueError::Value {
            file: self.file.to_owned(),
            cause: self.cause.to_owned(),
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// The causes of one file, in its order.
pub(crate) fn causes(file: &str, text: &str) -> Result<Vec<Cause>, CatalogueError> {
    let raw: RawFile = toml::from_str(text).map_err(|problem| CatalogueError::Syntax {
        file: file.to_owned(),
        cause: cause_at(text, problem.span().map_or(0, |span| span.start)),
        problem: Box::new(problem),
    })?;
    raw.cause.into_iter().map(|raw| cause(file, raw)).collect()
}

/// The cause whose entry covers this byte of the file, in words.
fn cause_at(text: &str, offset: usize) -> String {
    let (before, after) = text.split_at(text.floor_char_boundary(offset));
    let id_of = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "id").then(|| value.trim().trim_matches('"').to_owned())
    };
    let last_entry = before.rfind("[[cause]]");
    let start = last_entry.map_or(before.len(), |at| at);
    before[start..]
        .lines()
        .chain(after.lines().take_while(|line| line.trim() != "[[cause]]"))
        .filter(|_| last_entry.is_some())
        .find_map(id_of)
        .map_or_else(|| "outside any cause with an id".to_owned(), |id| format!("cause `{id}`"))
}

fn cause(file: &str, raw: RawCause) -> Result<Cause, CatalogueError> {
    let place = Place { file, cause: &raw.id };
    let required = [("id", &raw.id), ("title", &raw.title), ("layer", &raw.layer), ("meaning", &raw.meaning)];
    if let Some((key, _)) = required.into_iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(place.error(key, "is empty: every cause needs it"));
    }
    if let Some(key) = raw.evidence.iter().find(|key| evidence_group(key).is_none()) {
        return Err(place.error("evidence", format!("no event has `{key}`")));
    }
    if let Some(name) = raw.refused.iter().find(|name| Refused::from_name(name).is_none()) {
        return Err(place.error("refused", format!("no call is refused for `{name}`")));
    }
    let rules = raw
        .rule
        .into_iter()
        .enumerate()
        .map(|(index, raw)| rule(&place, index, raw))
        .collect::<Result<_, _>>()?;
    Ok(Cause {
        fix: steps(&place, "fix", raw.fix)?,
        confirm: steps(&place, "confirm", raw.confirm)?,
        id: raw.id,
        title: raw.title,
        layer: raw.layer,
        class: raw.class,
        meaning: unwrapped(&raw.meaning),
        recognised: unwrapped(&raw.recognised),
        evidence: raw.evidence,
        counters: raw.counters,
        cost: unwrapped(&raw.cost),
        references: raw.references,
        rules,
        refused: raw.refused,
        scenarios: raw.scenarios,
        no_scenario: unwrapped(&raw.no_scenario),
    })
}

/// Text without the line breaks of the file: one line for each paragraph and each item.
fn unwrapped(text: &str) -> String {
    let mut whole = String::new();
    let mut paragraph = false;
    for line in text.trim().lines().map(str::trim) {
        let item = line.starts_with("- ");
        match (line.is_empty(), paragraph && !item) {
            (true, _) => whole.push_str(if paragraph { "\n\n" } else { "" }),
            (false, true) => whole.push(' '),
            (false, false) if item && paragraph => whole.push('\n'),
            (false, false) => {}
        }
        whole.push_str(line);
        paragraph = !line.is_empty();
    }
    whole
}

fn steps(place: &Place<'_>, key: &str, raw: Vec<RawStep>) -> Result<Vec<Step>, CatalogueError> {
    raw.into_iter()
        .enumerate()
        .map(|(index, RawStep { scope, text, run })| {
            if text.trim().is_empty() && run.trim().is_empty() {
                return Err(place.error(format!("{key}[{index}]"), "has neither `text` nor `run`"));
            }
            Ok(Step { scope, text, run: run.trim().to_owned() })
        })
        .collect()
}

fn rule(place: &Place<'_>, index: usize, raw: RawRule) -> Result<Rule, CatalogueError> {
    let key = |name: &str| format!("rule[{index}].{name}");
    if raw.reason.is_none() && raw.location.is_none() {
        return Err(place.error(key("reason"), "a rule needs a `reason`, a `location` or both"));
    }
    let reasons = match raw.reason {
        None => unstated(),
        Some(names) => names
            .iter()
            .map(|name| {
                reason_problem(name).map_or_else(
                    || Ok(ReasonPattern::parse(name)),
                    |problem| Err(place.error(key("reason"), format!("`{name}` {problem}"))),
                )
            })
            .collect::<Result<_, _>>()?,
    };
    let locations = raw
        .location
        .clone()
        .unwrap_or_default()
        .iter()
        .map(|name| {
            location_problem(name).map_or_else(
                || Ok(Pattern::parse(name)),
                |problem| Err(place.error(key("location"), format!("`{name}` {problem}"))),
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    if reasons.is_empty() || raw.location.is_some_and(|names| names.is_empty()) {
        return Err(place.error(key("reason"), "an empty list matches nothing: leave the key out"));
    }
    let stated = |reason: &ReasonPattern| match reason {
        ReasonPattern::Absent => false,
        ReasonPattern::Named(pattern) => !pattern.matches(NOT_SPECIFIED),
    };
    let default = if reasons.iter().all(stated) { Confidence::Observed } else { Confidence::Inferred };
    Ok(Rule {
        facts: facts(place, &key("facts"), raw.facts)?,
        reasons,
        locations,
        class: raw.class,
        confidence: raw.confidence.unwrap_or(default),
        why: raw.why,
    })
}

fn reason_problem(name: &str) -> Option<&'static str> {
    let bare = name.strip_suffix('*').unwrap_or(name);
    let (subsystem, reason) = bare.split_once(':').unwrap_or(("", bare));
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name == super::rule::ABSENT {
        None
    } else if bare.is_empty() {
        Some("matches every reason: leave the key out to match drops without one")
    } else if bare.starts_with("SKB_DROP_REASON_") {
        Some("is written without SKB_DROP_REASON_")
    } else if !reason.chars().all(upper) || !subsystem.chars().all(lower) {
        Some("is not `NAME`, `subsystem:NAME` or `absent` (a trailing * matches the rest)")
    } else {
        None
    }
}

fn location_problem(name: &str) -> Option<&'static str> {
    let bare = name.strip_suffix('*').unwrap_or(name);
    if bare.is_empty() {
        Some("matches everything: leave the key out")
    } else if bare.contains('.') {
        Some("has a compiler's suffix: write the symbol up to the first dot")
    } else if !bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Some("is not a kernel symbol (a trailing * matches the rest)")
    } else {
        None
    }
}

fn facts(
    place: &Place<'_>,
    key: &str,
    raw: BTreeMap<String, toml::Value>,
) -> Result<Vec<FactTest>, CatalogueError> {
    raw.into_iter()
        .map(|(name, value)| {
            let key = format!("{key}.{name}");
            let fact = Fact::from_name(&name).ok_or_else(|| {
                let known = Fact::ALL.iter().map(|fact| fact.name()).collect::<Vec<_>>().join(", ");
                place.error(&key, format!("no such fact; there are {known}"))
            })?;
            let listed = match value {
                toml::Value::Array(values) => values,
                single => vec![single],
            };
            let values = listed
                .iter()
                .map(|value| fact_value(fact, value).map_err(|problem| place.error(&key, problem)))
                .collect::<Result<Vec<_>, _>>()?;
            if values.is_empty() {
                return Err(place.error(&key, "an empty list matches nothing"));
            }
            Ok(FactTest { fact, values })
        })
        .collect()
}

fn fact_value(fact: Fact, value: &toml::Value) -> Result<u8, String> {
    let spelt = match value {
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::String(name) => name.clone(),
        other => {
            return Err(format!(
                "a value of type {} where a name, true or false was expected",
                other.type_str()
            ));
        }
    };
    let known = fact.values();
    known.iter().find(|(_, name)| *name == spelt).map(|(value, _)| *value).ok_or_else(|| {
        let names = known.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        format!("`{spelt}` is not a value of this fact; there are {names}")
    })
}
