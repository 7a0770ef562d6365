//! Colours and the width of the page.

use std::{io::IsTerminal, os::fd::AsFd};

use anstyle::{AnsiColor, Style};

use crate::cause::Class;

/// How text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Columns of the terminal; nothing when the output is no terminal, and lines may be as long as they like.
    pub columns: Option<usize>,
    /// Whether to colour.
    pub colour: bool,
}

impl Page {
    /// Of standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// Of standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// Colour only on a terminal that can, and not when `NO_COLOR` is set to anything
    /// (<https://no-color.org>).
    fn of(output: &(impl IsTerminal + AsFd)) -> Self {
        if !output.is_terminal() {
            return Self { columns: None, colour: false };
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let columns = terminal_size::terminal_size_of(output).map_or(80, |(width, _)| usize::from(width.0));
        Self { columns: Some(columns.max(40)), colour: !set("NO_COLOR") && !dumb }
    }

    /// A style, or none without colour.
    #[must_use]
    pub fn style(self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }

    /// The style of a class.
    #[must_use]
    pub fn class(self, class: Class) -> Style {
        let style = Style::new();
        self.style(match class {
            Class::Harmful => style.fg_color(Some(AnsiColor::Red.into())).bold(),
            Class::Suspect => style.fg_color(Some(AnsiColor::Yellow.into())),
            Class::Benign => style.dimmed(),
        })
    }

    /// The style of what is as it should be.
    #[must_use]
    pub fn good(self) -> Style {
        self.style(Style::new().fg_color(Some(AnsiColor::Green.into())))
    }

    /// The style of what is said in passing.
    #[must_use]
    pub fn faint(self) -> Style {
        self.style(Style::new().dimmed())
    }

    /// The style of headings.
    #[must_use]
    pub fn heading(self) -> Style {
        self.style(Style::new().bold())
    }
}
