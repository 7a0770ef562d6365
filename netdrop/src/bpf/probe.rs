//! Probe points and the rungs they are observed by.

use netdrop_common::key::ProbePoint;

/// A way to observe a probe point, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// BTF-typed raw tracepoint (since 5.5): loads checked by the verifier, no helper calls.
    TpBtf,
}

impl Rung {
    /// The kernel's name of this kind of program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
        }
    }
}

/// How one probe point is observed in this run.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// The probe point.
    pub point: ProbePoint,
    /// The kernel's name of it.
    pub name: &'static str,
    /// The rung that loaded.
    pub rung: Rung,
    /// The program that was chosen for this kernel's arguments.
    pub program: &'static str,
    /// Instructions after verification and dead-code removal, where the kernel says.
    pub instructions: Option<u32>,
}
