//! Packets that arrive in pieces.
//!
//! A piece that waits for the others has lost its device (the kernel puts tree links in its place). When it is
//! dropped, its namespace is unknown unless the kernel gave the device back, and a trace of one namespace would
//! count it as undecidable. All scenarios but the first trace source addresses of their own instead.

use netdrop_tests::family::at;
use netdrop_tests::fragment::Whole;
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_certain, lacks};
use netdrop_tests::{Dropped, Family, Lab, Outcome, Trace, Tracing, hidden, wait};
use serde_json::{Value, json};

/// Pieces that come twice, of a packet that gets complete.
#[test]
fn duplicate() {
    for (name, family) in [("frag-dup", Family::Ipv4), ("frag-dup6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        let receiver = pair.b.udp_socket(&at(pair.b_end.ip, 5601));
        receiver.set_read_timeout(Some(wait::DEADLINE)).expect("set a timeout");
        let tracing = Trace::of(&pair.b).args(&["--all"]).start();

        let whole = Whole::udp(Hop::between(pair.a_end, pair.b_end), 1, 5600, 5601, 792);
        let (first, second) = (whole.piece(0, 400), whole.piece(400, 800));
        pair.a.send_frames("eth0", [&first, &first, &first, &second]);
        assert_eq!(receiver.recv(&mut [0; 1000]).expect("the datagram arrives"), 792);
        let requested = pair.b.mib(family.pick("IpReasmReqds", "Ip6ReasmReqds"));

        tracing.stop().expect(&Dropped {
            cause: "duplicate-data",
            class: "benign",
            netns: &pair.b,
            count: requested - 2,
            packet: json!({"family": family.name(), "proto": "udp", "src": pair.a_end.ip.to_string(),
                "sport": 5600, "dst": pair.b_end.ip.to_string(), "dport": 5601}),
        });
    }
}

/// A pair and a way over it that no other scenario uses, nor this one in another process.
#[track_caller]
fn own_path(lab: &Lab, family: Family, scenario: u8) -> (Pair, Hop) {
    let pair = lab.pair_of(family);
    let [.., high, low] = std::process::id().to_be_bytes();
    let four = format!("100.{}.{high}.{low}", 64 + scenario);
    let six = format!("fd00::{scenario:x}:{high:x}:{low:x}");
    let hop = Hop::between(pair.a_end, pair.b_end).with_src(&family.pick(four, six));
    (pair, hop)
}

/// A trace of what comes from that way's source, wherever it is dropped.
#[track_caller]
fn trace(hop: &Hop) -> Tracing {
    Trace::everywhere().args(&["--src", &hop.src.to_string()]).start()
}

/// Requires that `count` pieces were dropped as `class`, `placed` of them in the namespace of `pair.b`, and
/// the others in one that is not known. Returns how many netdrop does not know of.
#[track_caller]
fn expect_pieces(outcome: &Outcome, pair: &Pair, class: &str, count: u64, placed: u64) -> u64 {
    assert_eq!(outcome.number("shown"), outcome.cause_count("fragment-reassembly"), "other drops");
    let missing = outcome.shortfall("pieces", outcome.cause_count("fragment-reassembly"), count);
    let netns = |event: &&Value| event["netns"]["inode"].clone();
    for event in &outcome.events {
        assert_eq!(event["cause"]["class"], class, "{event}");
        assert!([json!(pair.b.inode()), Value::Null].contains(&netns(&event)), "{event}");
    }
    if missing == 0 {
        let here = outcome.events.iter().filter(|event| netns(event) == pair.b.inode()).count();
        outcome.expect_count("pieces whose namespace is known", here as u64, placed);
    }
    missing
}

/// Sends two pieces of each of three packets of three; returns how many of the drops netdrop does not
/// know of.
fn two_of_three(name: &str, family: Family) -> Option<u64> {
    if lacks("FRAG_REASM_TIMEOUT", name) {
        return None;
    }
    let lab = Lab::new(name, &[])?;
    let (pair, hop) = own_path(&lab, family, 1);
    pair.b.sysctl(family.pick("net/ipv4/ipfrag_time", "net/ipv6/ip6frag_time"), "1");
    let tracing = trace(&hop);

    for id in 1..=3 {
        let whole = Whole::udp(hop, id, 5602, 5603, 1192);
        pair.a.send_frames("eth0", [&whole.piece(0, 400), &whole.piece(400, 800)]);
    }
    let timeouts = family.pick("IpReasmTimeout", "Ip6ReasmTimeout");
    wait::until_counter(timeouts, 3, || pair.b.mib(timeouts));
    let pieces = pair.b.mib(family.pick("IpReasmReqds", "Ip6ReasmReqds"));
    assert_eq!(pieces, 6);

    let outcome = tracing.stop();
    // The first piece gets its device back, for the report to the sender.
    let missing = expect_pieces(&outcome, &pair, "harmful", pieces, 3);
    for event in &outcome.events {
        expect_certain(event);
    }
    Some(missing)
}

#[test]
fn never_completed() {
    for (name, family) in [("frag-time", Family::Ipv4), ("frag-time6", Family::Ipv6)] {
        // The drops happen in a timer, which interrupts whatever runs.
        hidden::repeat_while_short(name, || two_of_three(name, family));
    }
}

#[test]
fn overtaken_by_other_packets() {
    if lacks("FRAG_TOO_FAR", "frag-far") {
        return;
    }
    let Some(lab) = Lab::new("frag-far", &[]) else { return };
    let (pair, hop) = own_path(&lab, Family::Ipv4, 2);
    pair.b.sysctl("net/ipv4/ipfrag_max_dist", "1");
    let tracing = trace(&hop);

    let first = Whole::udp(hop, 1, 5604, 5605, 1192);
    pair.a.send_frames("eth0", [&first.piece(0, 400)]);
    for id in 2..=4 {
        pair.a.send_frames("eth0", [&Whole::udp(hop, id, 5604, 5605, 1192).piece(0, 400)]);
    }
    // Too late: the piece that waited is thrown away, and this one begins anew.
    pair.a.send_frames("eth0", [&first.piece(400, 800)]);
    wait::until_counter("IpReasmFails", 1, || pair.b.mib("IpReasmFails"));

    let missing = expect_pieces(&tracing.stop(), &pair, "suspect", 1, 0);
    assert_eq!(missing, 0, "drops that netdrop does not know of");
}

#[test]
fn pieces_that_overlap() {
    for (name, family) in [("frag-overlap", Family::Ipv4), ("frag-overlap6", Family::Ipv6)] {
        // Older kernels free the piece that waited as one that was given up.
        if lacks("FRAG_REASM_TIMEOUT", name) {
            return;
        }
        let Some(lab) = Lab::new(name, &[]) else { return };
        let (pair, hop) = own_path(&lab, family, 3);
        let tracing = trace(&hop);

        let whole = Whole::udp(hop, 1, 5606, 5607, 1192);
        pair.a.send_frames("eth0", [&whole.piece(0, 400), &whole.piece(200, 600)]);
        let fails = family.pick("IpReasmFails", "Ip6ReasmFails");
        wait::until_counter(fails, 1, || pair.b.mib(fails));

        // The kernel frees the piece that waited as if it had been used.
        let missing = expect_pieces(&tracing.stop(), &pair, "harmful", 1, 1);
        assert_eq!(missing, 0, "drops that netdrop does not know of");
    }
}

#[test]
fn no_memory_for_another_incomplete_packet() {
    for (name, family) in [("frag-memory", Family::Ipv4), ("frag-memory6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let (pair, hop) = own_path(&lab, family, 4);
        let limit = |which| format!("net/{}frag_{which}_thresh", family.pick("ipv4/ip", "ipv6/ip6"));
        pair.b.sysctl(&limit("low"), "1");
        pair.b.sysctl(&limit("high"), "2");
        let tracing = trace(&hop);

        // The first one is let in, since nothing is in use yet.
        for id in 1..=5 {
            pair.a.send_frames("eth0", [&Whole::udp(hop, id, 5608, 5609, 1192).piece(0, 400)]);
        }
        let fails = family.pick("IpReasmFails", "Ip6ReasmFails");
        wait::until_counter(fails, 4, || pair.b.mib(fails));

        let missing = expect_pieces(&tracing.stop(), &pair, "harmful", 4, 4);
        assert_eq!(missing, 0, "drops that netdrop does not know of");
    }
}
