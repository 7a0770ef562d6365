//! Packets that are lost where connections are tracked: a full table, and INVALID packets that a rule drops. Plain
//! rules beside them stay plain rules.

use std::net::{IpAddr, SocketAddr};

use etherparse::TcpHeader;
use netdrop_tests::firewall::unread;
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Routed;
use netdrop_tests::traffic::{Sent, send_udp};
use netdrop_tests::{Dropped, Family, Lab, Netns, Outcome, Trace, wait};
use serde_json::{Value, json};

/// Destination port of packets that are lost.
const PORT: u16 = 9000;

/// Packets that each scenario sends.
const COUNT: u64 = 5;

/// A segment from `a` to `to` that belongs to no connection.
#[track_caller]
fn stray(routed: &Routed, to: IpAddr, sport: u16) -> Vec<u8> {
    let mut hop = Hop::between(routed.a_end, routed.left);
    hop.dst = to;
    let header = TcpHeader { ack: true, ..TcpHeader::new(sport, PORT, 1, 64240) };
    let mut frame = Vec::new();
    hop.ip(64).tcp_header(header).write(&mut frame, &[]).expect("a segment fits a vector");
    frame
}

/// A datagram from `a` to `to`.
#[track_caller]
fn datagram(routed: &Routed, to: IpAddr, sport: u16) -> Vec<u8> {
    let mut hop = Hop::between(routed.a_end, routed.left);
    hop.dst = to;
    hop.udp(64, sport, PORT, b"netdrop")
}

/// A namespace that calls INVALID whatever belongs to no connection.
#[track_caller]
fn be_strict(netns: &Netns) {
    netns.track();
    netns.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0");
}

#[test]
fn table_full() {
    full(Family::Ipv4);
}

#[test]
fn table_full_over_ipv6() {
    full(Family::Ipv6);
}

/// One limit for the whole machine, and a namespace that has reached it.
fn full(family: Family) {
    let Some(lab) = Lab::alone(&format!("full-{}", family.name()), &["nft"]) else { return };
    let routed = lab.routed_of(family);
    routed.r.track();
    // An emulated machine takes its time, and the table must stay full.
    routed.r.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600");
    // No answer: it would be tracked as well.
    routed.b.nft_drop("prerouting", &format!("udp dport {PORT}"));
    // Others on this machine have room all the same.
    let limit = 200
        + 2 * std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
            .map_or(0, |count| count.trim().parse::<u64>().unwrap_or_default());
    let _limit = lab.global_sysctl("net/netfilter/nf_conntrack_max", &limit.to_string());
    let tracing = Trace::of(&routed.r).start();

    let ports = 10_000..10_000 + (limit + 100) as u16;
    let frames: Vec<Vec<u8>> = ports.map(|port| datagram(&routed, routed.b_end.ip, port)).collect();
    routed.a.send_frames("eth0", &frames);
    let lost = || routed.r.conntrack("drop");
    wait::until("all datagrams", || match routed.b.nft_packets("prerouting") + lost() {
        all if all == frames.len() as u64 => Ok(()),
        some => Err(format!("{some} of {}", frames.len())),
    });
    let forwarded = lost();
    assert!(forwarded > 0, "the table is not full");
    let to = SocketAddr::new(routed.b_end.ip, PORT).to_string();
    // The kernel may make room for a connection by giving up another one nearby: the next one is refused, then.
    let refused = wait::until("a connection that is refused", || {
        let socket = routed.r.udp_socket(&SocketAddr::new(routed.right.ip, 0).to_string());
        match send_udp(&socket, &to, COUNT, 8) {
            Sent { refused: 0, .. } => Err("the table has room again".to_owned()),
            Sent { refused, .. } => Ok(refused),
        }
    });
    assert_eq!(lost(), forwarded + refused, "the sender is told");
    assert_eq!(routed.r.conntrack("insert_failed"), 0);

    let outcome = tracing.stop();
    outcome.expect_named(&Dropped {
        cause: "conntrack-table-full",
        class: "harmful",
        netns: &routed.r,
        count: lost(),
        packet: json!({"family": family.name(), "proto": "udp", "dst": routed.b_end.ip, "dport": PORT}),
    });
    outcome.expect_count("all drops", outcome.events_with("udp"), lost());
    for event in outcome.events_of("conntrack-table-full", &routed.r) {
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        let conntrack = &event["evidence"]["conntrack"];
        assert_eq!(conntrack["max"], limit, "{event}");
        assert!(conntrack["count"].as_u64().is_some_and(|count| count >= limit), "{event}");
    }
    let directions = ["in", "out"]
        .map(|way| outcome.events.iter().filter(|event| event["direction"] == way).count() as u64);
    outcome.expect_count("on their way through", directions[0], forwarded);
    outcome.expect_count("on their way out", directions[1], refused);
}

/// Where a rule drops INVALID packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Forward,
    Input,
}

impl At {
    /// Hook, direction, and address of packets that come there.
    fn place(self, routed: &Routed) -> (&'static str, &'static str, IpAddr) {
        match self {
            Self::Forward => ("forward", "forward", routed.b_end.ip),
            Self::Input => ("input", "in", routed.left.ip),
        }
    }
}

#[test]
fn invalid_in_forward() {
    invalid("invalid-forward", Family::Ipv4, At::Forward);
}

#[test]
fn invalid_in_forward_over_ipv6() {
    invalid("invalid-forward6", Family::Ipv6, At::Forward);
}

#[test]
fn invalid_in_input() {
    invalid("invalid-input", Family::Ipv4, At::Input);
}

#[test]
fn invalid_in_input_over_ipv6() {
    invalid("invalid-input6", Family::Ipv6, At::Input);
}

fn invalid(name: &str, family: Family, at: At) {
    let Some(lab) = Lab::new(name, &["nft"]) else { return };
    let routed = lab.routed_of(family);
    let (hook, direction, to) = at.place(&routed);
    be_strict(&routed.r);
    routed.r.nft_drop(hook, "ct state invalid");
    let tracing = Trace::of(&routed.r).start();

    routed.a.send_frames("eth0", &vec![stray(&routed, to, 5100); COUNT as usize]);
    wait::until_counter("invalid", COUNT, || routed.r.conntrack("invalid"));
    wait::until_counter("the rule's counter", COUNT, || routed.r.nft_packets(hook));

    let outcome = tracing.stop();
    outcome.expect_named(&Dropped {
        cause: "conntrack-invalid",
        class: "suspect",
        netns: &routed.r,
        count: COUNT,
        packet: json!({"family": family.name(), "proto": "tcp", "tcp_flags": ".", "sport": 5100,
            "src": routed.a_end.ip, "dst": to, "dport": PORT}),
    });
    outcome.expect_count("all drops", outcome.events_with("tcp"), COUNT);
    for event in outcome.events_of("conntrack-invalid", &routed.r) {
        assert_eq!(event["direction"], direction, "{event}");
        let netfilter = &event["evidence"]["netfilter"];
        assert_eq!(netfilter["hook"], hook, "{event}");
        assert_eq!(netfilter["family"], family.pick("ip", "ip6"), "{event}");
        let told = ["table", "chain", "verdict"].map(|field| &netfilter[field]);
        assert!(told == ["ndt", hook, "drop"] || unread(event), "{event}");
    }
}

/// Requires that all these drops were a rule's, and nothing else's.
#[track_caller]
fn expect_rule(outcome: &Outcome, router: &Netns, count: u64, packet: Value) {
    outcome.expect_named(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: router,
        count,
        packet,
    });
    outcome.expect_count("all drops", outcome.number("seen"), count);
}

/// Sends strays and datagrams from `a` to `b` in turn, by one CPU after the other, and waits until `dropped` counts
/// all datagrams and the router has called all strays INVALID.
#[track_caller]
fn send_in_turn(routed: &Routed, dropped: &str) {
    let pairs = (5100..5100 + COUNT as u16)
        .flat_map(|port| [stray(routed, routed.b_end.ip, port), datagram(routed, routed.b_end.ip, port)]);
    routed.a.send_frames("eth0", &pairs.collect::<Vec<_>>());
    wait::until_counter("the rule's counter", COUNT, || routed.r.nft_packets(dropped));
    wait::until_counter("invalid", COUNT, || routed.r.conntrack("invalid"));
    assert_eq!(routed.r.conntrack("drop") + routed.r.conntrack("insert_failed"), 0);
}

/// INVALID packets pass, and a rule drops others, which are tracked.
#[test]
fn rule_beside_invalid_packets_that_pass() {
    for hook in ["forward", "postrouting"] {
        let Some(lab) = Lab::new(&format!("beside-{hook}"), &["nft"]) else { return };
        let routed = lab.routed();
        be_strict(&routed.r);
        routed.b.nft_drop("prerouting", &format!("tcp dport {PORT}"));
        routed.r.nft_drop(hook, &format!("ct state new udp dport {PORT}"));
        let tracing = Trace::of(&routed.r).start();
        send_in_turn(&routed, hook);
        let packet = json!({"proto": "udp", "src": "10.1.0.2", "dport": PORT});
        expect_rule(&tracing.stop(), &routed.r, COUNT, packet);
    }
}

/// INVALID packets pass, and a rule drops others that are not to be tracked: these have no entry either.
#[test]
fn rule_for_untracked_packets_beside_invalid_ones() {
    let Some(lab) = Lab::new("beside-exempt", &["nft"]) else { return };
    let routed = lab.routed();
    routed.r.nft(&format!(
        "table inet ndt-exempt {{
            chain prerouting {{
                type filter hook prerouting priority raw; policy accept;
                udp dport {PORT} notrack
            }}
        }}"
    ));
    let outcome = beside_strays(&routed, "forward priority 0");
    let packet = json!({"proto": "udp", "src": "10.1.0.2", "dport": PORT});
    expect_rule(&outcome, &routed.r, COUNT, packet);
}

/// INVALID packets pass, and a rule drops others before connection tracking has seen them. Where only counters tell,
/// these look as if they were the INVALID ones: then netdrop must not claim to have observed it.
#[test]
fn rule_before_tracking_beside_invalid_packets() {
    let Some(lab) = Lab::new("beside-early", &["nft"]) else { return };
    let routed = lab.routed();
    let outcome = beside_strays(&routed, "prerouting priority raw");
    outcome.expect_count("drops", outcome.number("seen"), COUNT);
    for event in &outcome.events {
        let cause = &event["cause"];
        assert!(cause["id"] == "netfilter-rule" || cause["confidence"] == "inferred", "{event}");
        assert_eq!(event["packet"]["proto"], "udp", "{event}");
    }
}

/// A trace of what a rule at `hook` drops while INVALID packets pass.
#[track_caller]
fn beside_strays(routed: &Routed, hook: &str) -> Outcome {
    be_strict(&routed.r);
    routed.b.nft_drop("prerouting", &format!("tcp dport {PORT}"));
    routed.r.nft(&format!(
        "table inet ndt {{
            counter dropped {{ }}
            chain dropping {{
                type filter hook {hook}; policy accept;
                udp dport {PORT} counter name dropped drop
            }}
        }}"
    ));
    let tracing = Trace::of(&routed.r).start();
    send_in_turn(routed, "dropped");
    tracing.stop()
}

/// Packets that open connections and that a plain rule drops, at each hook.
#[test]
fn rule_for_new_connections() {
    for (hook, at) in [
        ("prerouting", At::Forward),
        ("input", At::Input),
        ("forward", At::Forward),
        ("postrouting", At::Forward),
    ] {
        let Some(lab) = Lab::new(&format!("new-{hook}"), &["nft"]) else { return };
        let routed = lab.routed();
        routed.r.track();
        // Behind connection tracking, where it is at the same hook.
        routed.r.nft_drop(hook, &format!("ct state new udp dport {PORT}"));
        let (_, _, to) = at.place(&routed);
        let tracing = Trace::of(&routed.r).start();

        let ports = 5100..5100 + COUNT as u16;
        let frames: Vec<Vec<u8>> = ports.map(|port| datagram(&routed, to, port)).collect();
        routed.a.send_frames("eth0", &frames);
        wait::until_counter("the rule's counter", COUNT, || routed.r.nft_packets(hook));

        let outcome = tracing.stop();
        let packet = json!({"proto": "udp", "src": "10.1.0.2", "dst": to, "dport": PORT});
        expect_rule(&outcome, &routed.r, COUNT, packet);
        assert!(outcome.events.iter().all(|event| event["evidence"]["netfilter"]["hook"] == hook));
        assert_eq!(outcome.number("resolved_clashes"), 0);
    }
}
