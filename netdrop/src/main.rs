//! The netdrop command: parse, run, print errors, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match netdrop::cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(error) => match netdrop::cli::exit_code(&error) {
            Some(code) => {
                netdrop::say::say(netdrop::say::chain(error.as_ref()));
                code
            }
            None => ExitCode::SUCCESS,
        },
    }
}
