//! What drops cost TCP. Connections are told by addresses and ports alone, whichever namespace sees them: each scenario
//! has addresses that no other has.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};

use netdrop_tests::family::at;
use netdrop_tests::link::Pair;
use netdrop_tests::listen::{fill, shorten};
use netdrop_tests::scene::Scene;
use netdrop_tests::tcp::{Peer, accept};
use netdrop_tests::{Family, Lab, Outcome, Trace, Tracing, wait};
use serde_json::{Value, json};

/// The listener's port.
const PORT: u16 = 9100;

/// The client's.
const CLIENT: u16 = 4000;

/// The tracepoints that `--harm` is about.
const POINTS: [&str; 4] =
    ["tcp_receive_reset", "tcp_retransmit_skb", "tcp_retransmit_synack", "tcp_send_reset"];

/// Two hosts with addresses of network `number`.
#[track_caller]
fn hosts(family: Family, name: &str, number: u8, tools: &[&str]) -> Option<(Pair, Lab)> {
    let lab = Lab::new(&format!("{name}-{}", family.name()), tools)?;
    let address =
        |end: u8| family.pick(format!("10.171.{number}.{end}/24"), format!("fd71:{number}::{end}/64"));
    let netns = |role| match family {
        Family::Ipv4 => lab.netns(role),
        Family::Ipv6 => lab.netns_with_ipv6(role),
    };
    let (a, b) = (netns("a"), netns("b"));
    let (a_end, b_end) = lab.wire((&a, "eth0", &address(1)), (&b, "eth0", &address(2)));
    Some((Pair { a, b, a_end, b_end }, lab))
}

/// What a line says of its packet: from, to, flags.
fn ends(line: &Value) -> (SocketAddr, SocketAddr, &Value) {
    let packet = &line["packet"];
    let end = |ip: &str, port: &str| {
        let ip: Option<IpAddr> = packet[ip].as_str().and_then(|ip| ip.parse().ok());
        let port = packet[port].as_u64().and_then(|port| port.try_into().ok());
        SocketAddr::new(
            ip.unwrap_or_else(|| panic!("no address in {line}")),
            port.unwrap_or_else(|| panic!("no port in {line}")),
        )
    };
    (end("src", "sport"), end("dst", "dport"), &packet["tcp_flags"])
}

/// Requires that a consequence is laid to a drop that was shown, and that both agree on the time between them.
#[track_caller]
fn expect_joined(outcome: &Outcome, harm: &Value, cause: &str) {
    assert_eq!(harm["drop"]["cause"], cause, "{harm}");
    let blamed = |event: &&Value| event["time"] == harm["drop"]["time"] && event["cause"]["id"] == cause;
    let drop = outcome.events.iter().find(blamed).unwrap_or_else(|| panic!("no such drop: {harm}"));
    let time = |line: &Value| -> jiff::Timestamp {
        line["time"].as_str().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("time: {line}"))
    };
    let between = time(harm).duration_since(time(drop)).as_secs_f64();
    let after = harm["after_s"].as_f64().unwrap_or_else(|| panic!("after_s: {harm}"));
    // The clock of the wall may have been moved between the two.
    assert!(after >= 0.0 && (after - between).abs() < 0.05, "{after} s, {between} s by the clock: {harm}");
}

/// Waits for a consequence of this kind between two ends.
#[track_caller]
fn await_harm(tracing: &Tracing, what: &str, from: SocketAddr, to: SocketAddr) -> Value {
    let wanted = |line: &Value| line["what"] == what && ends(line).0 == from && ends(line).1 == to;
    tracing.await_lines("harm", what, 1, wanted).remove(0)
}

/// Both ends of the connection between the two hosts.
fn connection(pair: &Pair) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(pair.a_end.ip, CLIENT), SocketAddr::new(pair.b_end.ip, PORT))
}

/// A rule in the input chain of a host that drops what `matches`, until the ruleset is flushed.
fn dropping(matches: &str) -> String {
    format!(
        "table inet ndt {{
            chain input {{
                type filter hook input priority 0; policy accept;
                {matches} counter drop
            }}
        }}"
    )
}

#[test]
fn syn_that_is_sent_again() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some((pair, _lab)) = hosts(family, "harm-syn", 1, &["nft"]) else { return };
        let (client, server) = connection(&pair);
        let listener = pair.b.tcp_listener(&server.to_string());
        pair.b.nft(&dropping("tcp flags & (syn | ack) == syn"));
        let tracing = Trace::of(&pair.b).args(&["--harm"]).start();

        let _connecting = pair.a.tcp_connecting(&client.to_string(), server);
        tracing.await_event("the SYN", |event| event["cause"]["id"] == "netfilter-rule");
        pair.b.run("nft flush ruleset");

        let harm = await_harm(&tracing, "retransmit", client, server);
        let _connected = accept(&listener);
        let outcome = tracing.stop();
        expect_joined(&outcome, &harm, "netfilter-rule");
        assert_eq!(harm["packet"]["tcp_flags"], "S", "{harm}");
        assert_eq!(harm["netns"]["inode"], pair.a.inode(), "the client's namespace: {harm}");
        assert!(outcome.summary["harm"]["joined_retransmits"].as_u64() >= Some(1), "{}", outcome.summary);
        assert!(outcome.summary["harm"]["retransmits"].as_u64() >= Some(1), "{}", outcome.summary);
    }
}

#[test]
fn data_that_is_sent_again() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-data", 2, &["nft"]) else { return };
    let (client, server) = connection(&pair);
    let listener = pair.b.tcp_listener(&server.to_string());
    let mut sender = TcpStream::from(pair.a.tcp_connecting(&client.to_string(), server));
    let _receiver = accept(&listener);
    pair.b.nft(&dropping(&format!("tcp dport {PORT} meta length > 200")));
    let tracing = Trace::of(&pair.b).args(&["--harm"]).start();

    sender.write_all(&[b'n'; 500]).expect("room for a segment");
    tracing.await_event("the segment", |event| event["cause"]["id"] == "netfilter-rule");
    pair.b.run("nft flush ruleset");

    let harm = await_harm(&tracing, "retransmit", client, server);
    let outcome = tracing.stop();
    expect_joined(&outcome, &harm, "netfilter-rule");
    assert_eq!(harm["packet"]["tcp_flags"], Value::Null, "{harm}");
}

/// The answer is lost where the client is; who sends it again is the listener.
#[test]
fn answer_that_is_sent_again() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-synack", 3, &["nft"]) else { return };
    let (client, server) = connection(&pair);
    let listener = pair.b.tcp_listener(&server.to_string());
    pair.a.nft(&dropping("tcp flags & (syn | ack) == syn | ack"));
    let tracing = Trace::of(&pair.a).args(&["--harm"]).start();

    let _connecting = pair.a.tcp_connecting(&client.to_string(), server);
    tracing.await_event("the SYN-ACK", |event| event["cause"]["id"] == "netfilter-rule");

    let harm = await_harm(&tracing, "synack-retransmit", server, client);
    pair.a.run("nft flush ruleset");
    let _connected = accept(&listener);
    let outcome = tracing.stop();
    expect_joined(&outcome, &harm, "netfilter-rule");
    assert_eq!(harm["packet"]["tcp_flags"], "S.", "{harm}");
    assert_eq!(harm["netns"]["inode"], pair.b.inode(), "the listener's namespace: {harm}");
}

/// The reset is sent just before the packet is freed that it answers.
#[test]
fn reset_for_want_of_room() {
    let Some(mut scene) = Scene::ipv4("harm-abort") else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    shorten(&scene.listener, 2);
    scene.peer.open();
    fill(&scene.pair, &scene.listener, PORT);
    let tracing = Trace::of(&scene.pair.b).args(&["--harm"]).start();

    scene.peer.send(scene.peer.header(), &[]);
    scene.peer.receive("reset", |header| header.rst);

    let (peer, server) = scene.peer.addresses();
    let harm = await_harm(&tracing, "reset-sent", server, peer);
    let outcome = tracing.stop();
    expect_joined(&outcome, &harm, "tcp-accept-queue-full");
    assert_eq!(harm["netns"]["inode"], scene.pair.b.inode(), "{harm}");
}

#[test]
fn connection_that_is_refused() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some((pair, _lab)) = hosts(family, "harm-refused", 5, &[]) else { return };
        let tracing = Trace::of(&pair.b).args(&["--harm"]).start();

        pair.a.connect_refused(&at(pair.b_end.ip, PORT));

        let wanted = |line: &Value| {
            line["what"] == "reset-received" && ends(line).0 == SocketAddr::new(pair.b_end.ip, PORT)
        };
        let harm = tracing.await_lines("harm", "the reset", 1, wanted).remove(0);
        let outcome = tracing.stop();
        expect_joined(&outcome, &harm, "port-closed");
        assert_eq!(harm["netns"]["inode"], pair.a.inode(), "{harm}");
    }
}

/// Nobody answers, and no drop met the filter: what is for another host is dropped where it arrives.
#[test]
fn nothing_is_laid_to_a_drop_that_was_not() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-none", 6, &[]) else { return };
    pair.a.run("ip neigh add 10.171.6.9 lladdr 02:4e:44:00:00:99 nud permanent dev eth0");
    let tracing = Trace::of(&pair.a).args(&["--harm", "--all"]).start();

    let to = SocketAddr::from(([10, 171, 6, 9], PORT));
    let _connecting = pair.a.tcp_connecting("10.171.6.1:4000", to);
    wait::until("the SYN is sent again", || match pair.a.mib("TcpRetransSegs") {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });

    let outcome = tracing.stop();
    assert!(outcome.harms.is_empty(), "{:?}", outcome.harms);
    let harm = &outcome.summary["harm"];
    assert!(harm["retransmits"].as_u64() >= Some(1), "{harm}");
    assert_eq!(harm["joined"], 0, "{harm}");
}

/// The names of the TCP tracepoints to which a running trace is attached.
fn attached(tracing: &Tracing) -> BTreeSet<String> {
    let directory = format!("/proc/{}/fdinfo", tracing.id());
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.strip_prefix("tp_name:")?.trim().to_owned()))
        .filter(|name| name.starts_with("tcp_"))
        .collect()
}

#[test]
fn nothing_is_looked_for_unless_asked() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-off", 7, &[]) else { return };
    let with = Trace::of(&pair.a).args(&["--harm"]).start();
    let expected: BTreeSet<String> = POINTS.map(str::to_owned).into();
    assert_eq!(attached(&with), expected);
    with.stop();

    let without = Trace::of(&pair.b).start();
    assert_eq!(attached(&without), BTreeSet::new());
    pair.a.connect_refused(&at(pair.b_end.ip, PORT));
    without.await_event("the SYN", |event| event["cause"]["id"] == "port-closed");
    let outcome = without.stop();
    assert!(outcome.harms.is_empty(), "{:?}", outcome.harms);
    assert_eq!(outcome.summary["harm"], Value::Null);
}

/// The map of connections is for those with drops alone, and each drop is laid open once for each consequence.
#[test]
fn a_drop_is_blamed_once() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-once", 8, &["nft"]) else { return };
    let (client, server) = connection(&pair);
    pair.b.nft(&dropping("tcp flags & (syn | ack) == syn"));
    let tracing = Trace::of(&pair.b).args(&["--harm"]).start();

    let _connecting = pair.a.tcp_connecting(&client.to_string(), server);
    let wanted = |line: &Value| line["what"] == "retransmit" && ends(line).0 == client;
    tracing.await_lines("harm", "two SYNs sent again", 2, wanted);

    let outcome = tracing.stop();
    let blamed: Vec<_> = outcome.harms.iter().filter(|line| wanted(line)).collect();
    let drops: BTreeSet<_> = blamed.iter().map(|line| line["drop"]["time"].to_string()).collect();
    assert_eq!(drops.len(), blamed.len(), "{blamed:?}");
    for harm in blamed {
        expect_joined(&outcome, harm, "netfilter-rule");
        assert!(harm["after_s"].as_f64() > Some(0.1), "its own drop is not the reason: {harm}");
    }
    assert_eq!(outcome.summary["harm"]["lost"], json!(0));
}

/// A peer of which the kernel knows nothing sends nothing again.
#[test]
fn only_sockets_have_consequences() {
    let Some((pair, _lab)) = hosts(Family::Ipv4, "harm-raw", 9, &["nft"]) else { return };
    pair.b.nft(&dropping(&format!("tcp dport {PORT}")));
    let tracing = Trace::of(&pair.b).args(&["--harm", "--summary-only"]).start();
    let peer = Peer::new(&pair, CLIENT, PORT);
    peer.send(peer.syn_header(), &[]);
    wait::until("the SYN is dropped", || match pair.b.run("nft list ruleset") {
        ruleset if ruleset.contains("packets 1 ") => Ok(()),
        ruleset => Err(ruleset),
    });
    let outcome = tracing.stop();
    assert_eq!(outcome.summary["harm"]["joined"], 0);
    assert_eq!(outcome.summary["counted_only"], 1);
}
