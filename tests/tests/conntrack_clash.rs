//! Connections that connection tracking cannot enter into its table because another one is there already: clashes,
//! and source ports that are all taken.

use std::net::{IpAddr, SocketAddr};

use netdrop_tests::firewall::{Hook, To, Tool, Verdict};
use netdrop_tests::frame::Hop;
use netdrop_tests::lab::skip_for_kernel;
use netdrop_tests::link::Routed;
use netdrop_tests::listen::half_open;
use netdrop_tests::tracking::Connection;
use netdrop_tests::{Dropped, Family, Lab, Outcome, Trace, doctor, wait};
use serde_json::json;

/// Source port of held packets, and the first one of many.
const FROM: u16 = 5100;

/// Destination port.
const PORT: u16 = 9000;

/// The one source port that a router may use.
const ONLY: u16 = 5000;

/// Packets that are held.
const HELD: usize = 3;

/// Where packets go, and what the router does with their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To `b`, as they are.
    Through,
    /// To `b`, with the router's address as source.
    Masquerade,
    /// To the router's address, which gives them to `b`.
    Dnat,
    /// To a program of the router.
    Here,
    /// The same, held at the hook where the entry is made: who lets it go on makes it.
    HereHeldLast,
}

impl Way {
    /// Whether packets are for the router itself.
    fn is_here(self) -> bool {
        matches!(self, Self::Here | Self::HereHeldLast)
    }

    /// Table and hook where packets are held.
    fn held_at(self) -> (&'static str, Hook) {
        match self {
            Self::Here => ("mangle", Hook::Prerouting),
            Self::HereHeldLast => ("filter", Hook::Input),
            _ => ("filter", Hook::Forward),
        }
    }
}

/// Packets of one connection that have met in a router.
struct Met {
    routed: Routed,
    outcome: Outcome,
    connection: Connection,
    /// Packets that came to where they go.
    arrived: u64,
}

/// Lets several identical packets, which each open a connection, into a router, holds them there, and lets them go on
/// one after the other: only the first one's entry is new then.
#[track_caller]
fn meet(name: &str, family: Family, proto: &'static str, way: Way, rules: &str) -> Option<Met> {
    let (table, hook) = way.held_at();
    let tool = Tool::Xtables(family, table);
    let lab = Lab::new(name, &["nft", tool.program()])?;
    let routed = lab.routed_of(family);
    let (from, b) = (SocketAddr::new(routed.a_end.ip, FROM), SocketAddr::new(routed.b_end.ip, PORT));
    let mut connection = Connection::plain(proto, from, b);
    match way {
        Way::Through => {}
        Way::Masquerade => connection.reply.1.set_ip(routed.right.ip),
        Way::Dnat => connection.original.1 = SocketAddr::new(routed.left.ip, 80),
        Way::Here | Way::HereHeldLast => {
            connection = Connection::plain(proto, from, SocketAddr::new(routed.left.ip, PORT));
        }
    }
    routed.r.track();
    translate(&routed, family, way, b);
    if !rules.is_empty() {
        routed.r.nft(rules);
    }
    // Nobody resets the connection: that would remove its entry.
    let _listener = way.is_here().then(|| routed.r.tcp_listener(&connection.original.1.to_string()));
    routed.a.nft_drop("prerouting", &format!("tcp sport {PORT}"));
    routed.b.nft_drop("prerouting", &format!("{proto} dport {PORT}"));
    let to = To { protocol: proto, port: PORT, half: false };
    let rule = match routed.r.rule(tool, hook, to, Verdict::Queue) {
        Ok(rule) => rule,
        Err(refused) => {
            skip_for_kernel(name, "NFQUEUE", &refused);
            return None;
        }
    };
    let mut queue = routed.r.queue();
    let tracing = Trace::of(&routed.r).start();

    routed.a.send_frames("eth0", [&opening(&routed, &connection); HELD]);
    queue.hold(HELD);
    assert_eq!(routed.r.tracked(), HELD as u64, "each has an entry of its own, none is in the table yet");
    queue.let_go();
    wait::until_counter("what the rule let go", HELD as u64, || rule.packets());
    drop(rule);
    let arrived = if way.is_here() { half_open(&routed.r, PORT) } else { routed.b.nft_packets("prerouting") };

    let outcome = tracing.stop();
    Some(Met { routed, outcome, connection, arrived })
}

/// Makes the router translate.
#[track_caller]
fn translate(routed: &Routed, family: Family, way: Way, b: SocketAddr) {
    let (hook, rule) = match way {
        Way::Through | Way::Here | Way::HereHeldLast => return,
        Way::Masquerade => ("postrouting priority 100", "oifname \"right\" masquerade".to_owned()),
        Way::Dnat => ("prerouting priority -100", format!("iifname \"left\" tcp dport 80 dnat to {b}")),
    };
    let table = family.pick("ip", "ip6");
    routed.r.nft(&format!("table {table} ndt-nat {{\nchain c {{\ntype nat hook {hook}\n{rule}\n}}\n}}"));
}

/// The first packet of a connection, from `a` to the router.
fn opening(routed: &Routed, connection: &Connection) -> Vec<u8> {
    let (from, to) = connection.original;
    let mut hop = Hop::between(routed.a_end, routed.left);
    hop.dst = to.ip();
    match connection.proto {
        "tcp" => hop.syn(from.port(), to.port()),
        _ => hop.udp(64, from.port(), to.port(), b"netdrop"),
    }
}

/// All but one packet are lost.
#[track_caller]
fn lost(name: &str, family: Family, way: Way, zone: u16) {
    let zone_rule = format!(
        "table inet ndt-zone {{
            chain prerouting {{
                type filter hook prerouting priority raw; policy accept;
                ct zone set {zone}
            }}
        }}"
    );
    let Some(met) = meet(name, family, "tcp", way, if zone == 0 { "" } else { &zone_rule }) else { return };
    let Met { routed, outcome, connection, arrived } = &met;
    let connection = Connection { zone, ..*connection };
    let count = HELD as u64 - 1;
    let counters = ["insert_failed", "drop", "clashres"].map(|name| routed.r.conntrack(name));
    assert_eq!(counters, [count, count, 0], "insert_failed, drop and clashres of the router");
    assert_eq!(*arrived, 1, "packets that arrived");

    // At its last hook a packet is what it is sent as.
    let (to, from) = connection.reply;
    outcome.expect_named(&Dropped {
        cause: "conntrack-insert-clash",
        class: "harmful",
        netns: &routed.r,
        count,
        packet: json!({"family": family.name(), "proto": "tcp", "tcp_flags": "S", "src": from.ip(),
            "sport": from.port(), "dst": to.ip(), "dport": to.port()}),
    });
    outcome.expect_count("all drops", outcome.events_with("tcp"), count);
    assert_eq!(outcome.number("resolved_clashes"), 0);
    let winner = doctor::by_function("nf_ct_resolve_clash").then_some(&connection);
    for event in outcome.events.iter().filter(|event| event["packet"]["proto"] == "tcp") {
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        assert_eq!(event["direction"], if way.is_here() { "in" } else { "forward" }, "{event}");
        connection.expect(event, winner);
    }
}

#[test]
fn tcp_clash() {
    lost("clash", Family::Ipv4, Way::Through, 0);
}

#[test]
fn tcp_clash_over_ipv6() {
    lost("clash6", Family::Ipv6, Way::Through, 0);
}

#[test]
fn tcp_clash_behind_dnat() {
    lost("clash-dnat", Family::Ipv4, Way::Dnat, 0);
}

/// Translated like a connection that finds no port, and yet one and the same.
#[test]
fn tcp_clash_behind_masquerade() {
    lost("clash-snat", Family::Ipv4, Way::Masquerade, 0);
}

#[test]
fn tcp_clash_of_connections_to_the_router() {
    lost("clash-here", Family::Ipv4, Way::Here, 0);
}

#[test]
fn tcp_clash_of_connections_to_the_router_over_ipv6() {
    lost("clash-here6", Family::Ipv6, Way::Here, 0);
}

/// A program let the packet go on, and yet it is dropped where dropping programs drop.
#[test]
fn tcp_clash_behind_a_queue() {
    lost("clash-queue", Family::Ipv4, Way::HereHeldLast, 0);
}

#[test]
fn tcp_clash_in_a_zone() {
    lost("clash-zone", Family::Ipv4, Way::Through, 7);
}

/// The kernel lets all packets through: a clash, and no drop.
#[track_caller]
fn resolved(name: &str, family: Family, way: Way) {
    let Some(Met { routed, outcome, arrived, .. }) = meet(name, family, "udp", way, "") else { return };
    let counters = ["insert_failed", "drop", "clashres"].map(|name| routed.r.conntrack(name));
    assert_eq!(counters, [0, 0, HELD as u64 - 1], "insert_failed, drop and clashres of the router");
    assert_eq!(arrived, HELD as u64, "packets that arrived");

    assert_eq!(outcome.events_with("udp"), 0, "drops");
    assert_eq!(outcome.number("resolved_clashes"), HELD as u64 - 1);
}

#[test]
fn udp_clash() {
    resolved("clash-udp", Family::Ipv4, Way::Through);
}

#[test]
fn udp_clash_over_ipv6() {
    resolved("clash-udp6", Family::Ipv6, Way::Through);
}

#[test]
fn udp_clash_behind_masquerade() {
    resolved("clash-udp-snat", Family::Ipv4, Way::Masquerade);
}

/// Every connection is to leave by the same port, and only one can.
#[track_caller]
fn exhausted(name: &str, family: Family, proto: &'static str) {
    /// Connections that find no port.
    const COUNT: u16 = 5;
    let Some(lab) = Lab::new(name, &["nft"]) else { return };
    let routed = lab.routed_of(family);
    let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let table = family.pick("ip", "ip6");
    routed.r.nft(&format!(
        "table {table} ndt-nat {{
            chain postrouting {{
                type nat hook postrouting priority 100
                {proto} dport {PORT} snat to {}
            }}
        }}",
        at(routed.right.ip, ONLY)
    ));
    // No answer: it would be tracked as well.
    routed.b.nft_drop("prerouting", &format!("{proto} dport {PORT}"));
    let tracing = Trace::of(&routed.r).start();
    let to = at(routed.b_end.ip, PORT);
    let connections: Vec<Connection> = (FROM..=FROM + COUNT)
        .map(|port| {
            let plain = Connection::plain(proto, at(routed.a_end.ip, port), to);
            Connection { reply: (to, at(routed.right.ip, ONLY)), ..plain }
        })
        .collect();

    let frames: Vec<Vec<u8>> = connections.iter().map(|connection| opening(&routed, connection)).collect();
    routed.a.send_frames("eth0", &frames);
    let count = u64::from(COUNT);
    wait::until_counter("insert_failed", count, || routed.r.conntrack("insert_failed"));
    assert_eq!(routed.r.conntrack("drop"), count);
    assert_eq!(routed.r.conntrack("clashres"), 0);
    assert_eq!(routed.b.nft_packets("prerouting"), 1, "packets that arrived");

    let outcome = tracing.stop();
    outcome.expect_named(&Dropped {
        cause: "nat-port-exhausted",
        class: "harmful",
        netns: &routed.r,
        count,
        packet: json!({"family": family.name(), "proto": proto, "src": routed.right.ip, "sport": ONLY,
            "dst": to.ip(), "dport": PORT}),
    });
    outcome.expect_count("all drops", outcome.events_with(proto), count);
    assert_eq!(outcome.number("resolved_clashes"), 0);
    let winner = doctor::by_function("nf_ct_resolve_clash").then_some(&connections[0]);
    for (event, connection) in
        outcome.events_of("nat-port-exhausted", &routed.r).iter().zip(&connections[1..])
    {
        assert_eq!(event["direction"], "forward", "{event}");
        connection.expect(event, winner);
    }
}

#[test]
fn snat_with_one_tcp_port() {
    exhausted("snat-tcp", Family::Ipv4, "tcp");
}

#[test]
fn snat_with_one_tcp_port_over_ipv6() {
    exhausted("snat-tcp6", Family::Ipv6, "tcp");
}

#[test]
fn snat_with_one_udp_port() {
    exhausted("snat-udp", Family::Ipv4, "udp");
}

#[test]
fn snat_with_one_udp_port_over_ipv6() {
    exhausted("snat-udp6", Family::Ipv6, "udp");
}
