//! `netdrop explain`: the catalogue of causes on the terminal.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use crate::{
    cause::{Catalogue, Cause, Class, Rule},
    output::style::Page,
};

/// Explain a cause, a drop reason or a kernel function; without a name, list all causes.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A cause (`udp-receive-buffer-full`), a drop reason (`NO_SOCKET`) or a kernel function (`ip_error`)
    #[arg(value_name = "CAUSE|REASON|SYMBOL")]
    name: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
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
            format!("`{}` is no cause, drop reason or kernel function that the catalogue knows.", self.name);
        if self.suggestions.is_empty() {
            text.push_str(" `netdrop explain` lists all causes.");
        } else {
            let names: Vec<String> = self.suggestions.iter().map(|name| format!("`{name}`")).collect();
            text.push_str(&format!(" Did you mean {}?", names.join(" or ")));
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
    if args.json { answer.json(out) } else { answer.text(page, out) }.map_err(Into::into)
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
    },
}

fn answer<'c>(catalogue: &'c Catalogue, name: Option<&str>) -> Result<Answer<'c>, UnknownName> {
    let Some(given) = name.map(str::trim) else {
        return Ok(Answer::All(catalogue.causes().collect()));
    };
    if let Some(cause) = catalogue.get(&given.to_lowercase()) {
        return Ok(Answer::Cause(cause));
    }
    let reason = as_reason(given);
    let rules = catalogue.rules_for_reason(&reason);
    if !rules.is_empty() {
        // Without a rule that needs nothing else, what is left is unknown.
        let alone = rules.iter().find(|(_, rule)| rule.locations.is_empty() && rule.conditions().is_empty());
        let main = alone.map_or_else(|| catalogue.unknown(), |(cause, _)| *cause);
        return Ok(Answer::Rules { kind: "reason", name: reason, main, rules });
    }
    let rules = catalogue.rules_for_symbol(given);
    // The most general rule; of several the gravest.
    let general = rules.iter().min_by_key(|(cause, rule)| {
        (rule.conditions().len(), rule.locations.len(), rule.class.unwrap_or(cause.class))
    });
    match general {
        Some((main, _)) => Ok(Answer::Rules { kind: "symbol", name: given.to_owned(), main, rules }),
        None => Err(UnknownName {
            name: given.to_owned(),
            suggestions: catalogue.suggest_any(given).into_iter().map(str::to_owned).collect(),
        }),
    }
}

/// A reason in the catalogue's spelling, however the user spelt it.
fn as_reason(given: &str) -> String {
    if let Some((subsystem, name)) = given.split_once(':') {
        return format!("{}:{}", subsystem.to_lowercase(), name.to_uppercase());
    }
    let upper = given.to_uppercase();
    upper.strip_prefix("SKB_DROP_REASON_").unwrap_or(&upper).to_owned()
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
            Self::Rules { kind, name, main, rules } => {
                let leads_to = rules.iter().map(|(cause, rule)| Leads { cause: &cause.id, rule }).collect();
                serde_json::to_writer(&mut *out, &RulesJson { v: 1, kind, name, leads_to, cause: main })
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
            Self::Rules { kind, name, main, rules } => {
                leads(kind, name, rules, page, out)?;
                writeln!(out)?;
                page.cause(out, main)
            }
        }
    }
}

/// All causes, by layer, in columns.
fn list(causes: &[&Cause], page: Page, out: &mut dyn Write) -> io::Result<()> {
    page.causes(out, causes)?;
    writeln!(out)?;
    page.paragraphs(out, 0, "`netdrop explain NAME` shows a cause, drop reason or kernel function in full.")
}

/// Where a reason or symbol leads, by cause.
fn leads(
    kind: &str,
    name: &str,
    rules: &[(&Cause, &Rule)],
    page: Page,
    out: &mut dyn Write,
) -> io::Result<()> {
    let intro = match kind {
        "reason" => format!("The drop reason {name} leads to:"),
        _ => format!("Drops in the kernel function {name} lead to:"),
    };
    page.paragraphs(out, 0, &intro)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(name: Option<&str>, json: bool, page: Page) -> anyhow::Result<String> {
        let args = ExplainArgs { name: name.map(str::to_owned), json };
        let mut out = Vec::new();
        explain(&Catalogue::builtin()?, &args, page, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn text(name: Option<&str>, width: usize) -> String {
        explained(name, false, Page { columns: Some(width), colour: false }).unwrap()
    }

    #[test]
    fn the_list_has_every_cause_and_reads_at_80_and_60_columns() {
        for width in [60, 80] {
            let list = text(None, width);
            for id in Catalogue::builtin().unwrap().ids() {
                assert!(list.lines().any(|line| line.starts_with(&format!("  {id} "))), "{id} at {width}");
            }
            let widest = list.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{widest:?} columns of {width}");
        }
        let one_line_each = text(None, 80).lines().filter(|line| line.starts_with("     ")).count();
        assert_eq!(one_line_each, 0, "a title is wrapped at 80 columns");
    }

    #[test]
    fn text_keeps_to_the_width_except_for_commands() {
        let commands: Vec<String> = Catalogue::builtin()
            .unwrap()
            .causes()
            .flat_map(|cause| cause.confirm.iter().chain(&cause.fix))
            .flat_map(|step| step.run.lines().map(str::to_owned))
            .collect();
        for id in Catalogue::builtin().unwrap().ids() {
            for width in [60, 80] {
                for line in text(Some(id), width).lines() {
                    let fits = line.chars().count() <= width;
                    let alone = !line.trim_start().trim_start_matches("- ").contains(' ');
                    let command = commands.iter().any(|command| command == line.trim());
                    assert!(fits || alone || command, "{id} at {width}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_reason_is_found_however_it_is_spelt() {
        for spelling in ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET", "skb_drop_reason_no_socket"] {
            let text = text(Some(spelling), 80);
            assert!(text.starts_with("The drop reason NO_SOCKET leads to:\n  port-closed"), "{text}");
            assert!(text.contains("tcp-accept-queue-full"), "{text}");
            assert!(text.contains("\nport-closed\nNobody listens on this port\n"), "{text}");
        }
        assert!(text(Some("openvswitch:OVS_DROP_METER"), 80).contains("a meter's rate is exceeded"));
    }

    #[test]
    fn a_reason_that_says_nothing_alone_is_unknown() {
        assert!(text(Some("NOT_SPECIFIED"), 80).contains("\nunknown\nNo known cause\n"));
    }

    #[test]
    fn a_symbol_leads_to_its_rules() {
        for symbol in ["ip_error", "ip_error.isra.0"] {
            let text = text(Some(symbol), 80);
            assert!(text.contains("lead to:\n  no-route"), "{text}");
            assert!(text.contains("route error EINVAL"), "{text}");
        }
    }

    #[test]
    fn a_misspelt_name_is_an_error_with_suggestions() {
        let error =
            explained(Some("port-close"), false, Page { columns: Some(80), colour: false }).unwrap_err();
        let unknown = error.downcast_ref::<UnknownName>().unwrap();
        assert_eq!(unknown.suggestions.first().map(String::as_str), Some("port-closed"));
        assert!(error.to_string().contains("Did you mean `port-closed`"), "{error}");
        let error = explained(Some("xyzzy"), true, Page { columns: Some(80), colour: false }).unwrap_err();
        assert!(error.to_string().contains("lists all causes"), "{error}");
    }

    #[test]
    fn json_has_a_version_and_the_whole_entry() {
        let parsed = |name| -> serde_json::Value {
            serde_json::from_str(&explained(name, true, Page { columns: Some(80), colour: false }).unwrap())
                .unwrap()
        };
        let list = parsed(None);
        assert_eq!((&list["v"], &list["kind"]), (&1.into(), &"causes".into()));
        assert!(list["causes"].as_array().unwrap().len() > 50);
        let cause = parsed(Some("no-route"));
        assert_eq!((&cause["v"], &cause["kind"]), (&1.into(), &"cause".into()));
        assert_eq!(cause["cause"]["id"], "no-route");
        assert!(cause["cause"]["fix"][0]["run"].as_str().unwrap().contains("ip route"));
        let reason = parsed(Some("qdisc_drop"));
        assert_eq!((&reason["v"], &reason["kind"]), (&1.into(), &"reason".into()));
        assert_eq!(reason["name"], "QDISC_DROP");
        assert_eq!(reason["cause"]["id"], "qdisc-overlimit");
        let noop =
            reason["leads_to"].as_array().unwrap().iter().find(|lead| lead["cause"] == "interface-down");
        assert_eq!(noop.unwrap()["rule"]["facts"]["qdisc_kind"][0], "noop");
    }

    #[test]
    fn colour_only_when_asked() {
        assert!(!text(Some("port-closed"), 80).contains('\u{1b}'));
        let coloured =
            explained(Some("port-closed"), false, Page { columns: Some(80), colour: true }).unwrap();
        assert!(coloured.contains("\u{1b}["));
    }

    #[test]
    fn a_closed_pipe_stays_an_io_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [false, true] {
            let args = ExplainArgs { name: None, json };
            let error = run(&args, Page { columns: None, colour: false }, &mut Closed).unwrap_err();
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::BrokenPipe), "{error:?}");
        }
    }
}
