//! The catalogue of causes as Markdown: `docs/causes.md`, and entries to be pasted into runbooks.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{
    catalogue::{conditions, runs_in_netns},
    prose::blocks,
};
use crate::cause::{Cause, ReasonPattern, Rule, Step};

const INTRODUCTION: &str = "\
# Causes

<!-- Generated from netdrop/causes/*.toml by `cargo xtask docs`: change those, not this file. -->

What each cause means that netdrop names, how to confirm it by hand, what to change, and how netdrop recognises it.
`netdrop explain NAME` shows the same on a terminal, also for a drop reason or a kernel function, and
`netdrop explain NAME --markdown` gives an entry for a runbook. [How to correct or add one](../netdrop/causes/README.md).

| word | means |
|---|---|
| harmful, suspect, benign | a packet that someone wanted is gone; may be; normal housekeeping, hidden without `--all` |
| observed, inferred | the kernel said so, or only this can happen there; the likeliest of several that look the same |
| *netns* | takes effect inside the network namespace of the drop, and must be run there |
| *device* | concerns one network device, and must be run in its namespace |
| *global* | takes effect on the whole host: one value for all namespaces |
| *application* | concerns the program that owns the socket |
| *remote* | concerns another machine, or the network between |
| CAPITALS in commands | to be replaced |

To run a command inside a namespace: `nsenter -n -t PID COMMAND`, with a process of the container, or
`ip netns exec NAME COMMAND`.
";

const NAMESPACE_HINT: &str = "Commands marked *netns* or *device* belong inside the network namespace of the drop: \
    `nsenter -n -t PID COMMAND` or `ip netns exec NAME COMMAND`. Words in capitals are to be replaced.";

/// All causes: contents by layer, entries, and an index of drop reasons.
///
/// # Errors
///
/// When writing fails.
pub fn catalogue(out: &mut dyn Write, causes: &[&Cause]) -> io::Result<()> {
    writeln!(out, "{INTRODUCTION}\n## Contents")?;
    for layer in layers(causes) {
        let name = &layer[0].layer;
        writeln!(out, "\n**[{name}](#{})**\n\n| cause | class | |\n|---|---|---|", anchor(name))?;
        for cause in layer {
            writeln!(out, "| {} | {} | {} |", link(&cause.id), cause.class, escaped(&cause.title))?;
        }
    }
    writeln!(out, "\nAt the end: [drop reasons](#drop-reasons) and the causes they lead to.")?;
    for layer in layers(causes) {
        writeln!(out, "\n## {}", layer[0].layer)?;
        for cause in layer {
            writeln!(out, "\n### {}", cause.id)?;
            body(out, cause)?;
        }
    }
    reasons(out, causes)
}

/// One cause by itself.
///
/// # Errors
///
/// When writing fails.
pub fn entry(out: &mut dyn Write, cause: &Cause) -> io::Result<()> {
    writeln!(out, "## {}", cause.id)?;
    body(out, cause)?;
    if runs_in_netns(cause) {
        writeln!(out, "\n{NAMESPACE_HINT}")?;
    }
    Ok(())
}

/// Where a drop reason or a kernel function leads.
///
/// # Errors
///
/// When writing fails.
pub fn rules(out: &mut dyn Write, name: &str, intro: &str, rules: &[(&Cause, &Rule)]) -> io::Result<()> {
    writeln!(out, "# {}\n\n{}\n", escaped(name), inline(intro))?;
    for (cause, rule) in rules {
        writeln!(out, "- **{}**: {}", cause.id, sentence(cause, rule))?;
    }
    writeln!(out)
}

/// What stands below the heading of an entry: first what someone in a hurry needs, the rules last.
fn body(out: &mut dyn Write, cause: &Cause) -> io::Result<()> {
    writeln!(out, "\n**{}** (layer {}, class {})\n", escaped(&cause.title), cause.layer, cause.class)?;
    text(out, &cause.meaning)?;
    steps(out, "Confirm by hand", &cause.confirm)?;
    steps(out, "Fix", &cause.fix)?;
    section(out, "What the fix costs", &cause.cost)?;
    items(out, "Counters that move", &cause.counters)?;
    section(out, "How netdrop recognises it", &cause.recognised)?;
    let keys: Vec<String> = cause.evidence.iter().map(|key| format!("`{key}`")).collect();
    if !keys.is_empty() {
        writeln!(out, "\n**Evidence in `--json`**: {}", keys.join(", "))?;
    }
    items(out, "Read on", &cause.references)?;
    if !cause.rules.is_empty() {
        // Folded: few want to know.
        writeln!(out, "\n<details><summary>Rules</summary>\n")?;
        for rule in &cause.rules {
            writeln!(out, "- {}", sentence(cause, rule))?;
        }
        writeln!(out, "\n</details>")?;
    }
    Ok(())
}

fn section(out: &mut dyn Write, heading: &str, paragraphs: &str) -> io::Result<()> {
    if paragraphs.trim().is_empty() {
        return Ok(());
    }
    writeln!(out, "\n**{heading}**\n")?;
    text(out, paragraphs)
}

fn items(out: &mut dyn Write, heading: &str, items: &[String]) -> io::Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n**{heading}**\n")?;
    items.iter().try_for_each(|item| writeln!(out, "- {}", inline(item)))
}

fn steps(out: &mut dyn Write, heading: &str, steps: &[Step]) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n**{heading}**\n")?;
    for step in steps {
        let gap = if step.text.is_empty() { "" } else { " " };
        writeln!(out, "- *{}*:{gap}{}", step.scope.as_str(), inline(&step.text))?;
        if !step.run.is_empty() {
            // Within the item, and ready to be copied.
            writeln!(out, "  ```sh")?;
            step.run.lines().try_for_each(|command| writeln!(out, "  {command}"))?;
            writeln!(out, "  ```")?;
        }
    }
    Ok(())
}

/// Paragraphs and items.
fn text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut after_item = None;
    for block in blocks(text) {
        // An item needs an empty line before it unless it follows another one.
        if after_item.is_some_and(|after| !(after && block.item)) {
            writeln!(out)?;
        }
        writeln!(out, "{}{}", if block.item { "- " } else { "" }, inline(&block.text))?;
        after_item = Some(block.item);
    }
    Ok(())
}

/// A rule in words: conditions, class and confidence, the note.
fn sentence(cause: &Cause, rule: &Rule) -> String {
    let class = rule.class.unwrap_or(cause.class);
    let why = rule.why.as_ref().map(|why| format!(" ({})", inline(why))).unwrap_or_default();
    format!("{}: {class}, {}{why}", conditions(rule, |name| format!("`{name}`")), rule.confidence)
}

/// The reasons that rules have, and the causes that they lead to.
fn reasons(out: &mut dyn Write, causes: &[&Cause]) -> io::Result<()> {
    let mut leads: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for cause in causes {
        for reason in cause.rules.iter().flat_map(|rule| &rule.reasons) {
            let ReasonPattern::Named(pattern) = reason else { continue };
            let ids = leads.entry(pattern.to_string()).or_default();
            if ids.last() != Some(&cause.id.as_str()) {
                ids.push(&cause.id);
            }
        }
    }
    writeln!(
        out,
        "\n## Drop reasons\n\nAs the kernel names them, without `SKB_DROP_REASON_`; those of a subsystem with its \
         name. Where one leads to several causes, the function that dropped and facts of the packet decide: see the \
         rules of each.\n\n| reason | causes |\n|---|---|"
    )?;
    for (reason, ids) in leads {
        let ids: Vec<String> = ids.into_iter().map(link).collect();
        writeln!(out, "| `{reason}` | {} |", ids.join(", "))?;
    }
    Ok(())
}

/// Causes by layer; those of one stand together.
fn layers<'a>(causes: &'a [&'a Cause]) -> impl Iterator<Item = &'a [&'a Cause]> {
    causes.chunk_by(|one, next| one.layer == next.layer)
}

fn link(heading: &str) -> String {
    format!("[{heading}](#{})", anchor(heading))
}

/// The anchor that GitHub gives a heading of plain words.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

/// One line of running text: identifiers become code, and nothing else becomes markup.
fn inline(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let line = words.join(" ");
    // At the start of a line these would make a heading or a quotation.
    match line.chars().next() {
        Some('#' | '>') => format!("\\{line}"),
        _ => line,
    }
}

fn word(word: &str) -> String {
    if word.starts_with("https://") {
        return word.to_owned();
    }
    let (before, name, after) = bare(word);
    let code = (name.contains('_') || name.starts_with('/') && name.len() > 1) && !name.contains('`');
    if code { format!("{}`{name}`{}", escaped(before), escaped(after)) } else { escaped(word) }
}

/// A word without the punctuation around it: `(tcp_rmem,` is `(`, `tcp_rmem`, `,`.
fn bare(word: &str) -> (&str, &str, &str) {
    let start = word.find(|c: char| !"([\"'".contains(c)).unwrap_or(word.len());
    let (before, mut name) = word.split_at(start);
    let count = |name: &str, c: char| name.chars().filter(|other| *other == c).count();
    while let Some(last) = name.chars().next_back() {
        // Parentheses of a call belong to it.
        let closes = last == ')' && count(name, ')') > count(name, '(');
        if !closes && !".,;:!?]\"'".contains(last) {
            break;
        }
        name = &name[..name.len() - last.len_utf8()];
    }
    (before, name, &word[start + name.len()..])
}

/// Text in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if "\\`*_<[]|~".contains(character) {
            plain.push('\\');
        }
        plain.push(character);
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;
    use crate::cause::Catalogue;

    fn whole() -> String {
        let builtin = Catalogue::builtin().unwrap();
        let mut out = Vec::new();
        catalogue(&mut out, &builtin.causes().collect::<Vec<_>>()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn identifiers_become_code_and_nothing_else_markup() {
        for (text, expected) in [
            ("the kernel's SOCKET_RCVBUFF, certain.", "the kernel's `SOCKET_RCVBUFF`, certain."),
            ("man 7 tcp (tcp_rmem, tcp_mem)", "man 7 tcp (`tcp_rmem`, `tcp_mem`)"),
            ("net/core/dev.c, __dev_xmit_skb()", "net/core/dev.c, `__dev_xmit_skb()`"),
            ("setsockopt(SO_RCVBUF).", "`setsockopt(SO_RCVBUF)`."),
            ("column of /proc/net/udp, d in ss -m", "column of `/proc/net/udp`, d in ss -m"),
            ("RX* and <a> [b]", "RX\\* and \\<a> \\[b\\]"),
            ("# no heading", "\\# no heading"),
            ("https://docs.kernel.org/a_b.html (c_d)", "https://docs.kernel.org/a_b.html (`c_d`)"),
            ("kernel: a and/or b", "kernel: a and/or b"),
        ] {
            assert_eq!(inline(text), expected);
        }
    }

    #[test]
    fn every_link_leads_to_one_heading() {
        let whole = whole();
        let headings: Vec<String> = whole
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect();
        let unique: HashSet<&String> = headings.iter().collect();
        assert_eq!(unique.len(), headings.len(), "two headings have one anchor: {headings:?}");
        let links: Vec<&str> =
            whole.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).collect();
        assert!(links.len() > 2 * Catalogue::builtin().unwrap().ids().count(), "{links:?}");
        for link in links {
            assert!(unique.contains(&link.to_owned()), "#{link} leads nowhere");
        }
    }

    #[test]
    fn commands_are_in_blocks_of_their_own() {
        let whole = whole();
        let (mut inside, mut commands) = (false, Vec::new());
        for line in whole.lines() {
            match line.trim() {
                "```sh" => inside = true,
                "```" => inside = false,
                command if inside => commands.push(command),
                _ => {}
            }
        }
        assert!(!inside, "a block is not closed");
        let builtin = Catalogue::builtin().unwrap();
        let steps = builtin.causes().flat_map(|cause| cause.confirm.iter().chain(&cause.fix));
        let expected: Vec<&str> = steps.flat_map(|step| step.run.lines()).map(str::trim).collect();
        assert_eq!(commands, expected);
    }

    #[test]
    fn docs_causes_md_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/causes.md");
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let fresh = whole();
        let differs = committed.lines().zip(fresh.lines()).position(|(old, new)| old != new);
        assert!(
            committed == fresh,
            "docs/causes.md is stale (line {}): run `cargo xtask docs` and commit the result",
            differs.unwrap_or_else(|| committed.lines().count().min(fresh.lines().count())) + 1
        );
    }
}
