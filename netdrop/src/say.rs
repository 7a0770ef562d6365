//! Words to the user beside the results: standard error, where a closed pipe is no reason to die.

use std::{fmt, io::Write as _};

/// Writes `netdrop: …` as one line.
pub fn say(text: impl fmt::Display) {
    // Nobody is there to be told that nobody is there.
    let _ = writeln!(std::io::stderr().lock(), "netdrop: {text}");
}
