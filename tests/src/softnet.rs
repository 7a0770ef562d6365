//! The queues in which each CPU keeps received packets (softnet), for the whole machine.

use std::fs;

/// Packets that all CPUs together dropped because their queue was full (`/proc/net/softnet_stat`, column 2).
#[track_caller]
pub fn dropped() -> u64 {
    let path = "/proc/net/softnet_stat";
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    let second = |line: &str| {
        let column = line.split_whitespace().nth(1)?;
        u64::from_str_radix(column, 16).ok()
    };
    text.lines()
        .map(|line| second(line).unwrap_or_else(|| panic!("no second column in {path}: {line}")))
        .sum()
}
