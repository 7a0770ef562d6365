//! Packets for a neighbour that does not answer, or for which there is no room.

use netdrop_tests::family::at;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::expect_certain;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, hidden, wait};
use serde_json::{Value, json};

/// What every datagram of these scenarios looks like; where it goes to follows from the scenario.
fn packet(pair: &Pair, family: Family) -> Value {
    json!({"family": family.name(), "proto": "udp", "src": pair.a_end.ip.to_string(), "sport": 5500,
        "dport": 5501, "len": family.header_len() + 8 + 64})
}

/// The `number`th address of the pair's network that nobody has.
fn nobody(family: Family, number: u16) -> String {
    let ip = family.pick(format!("10.0.0.{}", 100 + number), format!("fd00::{:x}", 0x100 + number));
    at(ip.parse().expect("an address"), 5501)
}

/// A setting of `eth0` for its neighbours.
#[track_caller]
fn neigh_sysctl(netns: &Netns, family: Family, name: &str, value: &str) {
    netns.sysctl(&format!("net/{}/neigh/eth0/{name}", family.name()), value);
}

/// Entries that the table of the machine may hold.
#[track_caller]
fn limit(family: Family) -> u64 {
    let path = format!("/proc/sys/net/{}/neigh/default/gc_thresh3", family.name());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    text.trim().parse().unwrap_or_else(|error| panic!("{error} in {path}: {text}"))
}

/// How many datagrams the host told itself it could not deliver: those that waited to the end.
fn given_up(pair: &Pair, family: Family) -> u64 {
    pair.a.mib(family.pick("IcmpOutDestUnreachs", "Icmp6OutDestUnreachs"))
}

/// Sends three datagrams to nobody; returns how many of the drops netdrop does not know of.
fn neighbour_that_does_not_answer(name: &str, family: Family) -> Option<u64> {
    let lab = Lab::new(name, &[])?;
    let pair = lab.pair_of(family);
    // One question and a short wait for the answer, instead of three seconds.
    neigh_sysctl(&pair.a, family, "mcast_solicit", "1");
    neigh_sysctl(&pair.a, family, "retrans_time_ms", "100");
    let tracing = Trace::of(&pair.a).start();

    let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5500));
    send_udp(&socket, &nobody(family, 1), 3, 64);
    wait::until_counter("datagrams given up", 3, || given_up(&pair, family));

    let outcome = tracing.stop();
    let missing = outcome.shortfall("seen", outcome.cause_count("neighbour-unresolved"), 3);
    if missing == 0 {
        let event = outcome.expect(&Dropped {
            cause: "neighbour-unresolved",
            class: "harmful",
            netns: &pair.a,
            count: 3,
            packet: packet(&pair, family),
        });
        assert_eq!(event["interface"]["name"], "eth0");
        expect_certain(event);
        let evidence = &event["evidence"]["neighbour"];
        assert_eq!(evidence["limit"], limit(family), "{event}");
        assert!(evidence["entries"].as_u64() > Some(0), "{event}");
    }
    Some(missing)
}

#[test]
fn neighbour_unresolved() {
    for (name, family) in [("neighbour", Family::Ipv4), ("neighbour6", Family::Ipv6)] {
        // The drops happen in a timer, which interrupts whatever runs.
        hidden::repeat_while_short(name, || neighbour_that_does_not_answer(name, family));
    }
}

#[test]
fn neighbour_that_may_not_be_asked_for() {
    for (name, family) in [("neigh-mute", Family::Ipv4), ("neigh-mute6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &["nft"]) else { return };
        let pair = lab.pair_of(family);
        neigh_sysctl(&pair.a, family, "mcast_solicit", "0");
        pair.a.nft_count("udp dport 5501");
        let tracing = Trace::of(&pair.a).start();

        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5500));
        send_udp(&socket, &nobody(family, 1), 4, 64);
        assert_eq!(pair.a.nft_packets("postrouting"), 4);

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "neighbour-unresolved",
            class: "harmful",
            netns: &pair.a,
            count: 4,
            packet: packet(&pair, family),
        });
        assert_eq!(event["evidence"]["neighbour"]["state"], "FAILED", "{event}");
    }
}

/// Sends more to nobody than may wait for an answer; returns how many of the drops netdrop does not know of.
fn more_than_may_wait(name: &str, family: Family) -> Option<u64> {
    const SENT: u64 = 20;
    let lab = Lab::new(name, &["nft"])?;
    let pair = lab.pair_of(family);
    neigh_sysctl(&pair.a, family, "unres_qlen_bytes", "4000");
    neigh_sysctl(&pair.a, family, "mcast_solicit", "1");
    neigh_sysctl(&pair.a, family, "retrans_time_ms", "300");
    pair.a.nft_count("udp dport 5501");
    let tracing = Trace::of(&pair.a).start();

    let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5500));
    send_udp(&socket, &nobody(family, 1), SENT, 64);
    assert_eq!(pair.a.nft_packets("postrouting"), SENT);
    wait::until("datagrams given up", || match given_up(&pair, family) {
        0 => Err("none".to_owned()),
        some => Ok(some),
    });
    let waited = wait::until_stable("datagrams given up", || given_up(&pair, family));
    assert!(waited < SENT, "the queue was not full");

    let outcome = tracing.stop();
    let missing = outcome.shortfall("seen", outcome.cause_count("neighbour-unresolved"), waited);
    let event = outcome.expect(&Dropped {
        cause: "neighbour-queue-full",
        class: "harmful",
        netns: &pair.a,
        count: SENT - waited,
        packet: packet(&pair, family),
    });
    expect_certain(event);
    assert_eq!(event["evidence"]["neighbour"]["queue_limit"], 4000, "{event}");
    assert_eq!(event["evidence"]["neighbour"]["state"], "INCOMPLETE", "{event}");
    Some(missing)
}

#[test]
fn neighbour_queue_full() {
    for (name, family) in [("neigh-queue", Family::Ipv4), ("neigh-queue6", Family::Ipv6)] {
        // The last ones to wait are given up in a timer.
        hidden::repeat_while_short(name, || more_than_may_wait(name, family));
    }
}

#[test]
fn neighbour_table_full() {
    for (name, family) in [("neigh-table", Family::Ipv4), ("neigh-table6", Family::Ipv6)] {
        const SENT: u16 = 64;
        let Some(lab) = Lab::alone(name, &[]) else { return };
        let pair = lab.pair_of(family);
        // Left to a daemon that is not there: a question to a multicast group would make an entry that may
        // go at once, and so room for the next neighbour.
        neigh_sysctl(&pair.a, family, "mcast_solicit", "0");
        neigh_sysctl(&pair.a, family, "app_solicit", "1");
        let tracing = Trace::of(&pair.a).start();
        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5500));
        let discards = family.pick("IpOutDiscards", "Ip6OutDiscards");
        let before = table_fulls(family);

        let mut refused = 0;

        // The table is one for the machine: it is full for the blink of an eye only. The threshold that
        // starts a search for old entries is out of the way, so that nobody's entries go.
        {
            let key = |which| format!("net/{}/neigh/default/gc_thresh{which}", family.name());
            let _middle = lab.global_sysctl(&key(2), "100000");
            let _limit = lab.global_sysctl(&key(3), "1");
            for number in 0..SENT {
                let sent = socket.send_to(&[0; 64], nobody(family, number));
                refused += u64::from(sent.is_err());
            }
        }

        let dropped = pair.a.mib(discards);
        // IPv4 tells the sender nothing, IPv6 that its argument is invalid.
        assert_eq!(refused, family.pick(0, dropped));
        assert!(dropped > 0 && dropped <= u64::from(SENT), "{discards}: {dropped}");
        assert!(table_fulls(family) >= before + dropped, "table_fulls");
        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "neighbour-table-full",
            class: "harmful",
            netns: &pair.a,
            count: dropped,
            packet: packet(&pair, family),
        });
        let evidence = &event["evidence"]["neighbour"];
        assert_eq!(evidence["limit"], 1, "{event}");
        assert!(evidence["entries"].as_u64() >= Some(1), "{event}");
    }
}

/// How often the neighbour table of the machine was full.
#[track_caller]
fn table_fulls(family: Family) -> u64 {
    let path = family.pick("/proc/net/stat/arp_cache", "/proc/net/stat/ndisc_cache");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let column = lines
        .next()
        .and_then(|mut names| names.position(|name| name == "table_fulls"))
        .unwrap_or_else(|| panic!("no table_fulls in {path}"));
    // One line per CPU, hexadecimal.
    lines
        .map(|mut values| {
            let value = values.nth(column).unwrap_or_default();
            u64::from_str_radix(value, 16).unwrap_or_else(|error| panic!("{error} in {path}: {value}"))
        })
        .sum()
}
