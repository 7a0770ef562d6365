//! Traffic control: queues, and filters that drop.

use std::process::Command;

use crate::netns::Netns;

/// The side of a device that a filter is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
}

impl Netns {
    /// Runs `tc` with these words; `Err` holds the refusal where the kernel lacks what it needs.
    pub fn try_tc(&self, words: &str) -> Result<(), String> {
        accepted(&mut self.command(&format!("tc {words}")))
    }

    /// Adds a filter that drops everything of `protocol` (`ip`, `ipv6`) on one side of `device`: classic BPF,
    /// which more kernels have than flower and its actions. [`Netns::qdisc_drops`] counts for it.
    pub fn tc_drop(&self, device: &str, side: Side, protocol: &str) -> Result<(), String> {
        let side = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        self.try_tc(&format!("qdisc replace dev {device} clsact"))?;
        let mut filter = self.command(&format!(
            "tc filter add dev {device} {side} protocol {protocol} bpf direct-action bytecode"
        ));
        // One instruction: return TC_ACT_SHOT.
        accepted(filter.arg("1,6 0 0 2,"))
    }
}

/// Runs a command to its end; `Err` has its stderr.
fn accepted(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
