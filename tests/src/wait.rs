//! Waiting for a condition, with a deadline instead of a fixed sleep.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take before a scenario fails. Generous: it only costs time on failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// Polls until `probe` yields a value; panics after [`DEADLINE`] with `what` and the last state seen.
#[track_caller]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if Instant::now() > end => panic!("{what}: not within {DEADLINE:?}; now: {state}"),
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Waits until a counter shows exactly `expected`; panics at once when it went past it.
#[track_caller]
pub fn until_counter(what: &str, expected: u64, mut read: impl FnMut() -> u64) {
    until(what, || match read() {
        now if now == expected => Ok(()),
        now if now > expected => panic!("{what}: {now}, expected {expected}"),
        now => Err(format!("{now} of {expected}")),
    });
}

/// Waits until a value stays the same for 20 looks in a row, and returns it: nothing is on its way any more.
#[track_caller]
pub fn until_stable<T: PartialEq + std::fmt::Debug>(what: &str, mut read: impl FnMut() -> T) -> T {
    const LOOKS: u32 = 20;
    let mut last = read();
    let mut same = 0;
    until(what, || {
        let now = read();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same >= LOOKS { Ok(()) } else { Err(format!("still moving: {last:?}")) }
    });
    last
}
