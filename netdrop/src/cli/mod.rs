//! The command line: one file a command; what users type ends here, the rest of the program gets plain
//! configuration.

mod doctor;
mod explain;
mod failure;
mod filter;
mod privilege;
mod rung;
mod top;
mod trace;

use std::{ffi::OsString, io, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

pub use failure::exit_code;

use crate::output::style::Page;

/// Name every packet the Linux kernel drops: which packet, whose container, which kernel function, why, and
/// what to change.
#[derive(Debug, Parser)]
#[command(name = "netdrop", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  sudo netdrop trace                     drops as they happen
  sudo netdrop trace --port 80 --json    one object a line, for scripts
  sudo netdrop top --batch --interval 1s counts by cause and container
  netdrop explain udp-receive-buffer-full
  sudo netdrop doctor                    what this kernel and these privileges allow

Exit codes: 0 done, 1 error, 2 usage, 4 no privilege or kernel support.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show drops as they happen.
    Trace(trace::TraceArgs),
    /// Count drops live, by cause and container.
    Top(top::TopArgs),
    /// Explain a cause, a drop reason or a kernel function that drops.
    Explain(explain::ExplainArgs),
    /// Say what this kernel and these privileges allow, what is missing, and how to get it.
    Doctor(doctor::DoctorArgs),
}

/// Runs a command line.
///
/// # Errors
///
/// Whatever stopped the command; [`exit_code`] says which exit code it is worth.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version are no errors; clap knows where to print what, and the code.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(failure::USAGE);
            // A closed pipe behind `--help` is nobody's business.
            let _ = error.print();
            return Ok(ExitCode::from(code));
        }
    };
    match cli.command {
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Explain(arguments) => {
            explain::run(&arguments, Page::stdout(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(arguments) => doctor::run(&arguments),
    }
}

/// Runs the event loop: one thread is enough, and is all an observer should take.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = runtime.block_on(future);
    // Not dropped: that would wait for a write that a stalled reader never takes.
    runtime.shutdown_background();
    Ok(result)
}

/// A duration as users type it: `30s`, `500ms`, `2m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| "a number and a unit, like 500ms, 30s, 2m or 1h".to_owned())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("`{unit}` is no unit: ms, s, m or h")),
    };
    if seconds <= 0.0 {
        return Err("must be more than 0".to_owned());
    }
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_as_typed() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        for wrong in ["", "s", "0", "-1s", "1w", "1e400s", "1..2s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
