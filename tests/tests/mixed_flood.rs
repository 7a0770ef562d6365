//! Drops that interrupt drops: process context and softirq on one CPU, where the kernel skips a tracing
//! program that interrupts itself.

use std::fs;
use std::sync::{Mutex, PoisonError};

use netdrop_tests::flood::{Flood, cpus};
use netdrop_tests::{Lab, Netns, Trace, hidden, lab, volume, wait};

/// Datagrams dropped on their way out, in process context, and as many on their way in, in softirq.
const EACH: u64 = 300_000;

/// As few as still nest. A shorter flood is less likely to be disturbed by what hides drops.
const FEWEST: u64 = 20_000;

/// One flood at a time: the machine's CPUs belong to it.
static ALONE: Mutex<()> = Mutex::new(());

/// What the kernel counted of the flood. Every packet sent is in one of these, or still queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// By the rule of the output hook.
    output: u64,
    /// By the rule of the input hook.
    input: u64,
    /// By the device, when the per-CPU backlog was full.
    backlog: u64,
}

impl Counted {
    fn read(netns: &Netns) -> Self {
        Self {
            output: netns.nft_packets("output"),
            input: netns.nft_packets("input"),
            backlog: netns.rx_dropped("lo"),
        }
    }

    fn sum(self) -> u64 {
        self.output + self.input + self.backlog
    }
}

/// Packets that wait in the backlogs of all CPUs: the `backlog_len` column of softnet_stat, since 5.14.
fn queued() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let length = |line: &str| u64::from_str_radix(line.split_whitespace().nth(11)?, 16).ok();
    table.lines().filter_map(length).sum()
}

/// Runs the flood, `each` way, with netdrop's `args`; returns how many drops are neither in `seen` nor in `missed`.
fn mixed_flood(name: &str, args: &[&str], each: u64) -> Option<u64> {
    let lab = Lab::new(name, &["nft"])?;
    let cpus = cpus();
    let [shared, sender, ..] = cpus[..] else {
        lab::skip_for_cpus(name, 2);
        return None;
    };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    netns.nft_drop("output", "udp dport 10");
    // What `sender` sends over lo is received on `shared`, in a softirq that interrupts the other flood.
    let mask = format!("{:x}\n", 1_u64 << shared);
    netns.run_with_input("tee /sys/class/net/lo/queues/rx-0/rps_cpus", &mask);
    let floods =
        [Flood::new("127.0.0.1:10", each).on_cpu(shared), Flood::new("127.0.0.1:9", each).on_cpu(sender)];
    let tracing = Trace::of(&netns).args(args).keep_events(20).start();

    Flood::send_all(&floods, &netns);
    let counted = wait::until_stable("the kernel's counters", || Counted::read(&netns));
    wait::until("the backlogs are empty", || if queued() == 0 { Ok(()) } else { Err(queued().to_string()) });

    let outcome = tracing.stop();
    assert_eq!(counted.sum(), 2 * each, "every datagram is in one of {counted:?}");
    let missing = outcome.shortfall(&format!("{counted:?}"), outcome.number("seen"), counted.sum());
    if outcome.number("missed") == 0 {
        lab::say(&format!("NOTE: {name}: no drop interrupted another, or this kernel does not count it"));
    }
    // The backlog drops in the sender's own context: never nested, never interrupted by itself.
    assert_eq!(outcome.cause_count("cpu-backlog-full"), counted.backlog);
    Some(missing)
}

/// Holds `seen + missed` against the kernel.
fn accounts_for_nested_drops(name: &str, args: &[&str]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut each = volume::of(EACH);
    hidden::repeat_while_short(name, || {
        let missing = mixed_flood(name, args, each);
        each = (each / 2).max(volume::of(FEWEST));
        missing
    });
}

#[test]
fn with_events() {
    accounts_for_nested_drops("mixed", &[]);
}

#[test]
fn summary_only() {
    accounts_for_nested_drops("mixed-summary", &["--summary-only"]);
}
