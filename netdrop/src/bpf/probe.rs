//! Probe points and the rungs they are observed by.

use super::tracer::LoadError;
use crate::kernel::Kernel;

/// A way to observe a probe point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// BTF-typed raw tracepoint (since 5.5): loads checked by the verifier, no helper calls.
    TpBtf,
    /// Raw tracepoint (since 4.17): the same code, each load a helper call.
    RawTp,
    /// On no ladder: a program that does nothing, to measure what being attached costs.
    Empty,
}

impl Rung {
    /// Rungs of a tracepoint, best first.
    pub(super) const LADDER: &[Self] = &[Self::TpBtf, Self::RawTp];

    /// The kernel's name of this kind of program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Empty => "empty",
        }
    }
}

/// A place where the kernel is observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The kernel's name of it, `subsystem:event`.
    pub(super) name: &'static str,
    /// What is seen through it.
    pub(super) shows: &'static str,
    /// What is not known without it; nothing where netdrop cannot do without.
    pub(super) costs: Option<&'static str>,
    /// The program for this kernel; nothing when the kernel has no such tracepoint.
    program: fn(&Kernel) -> Option<&'static str>,
}

impl Probe {
    /// Every probe point, the one that counts first.
    pub(super) const ALL: &[Self] = &[
        Self {
            name: "skb:kfree_skb",
            shows: "every skb that is freed without being delivered",
            costs: None,
            program: |kernel| Some(kernel.kfree_skb.program()),
        },
        Self {
            name: "icmp:icmp_send",
            shows: "packets whose sender is told by ICMP: tells REJECT from DROP",
            costs: Some("the verdict of netfilter rules is not known"),
            program: |kernel| kernel.has_icmp_send.then_some("icmp_send"),
        },
    ];

    /// The tracepoint, without its subsystem.
    pub(super) fn tracepoint(&self) -> &'static str {
        self.name.split_once(':').map_or(self.name, |(_, event)| event)
    }

    /// Whether nothing can be traced without it.
    pub(super) const fn required(&self) -> bool {
        self.costs.is_none()
    }

    /// Name of the kernel-side program that observes it by this rung, as `netdrop-ebpf/src/main.rs` has it.
    pub(super) fn program(&self, kernel: &Kernel, rung: Rung) -> Option<String> {
        let program = (self.program)(kernel)?;
        Some(match rung {
            Rung::TpBtf => program.to_owned(),
            Rung::RawTp => format!("{program}_raw"),
            Rung::Empty => "kfree_skb_empty".to_owned(),
        })
    }
}

/// How one probe point is observed in this run.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// The kernel's name of it.
    pub name: &'static str,
    /// What is seen through it.
    pub shows: &'static str,
    /// What is not known without it; nothing where netdrop cannot do without.
    pub costs: Option<&'static str>,
    /// The rung that loaded; nothing when none did.
    pub rung: Option<Rung>,
    /// The program that was chosen for this kernel's arguments.
    pub program: Option<String>,
    /// Instructions after verification and dead-code removal, where the kernel says.
    pub instructions: Option<u32>,
    /// Why better rungs, or all, did not load.
    pub errors: Vec<String>,
}

impl ProbeReport {
    /// The probe point that netdrop cannot do without, not observed.
    #[must_use]
    pub fn unobserved(error: String) -> Self {
        Self { errors: vec![error], ..Self::untried(&Probe::ALL[0]) }
    }

    /// Notes that the program which loaded could not be attached.
    pub(super) fn failed_to_attach(&mut self, error: &LoadError) {
        self.rung = None;
        self.errors.push(error.to_string());
    }

    /// A probe point nothing has been tried for.
    pub(super) fn untried(probe: &Probe) -> Self {
        Self {
            name: probe.name,
            shows: probe.shows,
            costs: probe.costs,
            rung: None,
            program: None,
            instructions: None,
            errors: Vec::new(),
        }
    }
}
