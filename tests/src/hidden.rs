//! Kernels that hide drops from tracing programs without counting them.
//!
//! Mainline runs an attached program for every drop, or counts in `recursion_misses` that it did not.
//! There are patched kernels that skip programs, uncounted, while the current task belongs to PID 1, unless
//! PID 1 owns the program. A softirq that interrupts PID 1 drops packets then which no tracer sees,
//! netdrop or other. The `kfree_skb` trace event of tracefs, which is no BPF program, still shows them, and
//! there were exactly as many of them with PID 1 current as were missing. Such a kernel's `bpf_prog_aux`
//! has the members `init_private` and `init_owned`.

use std::fs;

use crate::lab::say;

/// How often a scenario is run on such a kernel to get one that PID 1 did not disturb.
const ATTEMPTS: u32 = 12;

/// The member of `bpf_prog_aux` that only such kernels have, as a string of their BTF.
const MARK: &[u8] = b"\0init_owned\0";

/// Whether this kernel skips programs without counting.
fn kernel_hides_drops() -> bool {
    let btf = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    btf.windows(MARK.len()).any(|window| window == MARK)
}

/// Runs a scenario whose drops happen in softirqs that may interrupt any task. `run` returns how many
/// drops netdrop neither saw nor reported as missed, and `None` when it was skipped.
///
/// On a kernel that counts what it skips, the first run must be exact. On one that hides drops, a short
/// run is reported and repeated: wrong counting would never be exact, PID 1 is seldom in the way.
#[track_caller]
pub fn repeat_while_short(name: &str, mut run: impl FnMut() -> Option<u64>) {
    let mut short = Vec::new();
    while let Some(missing) = run() {
        if missing == 0 {
            return;
        }
        short.push(missing);
        assert!(kernel_hides_drops(), "{name}: {missing} drops neither seen nor missed");
        say(&format!("NOTE: {name}: {missing} drops hidden by this kernel while PID 1 ran, again"));
        assert!(short.len() < ATTEMPTS as usize, "{name}: short in every run: {short:?}");
    }
}
