//! How much traffic a scenario with a lot of it sends.

use std::env;
use std::sync::LazyLock;

/// Scenarios with a lot of traffic send this fraction of it, `20` for a twentieth: emulated machines take a
/// hundred times as long as others for the same packets, and find the same in fewer.
pub const DIVISOR: &str = "NETDROP_TESTS_DIVISOR";

static DIVIDED_BY: LazyLock<u64> = LazyLock::new(|| match env::var(DIVISOR) {
    Ok(text) => text
        .parse()
        .ok()
        .filter(|divisor| *divisor > 0)
        .unwrap_or_else(|| panic!("{DIVISOR} is {text}, not a number from 1")),
    Err(_) => 1,
});

/// What is sent here of `count` packets or connections: all, or the fraction that [`DIVISOR`] asks for.
pub fn of(count: u64) -> u64 {
    count / *DIVIDED_BY
}

/// Whether this is an emulated machine, where waits that are bounded elsewhere can be too short.
pub fn emulated() -> bool {
    *DIVIDED_BY > 1
}
