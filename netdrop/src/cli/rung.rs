//! `--rung`: one way to observe instead of the best that loads, for tests and benchmarks.

use clap::{Args, ValueEnum};

use crate::bpf::Rung;

/// The rung argument, shared by commands that trace.
#[derive(Args, Debug)]
pub(super) struct RungArgs {
    /// Observe by this kind of program alone, instead of the best that loads; `empty` does nothing.
    #[arg(long, value_name = "RUNG", hide = true)]
    rung: Option<Choice>,
}

/// See [`Rung`].
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Choice {
    TpBtf,
    RawTp,
    Empty,
}

impl RungArgs {
    /// The rung asked for.
    pub(super) fn rung(&self) -> Option<Rung> {
        self.rung.map(|choice| match choice {
            Choice::TpBtf => Rung::TpBtf,
            Choice::RawTp => Rung::RawTp,
            Choice::Empty => Rung::Empty,
        })
    }
}
