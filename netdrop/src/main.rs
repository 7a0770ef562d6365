//! The netdrop command: parse, run, print errors, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match netdrop::cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(error) => match netdrop::cli::exit_code(&error) {
            Some(code) => {
                netdrop::say::say(format_args!("{error:#}"));
                code
            }
            None => ExitCode::SUCCESS,
        },
    }
}
