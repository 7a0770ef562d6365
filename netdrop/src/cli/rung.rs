//! How the kernel is observed: `--no-consume`, and `--rung` for tests and benchmarks.

use clap::{Args, ValueEnum};

use crate::bpf::Rung;

/// Arguments shared by commands that trace.
#[derive(Args, Debug)]
pub(super) struct RungArgs {
    /// Hook nothing that runs for each packet (skb:consume_skb, tables of netfilter, queues of tc, and __kfree_skb()
    /// before 5.17). Table and queue are then inferred; and where nothing cheaper loads, SYNs lost on a full queue, and
    /// before 5.17 what TCP discards, are not seen; nor, where no function can be hooked, datagrams that get no source port.
    #[arg(long)]
    no_consume: bool,

    /// Observe by these kinds of program alone, where a probe point has one of them, instead of the best that loads;
    /// `empty` does nothing.
    #[arg(long, value_name = "RUNG[,RUNG]", value_delimiter = ',', hide = true)]
    rung: Vec<Choice>,
}

/// See [`Rung`].
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Choice {
    TpBtf,
    RawTp,
    Fexit,
    Kprobe,
    Tracepoint,
    Witness,
    Inference,
    Empty,
}

impl RungArgs {
    /// The rungs asked for.
    pub(super) fn rungs(&self) -> Vec<Rung> {
        let rung = |choice: &Choice| match choice {
            Choice::TpBtf => Rung::TpBtf,
            Choice::RawTp => Rung::RawTp,
            Choice::Fexit => Rung::Fexit,
            Choice::Kprobe => Rung::Kprobe,
            Choice::Tracepoint => Rung::Tracepoint,
            Choice::Witness => Rung::Witness,
            Choice::Inference => Rung::Inference,
            Choice::Empty => Rung::Empty,
        };
        self.rung.iter().map(rung).collect()
    }

    /// The command that explains how a run with these arguments observes.
    pub(super) const fn doctor(&self) -> &'static str {
        if self.no_consume { "netdrop doctor --no-consume" } else { "netdrop doctor" }
    }

    /// Whether hooks may be used that run for each packet.
    pub(super) const fn consume(&self) -> bool {
        !self.no_consume
    }
}
