//! Child processes: every step is announced in one line, and a failure names the command.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

/// Announces a step. stderr, because stdout belongs to the program that a step runs.
pub(crate) fn announce(what: &str, detail: &str) {
    eprintln!("==> {what}: {detail}");
}

/// Announces `command` as the step that does `what`, runs it, and fails unless it succeeds.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    announce(what, &shown(command));
    check(command)
}

/// Runs `command` on this terminal and fails unless it succeeds.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    succeeded(command, status)
}

/// Fails, naming `command`, unless `status` is success.
pub(crate) fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` quietly and returns what it wrote to stdout; its stderr is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A child that ends when it is dropped.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `command` as one would type it: the variables set for it, the program's own name, the arguments.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        // PATH is set for every child and says nothing about the step.
        let value = value.filter(|_| name != "PATH")?;
        Some(format!("{}={}", name.to_string_lossy(), quoted(value)))
    });
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let program = std::iter::once(quoted(program));
    let arguments = command.get_args().map(quoted);
    variables.chain(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["clippy", "--", "-D", "a b"]).env("RUSTC_BOOTSTRAP", "1").env("PATH", "/bin");
        assert_eq!(shown(&command), "RUSTC_BOOTSTRAP=1 cargo clippy -- -D 'a b'");
    }

    #[test]
    fn a_failure_names_the_command_and_keeps_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("sh -c") && text.contains("exit status: 3") && text.contains("no luck"),
            "{text}"
        );
    }
}
