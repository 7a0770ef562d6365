//! netdrop's automation. `cargo xtask` is the only door to it.

mod bench;
mod build;
mod command;
mod demo;
mod docs;
mod interrupt;
mod leftovers;
mod lint;
mod netns;
mod packages;
mod privilege;
mod run;
mod scenarios;
mod tally;
mod test;
mod tools;
mod unit;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Builds, runs, tests, measures and demonstrates netdrop, and fetches what each of these needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds target/release/netdrop, with rust-src and bpf-linker fetched where they are missing.
    Build,
    /// Builds netdrop as you, then runs it as root: `cargo xtask run -- trace --port 53`.
    Run {
        /// What follows `--` is netdrop's own command line.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NETDROP-ARGS")]
        args: Vec<OsString>,
    },
    /// Lints, unit tests and live-kernel scenarios; missing test tools are installed with apt-get.
    Test(test::Args),
    /// Drops packets in three ways, in network namespaces of its own, and traces them for some seconds.
    Demo(demo::Args),
    /// Measures what tracing drops costs, beside an empty program and bpftrace, and what it costs connections.
    Bench(bench::Args),
    /// Runs the scenarios, or a command, on other kernels: Debian's, in virtual machines.
    Vm(vm::Args),
    /// Writes the generated documentation: docs/causes.md from the catalogue of causes, docs/kernels.md from what
    /// `vm` found.
    Docs(docs::Args),
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Cli::parse().task {
        Task::Build => build::run().map(done),
        Task::Run { args } => run::run(args).map(done),
        Task::Test(args) => test::run(&args).map(done),
        Task::Demo(args) => demo::run(&args).map(done),
        Task::Bench(args) => bench::run(&args).map(done),
        Task::Vm(args) => vm::run(&args),
        Task::Docs(args) => docs::run(&args).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
