//! Several namespaces at once.

use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Netns, Trace, wait};
use serde_json::json;

/// Sends datagrams to a closed port over `lo` and waits until the kernel has counted them.
fn provoke(netns: &Netns, sport: u16, count: u64) {
    let before = netns.mib("UdpNoPorts");
    let socket = netns.udp_socket(&format!("127.0.0.1:{sport}"));
    send_udp(&socket, "127.0.0.1:9", count, 8);
    wait::until_counter("UdpNoPorts", before + count, || netns.mib("UdpNoPorts"));
}

/// Drops of [`provoke`].
fn dropped(netns: &Netns, sport: u16, count: u64) -> Dropped<'_> {
    Dropped {
        cause: "port-closed",
        class: "suspect",
        netns,
        count,
        packet: json!({"src": "127.0.0.1", "sport": sport, "dst": "127.0.0.1", "dport": 9}),
    }
}

#[test]
fn two_traces_see_only_their_own() {
    let Some(lab) = Lab::new("two-traces", &[]) else { return };
    let (red, blue) = (lab.netns("red"), lab.netns("blue"));
    let (tracing_red, tracing_blue) = (Trace::of(&red).start(), Trace::of(&blue).start());

    for _ in 0..10 {
        provoke(&red, 5701, 3);
        provoke(&blue, 5702, 2);
    }

    let (outcome_red, outcome_blue) = (tracing_red.stop(), tracing_blue.stop());
    outcome_red.expect(&dropped(&red, 5701, 30));
    outcome_blue.expect(&dropped(&blue, 5702, 20));
    for (outcome, other) in [(&outcome_red, &blue), (&outcome_blue, &red)] {
        assert_eq!(outcome.netns_count(other), 0);
        assert!(outcome.events.iter().all(|event| event["netns"]["inode"] != other.inode()));
    }
}

#[test]
fn one_trace_tells_namespaces_apart() {
    let Some(lab) = Lab::new("one-trace", &[]) else { return };
    let (red, blue) = (lab.netns("red"), lab.netns("blue"));
    let tracing = Trace::everywhere().start();

    for _ in 0..10 {
        provoke(&red, 5703, 3);
        provoke(&blue, 5704, 2);
    }

    let outcome = tracing.stop();
    // The machine's other drops are in the totals too, so only these rows and events are judged.
    for (netns, sport, count) in [(&red, 5703, 30), (&blue, 5704, 20)] {
        outcome.expect_count(netns.name(), outcome.netns_count(netns), count);
        let events = outcome.events_of("port-closed", netns);
        assert!(events.iter().all(|event| event["packet"]["sport"] == sport));
        if outcome.number("lost") == 0 {
            outcome.expect_count("events", events.len() as u64, count);
        }
    }
}

#[test]
fn a_namespace_made_during_the_trace_is_named() {
    let Some(lab) = Lab::new("late", &[]) else { return };
    let tracing = Trace::everywhere().start();
    let late = lab.netns("late");
    let inode = late.inode();
    // Looking for names costs, so it is done now and then: the first drops may come before it.
    let mut sent = 0;
    wait::until("a drop with the new namespace's name", || {
        provoke(&late, 5705, 1);
        sent += 1;
        let named = tracing
            .find_event(|event| event["netns"]["inode"] == inode && event["netns"]["name"] == late.name());
        named.ok_or_else(|| format!("none of {sent} has it"))
    });
    let outcome = tracing.stop();
    outcome.expect_count(late.name(), outcome.netns_count(&late), sent);
    let rows = outcome.summary["netns"].as_array().into_iter().flatten();
    let names: Vec<_> = rows.filter(|row| row["inode"] == inode).map(|row| &row["name"]).collect();
    assert_eq!(names, [late.name()]);
}
