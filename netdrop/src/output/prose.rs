//! Running text: paragraphs and items, wrapped to the page.

use std::io::{self, Write};

use super::style::Page;

/// Lines longer than this are hard to read, however wide the terminal.
const WIDEST: usize = 100;

/// Narrower than this, wrapping does more harm than good.
const NARROWEST: usize = 30;

/// Where there is no terminal to ask.
const DEFAULT: usize = 80;

impl Page {
    /// Columns for running text.
    #[must_use]
    pub fn prose_width(self) -> usize {
        self.columns.unwrap_or(DEFAULT).clamp(NARROWEST, WIDEST)
    }

    /// Writes text: paragraphs apart by an empty line, lines that start with "- " as items.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn paragraphs(self, out: &mut dyn Write, indent: usize, text: &str) -> io::Result<()> {
        for (index, block) in blocks(text).into_iter().enumerate() {
            if index > 0 && !block.item {
                writeln!(out)?;
            }
            let (first, rest) = if block.item { ("- ", "  ") } else { ("", "") };
            let lines = wrap(&block.text, self.prose_width().saturating_sub(indent + first.len()));
            for (number, line) in lines.iter().enumerate() {
                let lead = if number == 0 { first } else { rest };
                writeln!(out, "{:indent$}{lead}{line}", "")?;
            }
        }
        Ok(())
    }
}

/// A paragraph or an item of a list.
pub(super) struct Block {
    pub(super) text: String,
    pub(super) item: bool,
}

/// Paragraphs and items of a text, each as one line.
pub(super) fn blocks(text: &str) -> Vec<Block> {
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
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
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
        Page { columns: Some(30), colour: false }
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
