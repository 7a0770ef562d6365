//! The catalogue as text for a terminal: wrapped, aligned, coloured when asked.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::model::{Cause, Class, Scope, Step};
use super::rule::{ReasonPattern, Rule, unstated};

/// Lines longer than this are hard to read, however wide the terminal.
const WIDEST: usize = 100;
const INDENT: usize = 2;
const NAMESPACE_HINT: &str = "Commands marked [netns] or [device] belong inside the network namespace of the \
    drop: `nsenter -n -t PID COMMAND` or `ip netns exec NAME COMMAND`. Words in capitals are to be replaced.";

/// How to lay out text: the width of the terminal, and whether it may be coloured.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    width: usize,
    color: bool,
}

impl Page {
    /// A page for a terminal of this width.
    #[must_use]
    pub fn new(width: usize, color: bool) -> Self {
        Self { width: width.clamp(30, WIDEST), color }
    }

    /// Columns of the page.
    #[must_use]
    pub const fn width(self) -> usize {
        self.width
    }

    fn style(self, style: Style) -> Style {
        if self.color { style } else { Style::new() }
    }

    pub(crate) fn bold(self) -> Style {
        self.style(Style::new().bold())
    }

    pub(crate) fn class_style(self, class: Class) -> Style {
        self.style(match class {
            Class::Harmful => AnsiColor::Red.on_default().bold(),
            Class::Suspect => AnsiColor::Yellow.on_default(),
            Class::Benign => Style::new().dimmed(),
        })
    }

    fn command_style(self) -> Style {
        self.style(AnsiColor::Cyan.on_default())
    }

    /// Text wrapped to the page: paragraphs apart by an empty line, lines that start with "- " as items.
    pub fn paragraphs(self, out: &mut dyn Write, indent: usize, text: &str) -> io::Result<()> {
        for (index, block) in blocks(text).into_iter().enumerate() {
            if index > 0 && !block.item {
                writeln!(out)?;
            }
            let (first, rest) = if block.item { ("- ", "  ") } else { ("", "") };
            let lines = wrap(&block.text, self.width.saturating_sub(indent + first.len()));
            for (number, line) in lines.iter().enumerate() {
                let lead = if number == 0 { first } else { rest };
                writeln!(out, "{:indent$}{lead}{line}", "")?;
            }
        }
        Ok(())
    }

    fn section(self, out: &mut dyn Write, heading: &str) -> io::Result<()> {
        let bold = self.bold();
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
        let (bold, class) = (self.bold(), self.class_style(cause.class));
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
        let steps = || cause.confirm.iter().chain(&cause.fix);
        if steps().any(|step| !step.run.is_empty() && matches!(step.scope, Scope::Netns | Scope::Device)) {
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
        let columns = self.width >= title_at + 28;
        let mut layer = None;
        for cause in causes {
            if layer != Some(&cause.layer) {
                let bold = self.bold();
                let gap = if layer.is_some() { "\n" } else { "" };
                writeln!(out, "{gap}{bold}{}{bold:#}", cause.layer)?;
                layer = Some(&cause.layer);
            }
            let class = self.class_style(cause.class);
            write!(
                out,
                "{:INDENT$}{:id_width$}  {class}{:class_width$}{class:#}",
                "", cause.id, cause.class
            )?;
            let indent = if columns { title_at } else { INDENT + 2 };
            let lines = wrap(&cause.title, self.width.saturating_sub(indent));
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
        let bold = self.bold();
        let text = format!("{} ({})", cause.id, cause.title);
        let lines = wrap(&text, self.width.saturating_sub(INDENT));
        lines.iter().try_for_each(|line| writeln!(out, "{:INDENT$}{bold}{line}{bold:#}", ""))
    }

    /// One rule as an item: conditions, class and confidence, the note.
    pub fn rule(self, out: &mut dyn Write, indent: usize, cause: &Cause, rule: &Rule) -> io::Result<()> {
        let class = rule.class.unwrap_or(cause.class);
        let why = rule.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let text = format!("- {}: {class}, {}{why}", conditions(rule), rule.confidence);
        self.paragraphs(out, indent, &text)
    }
}

/// What a rule asks for, in words.
fn conditions(rule: &Rule) -> String {
    let mut text = if rule.reasons == unstated() {
        "no reason given".to_owned()
    } else {
        any_of(rule.reasons.iter().map(|reason| match reason {
            ReasonPattern::Absent => "a kernel without reasons".to_owned(),
            ReasonPattern::Named(pattern) => pattern.to_string(),
        }))
    };
    if !rule.locations.is_empty() {
        text.push_str(" at ");
        text.push_str(&any_of(rule.locations.iter().map(ToString::to_string)));
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

struct Block {
    text: String,
    item: bool,
}

/// Paragraphs and items of a text, each as one line.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim) {
        if let Some(item) = line.strip_prefix("- ") {
            blocks.push(Block { text: item.to_owned(), item: true });
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            block.text.push(' ');
            block.text.push_str(line);
        } else {
            blocks.push(Block { text: line.to_owned(), item: false });
            open = true;
        }
    }
    blocks
}

/// Lines of at most `width` characters, broken at spaces; a longer word keeps its line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_never_inside_a_word() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrap("a net.ipv4.neigh.default.gc_thresh3 b", 10),
            ["a", "net.ipv4.neigh.default.gc_thresh3", "b"]
        );
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn paragraphs_and_items() {
        let mut out = Vec::new();
        Page::new(30, false)
            .paragraphs(
                &mut out,
                2,
                "First\nparagraph.\n\nSecond one:\n- an item that is too long for it\n- b",
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  First paragraph.\n\n  Second one:\n  - an item that is too long\n    for it\n  - b\n"
        );
    }
}
