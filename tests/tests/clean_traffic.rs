//! Traffic without a problem: netdrop must not see one.

use std::net::UdpSocket;
use std::thread;

use netdrop_tests::dialogue::{self, CLIENTS, QUESTION};
use netdrop_tests::family::at;
use netdrop_tests::link::Pair;
use netdrop_tests::wait::DEADLINE;
use netdrop_tests::{Family, Lab, Outcome, Trace, Tracing, volume};

/// Connections, and exchanges of datagrams, on a machine that is not emulated.
const COUNT: u64 = 10_000;

/// Events to keep: all.
const KEPT: usize = 10 * COUNT as usize;

/// Bytes of an answer over UDP.
const DATAGRAM_ANSWER: usize = 400;

/// Acknowledgments that may come after their connection has ended: where a program moves to another CPU
/// between two segments, the later one can overtake the earlier, and nothing tells that one from a segment of a
/// connection that was never there.
const OVERTAKEN: u64 = COUNT / 1000;

/// Requires of a trace that nothing looked like a problem: what closing sockets leave behind is benign.
#[track_caller]
fn expect_clean(tracing: Tracing) -> Outcome {
    let outcome = tracing.stop();
    let odd: Vec<_> = outcome.events.iter().filter(|event| event["cause"]["class"] != "benign").collect();
    for row in outcome.summary["causes"].as_array().into_iter().flatten() {
        let overtaken = row["class"] == "suspect"
            && row["id"] == "connection-teardown"
            && row["count"].as_u64().is_some_and(|count| count <= OVERTAKEN);
        assert!(row["class"] == "benign" || overtaken, "{row}: {odd:?}");
    }
    for event in odd {
        assert_eq!(event["packet"]["tcp_flags"], ".", "{event}");
    }
    outcome
}

#[test]
fn ten_thousand_connections() {
    let Some(lab) = Lab::new("clean-tcp", &[]) else { return };
    connections(&lab.pair(), "10.0.0.2:8000");
}

#[test]
fn ten_thousand_connections_over_ipv6() {
    let Some(lab) = Lab::new("clean-tcp6", &[]) else { return };
    connections(&lab.pair_with_ipv6(), "[fd00::2]:8000");
}

fn connections(pair: &Pair, address: &str) {
    let traces = [&pair.a, &pair.b].map(|netns| Trace::of(netns).args(&["--all"]).keep_events(KEPT).start());
    dialogue::connections(&pair.a, &pair.b, address, volume::of(COUNT));
    traces.into_iter().for_each(|tracing| drop(expect_clean(tracing)));
}

#[test]
fn ten_thousand_connections_through_nat() {
    through_nat("clean-nat", Family::Ipv4);
}

#[test]
fn ten_thousand_connections_through_nat_over_ipv6() {
    through_nat("clean-nat6", Family::Ipv6);
}

/// A router that translates: new entries, closed ones and reused ports by the thousands.
fn through_nat(name: &str, family: Family) {
    let Some(lab) = Lab::new(name, &["nft"]) else { return };
    let routed = lab.routed_of(family);
    routed.r.nft(&format!(
        "table {} ndt-nat {{
            chain postrouting {{
                type nat hook postrouting priority 100
                oifname \"right\" masquerade
            }}
        }}",
        family.pick("ip", "ip6")
    ));
    let address = at(routed.b_end.ip, 8000);
    let traces = [&routed.a, &routed.r, &routed.b]
        .map(|netns| Trace::of(netns).args(&["--all"]).keep_events(KEPT).start());

    dialogue::connections(&routed.a, &routed.b, &address, volume::of(COUNT));

    assert!(routed.r.conntrack("insert_failed") + routed.r.conntrack("drop") == 0, "a clash or a full table");
    for outcome in traces.map(expect_clean) {
        assert_eq!(outcome.number("resolved_clashes"), 0);
    }
}

#[test]
fn ten_thousand_exchanges_of_datagrams() {
    let Some(lab) = Lab::new("clean-udp", &[]) else { return };
    exchanges(&lab.pair(), "10.0.0.2:53", "10.0.0.1:0", "UdpInDatagrams");
}

#[test]
fn ten_thousand_exchanges_of_datagrams_over_ipv6() {
    let Some(lab) = Lab::new("clean-udp6", &[]) else { return };
    exchanges(&lab.pair_with_ipv6(), "[fd00::2]:53", "[fd00::1]:0", "Udp6InDatagrams");
}

/// As resolvers ask name servers: every question from a socket and a port of its own.
fn exchanges(pair: &Pair, address: &str, from: &str, received: &str) {
    let server = pair.b.udp_socket(address);
    let count = volume::of(COUNT);
    let traces = [&pair.a, &pair.b].map(|netns| Trace::of(netns).args(&["--all"]).keep_events(KEPT).start());

    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..count / CLIENTS {
                    let mut question = [0; QUESTION];
                    let (len, client) = server.recv_from(&mut question).expect("a question");
                    assert_eq!(len, QUESTION);
                    server.send_to(&[b'a'; DATAGRAM_ANSWER], client).expect("an answer is sent");
                }
            });
            scope.spawn(|| {
                pair.a.enter(|| {
                    for _ in 0..count / CLIENTS {
                        let socket = UdpSocket::bind(from).expect("a free port");
                        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout that is not 0");
                        socket.connect(address).expect("a route");
                        socket.send(&[b'q'; QUESTION]).expect("a question is sent");
                        let mut answer = [0; 512];
                        assert_eq!(socket.recv(&mut answer).expect("an answer in time"), DATAGRAM_ANSWER);
                    }
                });
            });
        }
    });

    assert_eq!([&pair.a, &pair.b].map(|netns| netns.mib(received)), [count; 2]);
    traces.into_iter().for_each(|tracing| drop(expect_clean(tracing)));
}
