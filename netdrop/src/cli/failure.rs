//! Exit codes: 0 done, 1 error, 2 usage, 4 no privilege or kernel support. A closed pipe is the reader's
//! right, and ends a command with 0.

use std::{fmt, io, process::ExitCode};

use super::explain::UnknownName;
use crate::{bpf::LoadError, kernel::KernelError, trace::TraceError};

const ERROR: u8 = 1;
/// A wrong command line; clap uses the same.
pub(super) const USAGE: u8 = 2;
const UNSUPPORTED: u8 = 4;

/// A command line that says something impossible.
#[derive(Debug)]
pub(super) struct Usage(pub(super) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Privileges or kernel features are missing; the text says what to do.
#[derive(Debug)]
pub(super) struct Unsupported(pub(super) String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// The exit code an error is worth; nothing for a closed pipe, which is none.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> Option<ExitCode> {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return None;
    }
    let code = if error.chain().any(|cause| cause.is::<Usage>() || cause.is::<UnknownName>()) {
        USAGE
    } else if error.chain().any(unsupported) {
        UNSUPPORTED
    } else {
        ERROR
    };
    Some(ExitCode::from(code))
}

fn unsupported(cause: &(dyn std::error::Error + 'static)) -> bool {
    let load = cause.downcast_ref::<LoadError>().or_else(|| match cause.downcast_ref::<TraceError>() {
        Some(TraceError::Load(error)) => Some(error),
        _ => None,
    });
    cause.is::<Unsupported>()
        || cause.is::<KernelError>()
        || matches!(load, Some(LoadError::Refused { .. } | LoadError::Unsupported { .. }))
}

/// "did you mean", for as many names as there are.
pub(super) fn did_you_mean<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [first @ .., last] => format!("; did you mean {} or {last}?", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let code = |error: anyhow::Error| exit_code(&error).map(|code| format!("{code:?}"));
        let expected = |code: u8| Some(format!("{:?}", ExitCode::from(code)));
        assert_eq!(code(anyhow::anyhow!("x")), expected(1));
        assert_eq!(code(anyhow::Error::new(Usage("x".into())).context("y")), expected(2));
        assert_eq!(code(anyhow::Error::new(Unsupported("x".into()))), expected(4));
        assert_eq!(code(anyhow::Error::new(KernelError::NoTracepoint)), expected(4));
        assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe).into()), None);
    }

    #[test]
    fn suggestions() {
        assert_eq!(did_you_mean::<&str>(&[]), "");
        assert_eq!(did_you_mean(&["a"]), "; did you mean `a`?");
        assert_eq!(did_you_mean(&["a", "b", "c"]), "; did you mean `a`, `b` or `c`?");
    }
}
