//! Words to the user beside the results: standard error, where a closed pipe is no reason to die.

use std::{error::Error, fmt, io::Write as _};

/// Writes `netdrop: …` as one line.
pub fn say(text: impl fmt::Display) {
    // Nobody is there to be told that nobody is there.
    let _ = writeln!(std::io::stderr().lock(), "netdrop: {text}");
}

/// An error and what it came from, without what is said already: many errors name their source in their
/// own text.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let link = error.to_string();
        if !text.contains(&link) {
            text.push_str(": ");
            text.push_str(&link);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn nothing_is_said_twice() {
        let inner = anyhow::Error::new(io::Error::other("no route")).context("cannot send: no route");
        assert_eq!(chain(inner.context("probe failed").as_ref()), "probe failed: cannot send: no route");
    }
}
