//! What guests print, here: as it is from one, line by line behind its kernel's name from several.

use std::io::{self, Write};

use anyhow::{Context, Result};
use netdrop_guest::frame::Frame;

/// The output of one guest.
pub(crate) struct Output {
    /// Stands before every line, when there are several guests.
    prefix: Option<String>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// For the guest called `name`, one of several or the only one.
    pub(crate) fn new(name: &str, several: bool) -> Self {
        let prefix = several.then(|| format!("{name:>5} | "));
        Self { prefix, stdout: Vec::new(), stderr: Vec::new() }
    }

    /// Shows what a frame brings.
    pub(crate) fn show(&mut self, frame: Frame) -> Result<()> {
        let prefix = self.prefix.as_deref();
        let shown = match frame {
            Frame::Stdout(bytes) => put(io::stdout().lock(), prefix, &mut self.stdout, &bytes),
            Frame::Stderr(bytes) => put(io::stderr().lock(), prefix, &mut self.stderr, &bytes),
            Frame::End(_) => return self.flush(),
            _ => Ok(()),
        };
        shown.context("cannot show a guest's output")
    }

    /// Shows a line about the guest.
    pub(crate) fn say(&self, line: &str) {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        // Nobody reads it any more: the work goes on all the same.
        let _ = writeln!(io::stdout().lock(), "{prefix}{line}");
    }

    /// Shows lines that have no end.
    fn flush(&mut self) -> Result<()> {
        let rest = |held: &mut Vec<u8>| if held.is_empty() { &b""[..] } else { b"\n" };
        let (out, err) = (rest(&mut self.stdout), rest(&mut self.stderr));
        self.show(Frame::Stdout(out.into()))?;
        self.show(Frame::Stderr(err.into()))
    }
}

/// Writes `bytes`, or with a prefix the lines that they complete.
fn put(mut to: impl Write, prefix: Option<&str>, held: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let Some(prefix) = prefix else {
        to.write_all(bytes)?;
        return to.flush();
    };
    held.extend(bytes);
    while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
        to.write_all(prefix.as_bytes())?;
        to.write_all(&held[..=end])?;
        held.drain(..=end);
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_guests_stay_whole() {
        let (mut shown, mut held) = (Vec::new(), Vec::new());
        for bytes in [&b"one\ntw"[..], b"o\n\n", b"three"] {
            put(&mut shown, Some("6.1 | "), &mut held, bytes).expect("a vector takes everything");
        }
        assert_eq!(String::from_utf8_lossy(&shown), "6.1 | one\n6.1 | two\n6.1 | \n");
        assert_eq!(held, b"three");
    }

    #[test]
    fn the_output_of_one_guest_is_not_touched() {
        let (mut shown, mut held) = (Vec::new(), Vec::new());
        put(&mut shown, None, &mut held, b"\x1b[2Jhalf a line").expect("a vector takes everything");
        assert_eq!(shown, b"\x1b[2Jhalf a line");
    }
}
