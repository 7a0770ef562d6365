//! The catalogue of causes as text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{prose::wrap, style::Page};
use crate::cause::{Cause, ReasonPattern, Rule, Scope, Step, unstated};

const INDENT: usize = 2;
const NAMESPACE_HINT: &str = "Commands marked [netns] or [device] belong inside the network namespace of the \
    drop: `nsenter -n -t PID COMMAND` or `ip netns exec NAME COMMAND`. Words in capitals are to be replaced.";

impl Page {
    fn command_style(self) -> Style {
        self.style(AnsiColor::Cyan.on_default())
    }

    fn section(self, out: &mut dyn Write, heading: &str) -> io::Result<()> {
        let bold = self.heading();
        writeln!(out, "\n{bold}{heading}{bold:#}")
    }

    fn section_text(self, out: &mut dyn Write, heading: &str, text: &str) -> io::Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        self.section(out, heading)?;
        self.paragraphs(out, INDENT, text)
    }

    fn section_items(self, out: &mut dyn Write, heading: &str, items: &[String]) -> io::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.section(out, heading)?;
        items.iter().try_for_each(|item| self.paragraphs(out, INDENT, &format!("- {item}")))
    }

    fn section_steps(self, out: &mut dyn Write, heading: &str, steps: &[Step]) -> io::Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        self.section(out, heading)?;
        for (index, step) in steps.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            self.paragraphs(out, INDENT, &format!("[{}] {}", step.scope.as_str(), step.text))?;
            let style = self.command_style();
            for command in step.run.lines() {
                // Never wrapped: a command must survive copy and paste.
                writeln!(out, "{:1$}{style}{command}{style:#}", "", INDENT + 4)?;
            }
        }
        Ok(())
    }

    /// A whole entry of the catalogue: first what someone in a hurry needs, the rules last.
    pub fn cause(self, out: &mut dyn Write, cause: &Cause) -> io::Result<()> {
        let (bold, class) = (self.heading(), self.class(cause.class));
        writeln!(out, "{bold}{}{bold:#}", cause.id)?;
        self.paragraphs(out, 0, &cause.title)?;
        writeln!(out, "layer {}, class {class}{}{class:#}", cause.layer, cause.class)?;
        self.section_text(out, "MEANING", &cause.meaning)?;
        self.section_steps(out, "CONFIRM BY HAND", &cause.confirm)?;
        self.section_steps(out, "FIX", &cause.fix)?;
        self.section_text(out, "WHAT THE FIX COSTS", &cause.cost)?;
        self.section_items(out, "COUNTERS THAT MOVE", &cause.counters)?;
        self.section_text(out, "HOW NETDROP RECOGNISES IT", &cause.recognised)?;
        if !cause.rules.is_empty() {
            self.section(out, "RULES")?;
            cause.rules.iter().try_for_each(|rule| self.rule(out, INDENT, cause, rule))?;
        }
        self.section_text(out, "EVIDENCE IN --json", &cause.evidence.join(", "))?;
        self.section_items(out, "READ ON", &cause.references)?;
        if runs_in_netns(cause) {
            writeln!(out)?;
            self.paragraphs(out, 0, NAMESPACE_HINT)?;
        }
        Ok(())
    }

    /// Causes in columns, under a heading for each layer.
    pub fn causes(self, out: &mut dyn Write, causes: &[&Cause]) -> io::Result<()> {
        let id_width = causes.iter().map(|cause| cause.id.len()).max().unwrap_or(0);
        let class_width = "harmful".len();
        let title_at = INDENT + id_width + 2 + class_width + 2;
        // Too narrow for a third column: titles go below.
        let columns = self.prose_width() >= title_at + 28;
        let mut layer = None;
        for cause in causes {
            if layer != Some(&cause.layer) {
                let bold = self.heading();
                let gap = if layer.is_some() { "\n" } else { "" };
                writeln!(out, "{gap}{bold}{}{bold:#}", cause.layer)?;
                layer = Some(&cause.layer);
            }
            let class = self.class(cause.class);
            write!(
                out,
                "{:INDENT$}{:id_width$}  {class}{:class_width$}{class:#}",
                "", cause.id, cause.class
            )?;
            let indent = if columns { title_at } else { INDENT + 2 };
            let lines = wrap(&cause.title, self.prose_width().saturating_sub(indent));
            for (number, line) in lines.iter().enumerate() {
                match (number, columns) {
                    (0, true) => writeln!(out, "  {line}")?,
                    (0, false) => writeln!(out, "\n{:indent$}{line}", "")?,
                    _ => writeln!(out, "{:indent$}{line}", "")?,
                }
            }
        }
        Ok(())
    }

    /// A cause in one line, to stand above some of its rules.
    pub fn cause_line(self, out: &mut dyn Write, cause: &Cause) -> io::Result<()> {
        let bold = self.heading();
        let text = format!("{} ({})", cause.id, cause.title);
        let lines = wrap(&text, self.prose_width().saturating_sub(INDENT));
        lines.iter().try_for_each(|line| writeln!(out, "{:INDENT$}{bold}{line}{bold:#}", ""))
    }

    /// One rule as an item: conditions, class and confidence, the note.
    pub fn rule(self, out: &mut dyn Write, indent: usize, cause: &Cause, rule: &Rule) -> io::Result<()> {
        let class = rule.class.unwrap_or(cause.class);
        let why = rule.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let text = format!("- {}: {class}, {}{why}", conditions(rule, str::to_owned), rule.confidence);
        self.paragraphs(out, indent, &text)
    }
}

/// Whether a command of this cause belongs inside the namespace of the drop.
pub(super) fn runs_in_netns(cause: &Cause) -> bool {
    let mut steps = cause.confirm.iter().chain(&cause.fix);
    steps.any(|step| !step.run.is_empty() && matches!(step.scope, Scope::Netns | Scope::Device))
}

/// What a rule asks for, in words; `name` writes reasons and functions.
pub(super) fn conditions(rule: &Rule, name: impl Fn(&str) -> String) -> String {
    let mut text = if rule.reasons == unstated() {
        "no reason given".to_owned()
    } else {
        any_of(rule.reasons.iter().map(|reason| match reason {
            ReasonPattern::Absent => "a kernel without reasons".to_owned(),
            ReasonPattern::Named(pattern) => name(&pattern.to_string()),
        }))
    };
    if !rule.locations.is_empty() {
        text.push_str(" at ");
        text.push_str(&any_of(rule.locations.iter().map(|location| name(&location.to_string()))));
    }
    for condition in rule.conditions() {
        text.push_str(", ");
        text.push_str(&condition);
    }
    text
}

/// "a", "a or b", "a, b or c".
fn any_of(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}
