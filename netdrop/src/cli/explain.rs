//! `netdrop explain`: the catalogue of causes on the terminal.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use super::failure::did_you_mean;
use crate::{
    cause::{Catalogue, Cause, Class, Rule},
    output::{markdown, style::Page},
};

#[cfg(test)]
mod tests;

/// Explain a cause, a drop reason or a kernel function; without a name, list all causes.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A cause (`udp-receive-buffer-full`), a drop reason (`NO_SOCKET`) or a kernel function (`ip_error`)
    #[arg(value_name = "CAUSE|REASON|SYMBOL")]
    name: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Markdown instead of text, to be pasted into a runbook; without a name, the whole catalogue
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// A name that the catalogue does not have. A mistake in usage: exit code 2.
#[derive(Debug, Error)]
#[error("{}", self.message())]
pub(super) struct UnknownName {
    /// The name as it was given.
    pub name: String,
    /// Names that are close to it.
    pub suggestions: Vec<String>,
}

impl UnknownName {
    fn message(&self) -> String {
        let mut text =
            format!("`{}` is no cause, drop reason or kernel function that the catalogue knows", self.name);
        if self.suggestions.is_empty() {
            text.push_str(". `netdrop explain` lists all causes.");
        } else {
            text.push_str(&did_you_mean(&self.suggestions));
        }
        text
    }
}

/// Writes what `args` ask for. Fails with [`UnknownName`] for a misspelt name and passes write errors on.
///
/// # Errors
///
/// [`UnknownName`], an [`io::Error`] of `out`, or a malformed catalogue.
pub(super) fn run(args: &ExplainArgs, page: Page, out: &mut dyn Write) -> anyhow::Result<()> {
    explain(&Catalogue::builtin()?, args, page, out)
}

fn explain(catalogue: &Catalogue, args: &ExplainArgs, page: Page, out: &mut dyn Write) -> anyhow::Result<()> {
    let answer = answer(catalogue, args.name.as_deref())?;
    match args {
        ExplainArgs { json: true, .. } => answer.json(out)?,
        ExplainArgs { markdown: true, .. } => answer.markdown(out)?,
        _ => answer.text(page, out)?,
    }
    Ok(())
}

/// What a name turned out to be.
enum Answer<'c> {
    All(Vec<&'c Cause>),
    Cause(&'c Cause),
    /// A reason or a symbol, and the rules that mention it, by cause.
    Rules {
        kind: &'static str,
        name: String,
        main: &'c Cause,
        rules: Vec<(&'c Cause, &'c Rule)>,
        /// Names close to it, where all those rules are for names that begin alike: it may be misspelt.
        suggestions: Vec<&'c str>,
    },
}

fn answer<'c>(catalogue: &'c Catalogue, name: Option<&str>) -> Result<Answer<'c>, UnknownName> {
    let Some(given) = name.map(str::trim) else {
        return Ok(Answer::All(catalogue.causes().collect()));
    };
    if let Some(cause) = catalogue.get(&given.to_lowercase()) {
        return Ok(Answer::Cause(cause));
    }
    let reason = as_reason(catalogue, given);
    let rules = catalogue.rules_for_reason(&reason);
    if !rules.is_empty() {
        // Without a rule that needs nothing else, what is left is unknown.
        let alone = rules.iter().find(|(_, rule)| rule.locations.is_empty() && rule.conditions().is_empty());
        let main = alone.map_or_else(|| catalogue.unknown(), |(cause, _)| *cause);
        let suggestions = suggestions(catalogue, &reason, catalogue.names_reason(&reason));
        return Ok(Answer::Rules { kind: "reason", name: reason, main, rules, suggestions });
    }
    let symbol = as_symbol(given);
    let rules = catalogue.rules_for_symbol(symbol);
    // The most general rule; of several the gravest.
    let general = rules.iter().min_by_key(|(cause, rule)| {
        (rule.conditions().len(), rule.locations.len(), rule.class.unwrap_or(cause.class))
    });
    match general {
        Some((main, _)) => {
            let suggestions = suggestions(catalogue, symbol, catalogue.names_symbol(symbol));
            Ok(Answer::Rules { kind: "symbol", name: symbol.to_owned(), main, rules, suggestions })
        }
        None => Err(UnknownName {
            name: given.to_owned(),
            suggestions: catalogue.suggest_any(given).into_iter().map(str::to_owned).collect(),
        }),
    }
}

/// What a name may have been meant to be, unless some rule has exactly this name.
fn suggestions<'c>(catalogue: &'c Catalogue, name: &str, exact: bool) -> Vec<&'c str> {
    if exact { Vec::new() } else { catalogue.suggest_any(name) }
}

/// A reason in the catalogue's spelling, however the user spelt it.
fn as_reason(catalogue: &Catalogue, given: &str) -> String {
    if let Some((subsystem, name)) = given.split_once(':') {
        return format!("{}:{}", subsystem.to_lowercase(), name.to_uppercase());
    }
    let upper = given.to_uppercase();
    let bare = upper.strip_prefix("SKB_DROP_REASON_").unwrap_or(&upper);
    let of_subsystem = if catalogue.names_reason(bare) { None } else { catalogue.subsystem_reason(bare) };
    of_subsystem.unwrap_or(bare).to_owned()
}

/// A kernel function without what traces, stacks and C sources write behind it: `ip_error+0x1f/0x80`,
/// `nf_hook_slow [netfilter]`, `ip_error()`, `init_conntrack.isra.0`.
fn as_symbol(given: &str) -> &str {
    let end = given.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(given.len());
    &given[..end]
}

#[derive(Serialize)]
struct CausesJson<'c> {
    v: u8,
    kind: &'static str,
    causes: Vec<Listed<'c>>,
}

#[derive(Serialize)]
struct Listed<'c> {
    id: &'c str,
    title: &'c str,
    layer: &'c str,
    class: Class,
}

#[derive(Serialize)]
struct CauseJson<'c> {
    v: u8,
    kind: &'static str,
    cause: &'c Cause,
}

#[derive(Serialize)]
struct RulesJson<'c> {
    v: u8,
    kind: &'static str,
    name: &'c str,
    leads_to: Vec<Leads<'c>>,
    cause: &'c Cause,
    suggestions: &'c [&'c str],
}

#[derive(Serialize)]
struct Leads<'c> {
    cause: &'c str,
    rule: &'c Rule,
}

impl Answer<'_> {
    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let written = match self {
            Self::All(causes) => {
                let listed = causes.iter().map(|cause| Listed {
                    id: &cause.id,
                    title: &cause.title,
                    layer: &cause.layer,
                    class: cause.class,
                });
                let causes = listed.collect();
                serde_json::to_writer(&mut *out, &CausesJson { v: 1, kind: "causes", causes })
            }
            Self::Cause(cause) => serde_json::to_writer(&mut *out, &CauseJson { v: 1, kind: "cause", cause }),
            Self::Rules { kind, name, main, rules, suggestions } => {
                let leads_to = rules.iter().map(|(cause, rule)| Leads { cause: &cause.id, rule }).collect();
                let answer = RulesJson { v: 1, kind, name, leads_to, cause: main, suggestions };
                serde_json::to_writer(&mut *out, &answer)
            }
        };
        // As an io::Error, so that a closed pipe is recognised as one.
        written.map_err(io::Error::from)?;
        writeln!(out)
    }

    fn text(&self, page: Page, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::All(causes) => list(causes, page, out),
            Self::Cause(cause) => page.cause(out, cause),
            Self::Rules { main, rules, suggestions, .. } => {
                page.paragraphs(out, 0, &self.intro())?;
                leads(rules, page, out)?;
                if !suggestions.is_empty() {
                    writeln!(out)?;
                    page.paragraphs(out, 0, &close_names(suggestions))?;
                }
                writeln!(out)?;
                page.cause(out, main)
            }
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::All(causes) => markdown::catalogue(out, causes),
            Self::Cause(cause) => markdown::entry(out, cause),
            Self::Rules { name, main, rules, suggestions, .. } => {
                let mut intro = self.intro();
                if !suggestions.is_empty() {
                    intro = format!("{} {intro}", close_names(suggestions));
                }
                markdown::rules(out, name, &intro, rules)?;
                markdown::entry(out, main)
            }
        }
    }

    /// The sentence before the rules.
    fn intro(&self) -> String {
        match self {
            Self::Rules { kind: "reason", name, .. } => format!("The drop reason {name} leads to:"),
            Self::Rules { name, .. } => format!("Drops in the kernel function {name} lead to:"),
            Self::All(_) | Self::Cause(_) => String::new(),
        }
    }
}

fn close_names(suggestions: &[&str]) -> String {
    format!("No rule has exactly this name, only its beginning; close to it: {}.", suggestions.join(", "))
}

/// All causes, by layer, in columns.
fn list(causes: &[&Cause], page: Page, out: &mut dyn Write) -> io::Result<()> {
    page.causes(out, causes)?;
    writeln!(out)?;
    page.paragraphs(out, 0, "`netdrop explain NAME` shows a cause, drop reason or kernel function in full.")
}

/// Where a reason or symbol leads, by cause.
fn leads(rules: &[(&Cause, &Rule)], page: Page, out: &mut dyn Write) -> io::Result<()> {
    let mut last = "";
    for (cause, rule) in rules {
        if cause.id != last {
            page.cause_line(out, cause)?;
            last = &cause.id;
        }
        page.rule(out, 4, cause, rule)?;
    }
    Ok(())
}
