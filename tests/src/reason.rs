//! Reasons that the running kernel knows: newer kernels state more of them.

use std::fs;
use std::sync::LazyLock;

use serde_json::Value;

/// The kernel's own types, with the names of all reasons among their strings.
static BTF: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default());

/// Whether the running kernel has this reason.
fn known(reason: &str) -> bool {
    let string = format!("\0SKB_DROP_REASON_{reason}\0");
    BTF.windows(string.len()).any(|window| window == string.as_bytes())
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
