//! A million drops, counted to the packet.

use std::sync::{Mutex, PoisonError};

use netdrop_tests::flood::{Flood, cpus};
use netdrop_tests::{Lab, Trace, hidden, volume, wait};

/// Drops of one run, on a machine that is not emulated.
const MILLION: u64 = 1_000_000;

/// One flood at a time: the machine's CPUs belong to it.
static ALONE: Mutex<()> = Mutex::new(());

/// Floods a rule from `senders` CPUs; returns how many drops netdrop neither counted nor reported missed.
fn million(name: &str, senders: usize, args: &[&str]) -> Option<u64> {
    let lab = Lab::new(name, &["nft"])?;
    let count = volume::of(MILLION);
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let cpus = cpus();
    // On a machine with one CPU the threads share it.
    let flood =
        |sender: usize| Flood::new("127.0.0.1:9", count / senders as u64).on_cpu(cpus[sender % cpus.len()]);
    let floods: Vec<Flood> = (0..senders).map(flood).collect();
    let tracing = Trace::of(&netns).args(args).keep_events(20).start();

    Flood::send_all(&floods, &netns);
    let by_rule = wait::until_stable("the rule's counter", || netns.nft_packets("input"));
    // A full per-CPU backlog drops before the rule: the device counts these.
    let by_device = netns.rx_dropped("lo");
    assert_eq!(by_rule + by_device, count, "sent");

    let outcome = tracing.stop();
    assert_eq!(outcome.netns_count(&netns), outcome.number("seen"));
    assert_eq!(outcome.cause_count("cpu-backlog-full"), by_device);
    outcome.shortfall("netfilter-rule", outcome.cause_count("netfilter-rule"), by_rule).into()
}

/// Requires that netdrop counted what the rule counted.
fn counts_a_million(name: &str, senders: usize, args: &[&str]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    hidden::repeat_while_short(name, || million(name, senders, args));
}

#[test]
fn from_one_cpu() {
    counts_a_million("million-1", 1, &[]);
}

#[test]
fn from_two_cpus() {
    counts_a_million("million-2", 2, &[]);
}

#[test]
fn from_one_cpu_summary_only() {
    counts_a_million("million-1s", 1, &["--summary-only"]);
}

#[test]
fn from_two_cpus_summary_only() {
    counts_a_million("million-2s", 2, &["--summary-only"]);
}
