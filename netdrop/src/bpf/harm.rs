//! The probe points of `--harm`: what TCP does about packets that are lost.

use super::probe::{Probe, Rung, Target, Way};
use crate::kernel::Kernel;

/// A tracepoint of TCP, where the kernel has it. Its programs follow pointers by number alone: a typed one would gain
/// nothing.
macro_rules! tracepoint {
    ($name:literal, $shows:literal, $costs:literal, $price:literal) => {
        Probe {
            name: concat!("tcp:", $name),
            shows: $shows,
            costs: Some($costs),
            for_events: false,
            essential: true,
            ways: |kernel: &Kernel, _| {
                if kernel.tcp_tracepoints.contains(&$name) {
                    vec![Way::new(Rung::RawTp, $price, &[($name, Target::RawTp($name))])]
                } else {
                    Vec::new()
                }
            },
        }
    };
}

/// Each once, by the number of its [`Harm`](netdrop_common::harm::Harm).
pub(super) static PROBES: [Probe; 4] = [
    tracepoint!(
        "tcp_retransmit_skb",
        "--harm: segments that TCP sends again",
        "what drops cost a sender in time is not known",
        "with --harm, one run for each segment sent again"
    ),
    tracepoint!(
        "tcp_retransmit_synack",
        "--harm: answers to SYNs that a listener sends again",
        "what drops cost a listener's clients in time is not known",
        "with --harm, one run for each answer sent again"
    ),
    tracepoint!(
        "tcp_send_reset",
        "--harm: resets that this machine sends",
        "drops that are answered by a reset are not told from silent ones",
        "with --harm, one run for each reset"
    ),
    tracepoint!(
        "tcp_receive_reset",
        "--harm: resets that this machine's connections take",
        "connections that end because of a drop are not known",
        "with --harm, one run for each reset"
    ),
];
