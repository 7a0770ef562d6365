//! Reasons that the running kernel knows: newer kernels state more of them, those before 5.17 none.

use std::fs;
use std::sync::LazyLock;

use serde_json::Value;

use crate::lab::say_skip;

/// The kernel's own types, with the names of all reasons among their strings.
static BTF: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default());

/// Reasons of the newest kernels that scenarios rest on. A kernel that has them has all that scenarios name.
const NEWEST: [&str; 4] =
    ["BRIDGE_INGRESS_STP_STATE", "MAC_INVALID_SOURCE", "NO_TX_TARGET", "TCP_ABORT_ON_DATA"];

/// Whether the kernel has all of them.
static ALL_KNOWN: LazyLock<bool> = LazyLock::new(|| NEWEST.into_iter().all(known));

/// Whether the running kernel has this reason.
pub fn known(reason: &str) -> bool {
    let string = format!("\0SKB_DROP_REASON_{reason}\0");
    BTF.windows(string.len()).any(|window| window == string.as_bytes())
}

/// Whether an event may go by another name than that of its cause: on a kernel that lacks reasons, netdrop may
/// have nothing but the place of a drop. It may name what is likely there, or nothing.
pub fn may_be_unnamed(event: &Value) -> bool {
    let unstated = event["reason"].is_null() || event["reason"] == "NOT_SPECIFIED";
    unstated && lacks_some()
}

/// Whether the running kernel lacks reasons that scenarios name.
pub fn lacks_some() -> bool {
    !*ALL_KNOWN
}

/// Whether the kernel tells for which socket a packet was: the tracepoint's argument `rx_sk`, since 6.11.
pub fn receiver_is_told() -> bool {
    BTF.windows(7).any(|window| window == b"\0rx_sk\0")
}

/// Whether an event has no evidence of a group for want of what this kernel does not tell: a reason that says what to
/// read, or the socket to read it from.
pub fn lacks_evidence(event: &Value, group: &str) -> bool {
    let of_socket = ["socket", "memory"].contains(&group) && !receiver_is_told();
    event["evidence"][group].is_null() && (of_socket || may_be_unnamed(event))
}

/// Whether the kernel lacks a reason without which the scenario `name` shows nothing; it is skipped then.
pub fn lacks(reason: &str, name: &str) -> bool {
    let lacks = !known(reason);
    if lacks {
        say_skip(name, &format!("this kernel has no drop reason {reason}"));
    }
    lacks
}

/// The same for a scenario that is about reasons as such.
pub fn lacks_all(name: &str) -> bool {
    let lacks = !known("NOT_SPECIFIED");
    if lacks {
        say_skip(name, "this kernel states no drop reasons");
    }
    lacks
}

/// Requires that the verdict is certain, unless it [may be unnamed](may_be_unnamed).
#[track_caller]
pub fn expect_certain(event: &Value) {
    assert!(event["cause"]["confidence"] == "observed" || may_be_unnamed(event), "{event}");
}

/// Requires that the kernel gave this reason, if it knows it.
#[track_caller]
pub fn expect_stated(event: &Value, reason: &str) {
    assert!(event["reason"] == reason || !known(reason), "not {reason}: {event}");
}

/// Requires that an event rests on this reason of the kernel, and says that it is certain. Where the kernel does not
/// have the reason yet, the event must say that its cause is inferred.
#[track_caller]
pub fn expect_reason(event: &Value, reason: &str) {
    if known(reason) {
        assert_eq!(event["reason"], reason, "{event}");
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
    } else {
        assert_eq!(event["cause"]["confidence"], "inferred", "{event}");
    }
}
