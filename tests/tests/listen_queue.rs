//! SYNs for a listener whose accept queue or SYN queue is full. The kernel consumes them like packets that it has
//! delivered.

use std::collections::BTreeSet;

use netdrop_tests::family::at;
use netdrop_tests::flood::{cpus, on_all_cpus, on_each_cpu};
use netdrop_tests::frame::Hop;
use netdrop_tests::hidden::repeat_while_short;
use netdrop_tests::lab::say;
use netdrop_tests::link::Pair;
use netdrop_tests::listen::{Full, any, fill, fill_half_open, half_open, shorten};
use netdrop_tests::scene::{PORT, Rejected, Scene};
use netdrop_tests::tcp::Peer;
use netdrop_tests::{Dropped, Family, Lab, Outcome, Trace, Tracing, doctor, wait};
use serde_json::{Value, json};

/// Argument of `listen()` where the accept queue is to be full.
const BACKLOG: u16 = 2;

/// SYNs that each scenario sends.
const COUNT: u64 = 5;

/// A scene of a family.
#[track_caller]
fn scene_of(family: Family, name: &str) -> Option<Scene> {
    family.pick(Scene::ipv4 as fn(&str) -> Option<Scene>, Scene::ipv6)(&format!("{name}-{}", family.name()))
}

/// A scene whose listener has a full accept queue.
#[track_caller]
fn scene_with_full_queue(family: Family, name: &str) -> Option<Scene> {
    let scene = scene_of(family, name)?;
    shorten(&scene.listener, BACKLOG);
    fill(&scene.pair, &scene.listener, PORT);
    Some(scene)
}

/// Sends SYNs that are dropped whenever they come.
#[track_caller]
fn send_syns(peer: &Peer) {
    for _ in 0..COUNT {
        peer.send(peer.syn_header(), &[]);
    }
}

/// What the SYNs must be called.
fn rejected<'a>(cause: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    Rejected { cause, verdict: ("harmful", "observed"), flags: "S", count: COUNT, counter }
}

/// Requires of every event the same evidence: that of the queue, and the counter where it was the witness.
#[track_caller]
fn expect_evidence(scene: &Scene, outcome: &Outcome, full: &Full, cell: &str) {
    let witness = match doctor::rung("tcp_conn_request") {
        Some(rung) if rung == "witness" => json!({"cell": cell, "delta": 1}),
        _ => Value::Null,
    };
    let cause = if full.queue == "syn" { "tcp-syn-queue-full" } else { "tcp-accept-queue-full" };
    for event in &outcome.events {
        assert_eq!(event["cause"]["id"], cause, "{event}");
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        full.expect(&scene.pair.b, event);
        assert_eq!(event["evidence"]["witness"], witness, "{event}");
    }
}

/// Requires that the trace has named the peer's SYNs, for which the accept queue had no room.
#[track_caller]
fn expect_overflow(scene: &Scene, peer: &Peer, tracing: Tracing, full: &Full) {
    let overflows = || scene.mib("TcpExtListenOverflows");
    wait::until_counter("SYNs dropped", COUNT, overflows);
    assert_eq!(scene.mib("TcpExtListenDrops"), COUNT);
    let (outcome, _) = scene.expect_from(peer, tracing, &rejected("tcp-accept-queue-full", &overflows));
    expect_evidence(scene, &outcome, full, "ListenOverflows");
}

#[test]
fn accept_queue_full() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(scene) = scene_with_full_queue(family, "syn-accept") else { return };
        let tracing = scene.trace();
        send_syns(&scene.peer);
        expect_overflow(&scene, &scene.peer, tracing, &Full::accept(&scene.listener));
    }
}

/// Cookies need no SYN queue, but whoever comes back with one needs room in the accept queue.
#[test]
fn accept_queue_full_with_cookies() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(scene) = scene_of(family, "syn-cookies") else { return };
        scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "2");
        shorten(&scene.listener, BACKLOG);
        fill(&scene.pair, &scene.listener, PORT);
        let tracing = scene.trace();
        send_syns(&scene.peer);
        expect_overflow(&scene, &scene.peer, tracing, &Full::accept(&scene.listener));
    }
}

#[test]
fn accept_queue_full_with_abort_on_overflow() {
    let Some(scene) = scene_with_full_queue(Family::Ipv4, "syn-abort") else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    let tracing = scene.trace();
    send_syns(&scene.peer);
    // That setting is for the end of a handshake: a SYN is not answered.
    expect_overflow(&scene, &scene.peer, tracing, &Full::accept(&scene.listener));
    assert_eq!(scene.mib("TcpOutRsts"), 0);
}

#[test]
fn listener_on_every_address() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(scene) = scene_of(family, "syn-any") else { return };
        every_address(&scene, &at(any(family), 9200));
    }
}

/// The listener of both families, which most programs have.
#[test]
fn ipv4_at_a_listener_of_both_families() {
    let Some(lab) = Lab::new("syn-both", &[]) else { return };
    let (a, b) = (lab.netns_with_ipv6("a"), lab.netns_with_ipv6("b"));
    let (a_end, b_end) = lab.wire((&a, "eth0", "10.0.0.1/24"), (&b, "eth0", "10.0.0.2/24"));
    let scene = Scene::on(Pair { a, b, a_end, b_end }, lab);
    every_address(&scene, "[::]:9200");
}

#[track_caller]
fn every_address(scene: &Scene, address: &str) {
    let listener = scene.pair.b.tcp_listener(address);
    shorten(&listener, BACKLOG);
    fill(&scene.pair, &listener, 9200);
    let tracing = scene.trace();
    let peer = scene.peer_of(9200);
    send_syns(&peer);
    let full = Full::accept(&listener);
    assert_eq!(full.address, address);
    expect_overflow(scene, &peer, tracing, &full);
}

/// The program asks for a long queue, the system allows a short one.
#[test]
fn somaxconn_limits_the_queue() {
    let Some(scene) = Scene::ipv4("syn-somaxconn") else { return };
    scene.pair.b.sysctl("net/core/somaxconn", "3");
    shorten(&scene.listener, 100);
    fill(&scene.pair, &scene.listener, PORT);
    let tracing = scene.trace();
    send_syns(&scene.peer);
    let full = Full { backlog: None, binds: "somaxconn", ..Full::accept(&scene.listener) };
    assert_eq!((full.length, full.limit), (4, 3));
    expect_overflow(&scene, &scene.peer, tracing, &full);
}

/// Programs send a SYN again when no answer comes: each is dropped anew.
#[test]
fn programs_that_try_again() {
    let Some(scene) = scene_with_full_queue(Family::Ipv4, "syn-again") else { return };
    let tracing = scene.trace();
    let clients: Vec<_> = (0..COUNT)
        .map(|n| scene.pair.a.tcp_connecting(&format!("10.0.0.1:{}", 5300 + n), scene.peer.addresses().1))
        .collect();
    let overflows = || scene.mib("TcpExtListenOverflows");
    wait::until("a second SYN of each", || match overflows() {
        0..10 => Err(format!("{} SYNs dropped", overflows())),
        _ => Ok(()),
    });
    drop(clients);
    let count = wait::until_stable("SYNs dropped", overflows);

    let outcome = tracing.stop();
    outcome.expect_named(&Dropped {
        cause: "tcp-accept-queue-full",
        class: "harmful",
        netns: &scene.pair.b,
        count,
        packet: json!({"src": "10.0.0.1", "dst": "10.0.0.2", "dport": PORT, "tcp_flags": "S"}),
    });
    let ports: BTreeSet<u64> =
        outcome.events.iter().filter_map(|event| event["packet"]["sport"].as_u64()).collect();
    assert_eq!(ports, (5300..5300 + COUNT).collect());
    expect_evidence(&scene, &outcome, &Full::accept(&scene.listener), "ListenOverflows");
}

/// A SYN queue as long as the accept queue may be, and handshakes that nobody ends.
#[test]
fn syn_queue_full() {
    /// So short that the kernel does not shorten the life of half-open handshakes.
    const SYN_BACKLOG: u16 = 3;
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(scene) = scene_of(family, "syn-queue") else { return };
        scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
        shorten(&scene.listener, SYN_BACKLOG);
        let counter = "TcpExtTCPReqQFullDrop";
        let length = fill_half_open(&scene.pair, PORT, counter);
        // Between kernels it differs whether the queue holds one more than its limit.
        assert!((3..=4).contains(&length), "{length} half-open handshakes");
        let tracing = scene.trace();
        send_syns(&scene.peer);

        // The first was counted when it told that the queue is full.
        let counted = || scene.mib(counter) - 1;
        wait::until_counter("SYNs dropped", COUNT, counted);
        assert_eq!(scene.mib("TcpExtListenDrops"), COUNT + 1);
        assert_eq!(scene.mib("TcpExtListenOverflows"), 0);
        assert_eq!(half_open(&scene.pair.b, PORT), length, "the queue was full all the time");
        let (outcome, _) = scene.expect(tracing, &rejected("tcp-syn-queue-full", &counted));
        let full = Full {
            queue: "syn",
            address: scene.address(PORT),
            length,
            limit: SYN_BACKLOG.into(),
            backlog: Some(SYN_BACKLOG.into()),
            binds: "backlog",
        };
        expect_evidence(&scene, &outcome, &full, "TCPReqQFullDrop");
    }
}

/// Without cookies the last quarter of tcp_max_syn_backlog is kept for peers that have connected before.
#[test]
fn last_quarter_of_max_syn_backlog() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(scene) = scene_of(family, "syn-quarter") else { return };
        scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
        scene.pair.b.sysctl("net/ipv4/tcp_max_syn_backlog", "8");
        shorten(&scene.listener, 100);
        let counter = "TcpExtListenDrops";
        let length = fill_half_open(&scene.pair, PORT, counter);
        assert_eq!(length, 7, "half-open handshakes: one place of eight is less than a quarter");
        let tracing = scene.trace();
        send_syns(&scene.peer);

        let counted = || scene.mib(counter) - 1;
        wait::until_counter("SYNs dropped", COUNT, counted);
        assert_eq!(scene.mib("TcpExtTCPReqQFullDrop"), 0);
        assert_eq!(scene.mib("TcpExtListenOverflows"), 0);
        assert_eq!(half_open(&scene.pair.b, PORT), length, "the queue was full all the time");
        let (outcome, _) = scene.expect(tracing, &rejected("tcp-syn-queue-full", &counted));
        let full = Full {
            queue: "syn",
            address: scene.address(PORT),
            length,
            limit: 8,
            backlog: Some(100),
            binds: "tcp_max_syn_backlog",
        };
        expect_evidence(&scene, &outcome, &full, "ListenDrops");
    }
}

/// With cookies a full SYN queue loses nothing.
#[test]
fn cookies_instead_of_a_syn_queue() {
    let Some(scene) = Scene::ipv4("syn-do-cookies") else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "1");
    shorten(&scene.listener, 3);
    let tracing = scene.trace_all();
    for port in 0..20 {
        let mut peer = Peer::new(&scene.pair, 5400 + port, PORT);
        peer.open();
    }
    assert!(scene.mib("TcpExtTCPReqQFullDoCookies") >= 16, "cookies were sent");
    assert_eq!(scene.mib("TcpExtListenDrops"), 0);

    assert_eq!(tracing.stop().number("seen"), 0, "drops");
}

/// Listeners with one full queue each and one with room, in turn.
#[test]
fn every_listener_is_told_apart() {
    let Some(scene) = scene_with_full_queue(Family::Ipv4, "syn-turns") else { return };
    scene.pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
    let half = scene.pair.b.tcp_listener(&scene.address(9201));
    shorten(&half, 3);
    fill_half_open(&scene.pair, 9201, "TcpExtTCPReqQFullDrop");
    let _open = scene.pair.b.tcp_listener(&scene.address(9202));
    let tracing = scene.trace();

    let peers = [PORT, 9201].map(|port| scene.peer_of(port));
    let mut ports = 5500..;
    for _ in 0..COUNT {
        for (peer, port) in peers.iter().zip(&mut ports) {
            peer.send(peer.syn_header(), &[]);
            Peer::new(&scene.pair, port, 9202).open();
        }
    }
    wait::until_counter("SYNs dropped", 2 * COUNT + 1, || scene.mib("TcpExtListenDrops"));

    let outcome = tracing.stop();
    for (cause, port) in [("tcp-accept-queue-full", PORT), ("tcp-syn-queue-full", 9201)] {
        let event = outcome.expect_named(&Dropped {
            cause,
            class: "harmful",
            netns: &scene.pair.b,
            count: COUNT,
            packet: json!({"dport": port, "tcp_flags": "S"}),
        });
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        assert_eq!(event["evidence"]["listen"]["address"], scene.address(port), "{event}");
    }
    outcome.expect_count("drops that are shown", outcome.number("shown"), 2 * COUNT);
}

/// Many SYNs on all CPUs at the same time, for listeners with a full queue and for a closed port.
#[test]
fn many_on_every_cpu() {
    const MANY: u64 = 300;
    repeat_while_short("syn-many", || {
        let scene = scene_with_full_queue(Family::Ipv4, "syn-many")?;
        let b = &scene.pair.b;
        b.sysctl("net/ipv4/tcp_syncookies", "0");
        let half = b.tcp_listener(&scene.address(9201));
        shorten(&half, 3);
        fill_half_open(&scene.pair, 9201, "TcpExtTCPReqQFullDrop");
        let hop = Hop::between(scene.pair.a_end, scene.pair.b_end);
        let frames: Vec<Vec<u8>> = [PORT, 9201, 9202].map(|port| hop.syn(5600, port)).to_vec();
        let tracing = Trace::of(b).args(&["--all"]).start();

        on_all_cpus(|| {
            let turns = (0..MANY).flat_map(|_| &frames);
            scene.pair.a.send_frames("eth0", turns);
        });
        let all = cpus().len() as u64 * MANY;
        wait::until_counter("SYNs dropped", 2 * all + 1, || scene.mib("TcpExtListenDrops"));
        wait::until_counter("SYNs refused", all, || scene.mib("TcpOutRsts"));
        assert_eq!(scene.mib("TcpExtListenOverflows"), all);

        let outcome = tracing.stop();
        let causes = ["tcp-accept-queue-full", "tcp-syn-queue-full", "port-closed"];
        let counts = causes.map(|cause| outcome.cause_count(cause));
        assert_eq!(outcome.number("seen"), counts.iter().sum::<u64>(), "drops with another cause");
        Some(causes.iter().zip(counts).map(|(cause, count)| outcome.shortfall(cause, count, all)).sum())
    });
}

/// What a namespace has counted before the trace is nobody's drop, on every CPU.
#[test]
fn counts_from_before_are_not_told() {
    let Some(scene) = scene_with_full_queue(Family::Ipv4, "syn-before") else { return };
    let cpus = cpus().len() as u64;
    on_each_cpu(|| send_syns(&scene.peer));
    let overflows = || scene.mib("TcpExtListenOverflows");
    wait::until_counter("SYNs dropped before", COUNT * cpus, overflows);
    let tracing = scene.trace();

    on_each_cpu(|| scene.peer.send(scene.peer.syn_header(), &[]));

    let counted = || overflows() - COUNT * cpus;
    let rejected = Rejected { count: cpus, ..rejected("tcp-accept-queue-full", &counted) };
    let (outcome, _) = scene.expect(tracing, &rejected);
    expect_evidence(&scene, &outcome, &Full::accept(&scene.listener), "ListenOverflows");
}

/// A namespace that did not exist when the trace began.
#[test]
fn namespace_made_while_tracing() {
    let Some(lab) = Lab::new("syn-new", &[]) else { return };
    let tracing = Trace::everywhere().start();
    let scene = Scene::on(lab.pair(), lab);
    shorten(&scene.listener, BACKLOG);
    fill(&scene.pair, &scene.listener, PORT);
    send_syns(&scene.peer);
    wait::until_counter("SYNs dropped", COUNT, || scene.mib("TcpExtListenOverflows"));

    let outcome = tracing.stop();
    let events = outcome.events_of("tcp-accept-queue-full", &scene.pair.b);
    outcome.expect_count("SYNs", events.len() as u64, COUNT);
    for event in events {
        assert_eq!(event["cause"]["confidence"], "observed", "{event}");
        Full::accept(&scene.listener).expect(&scene.pair.b, event);
    }
}

/// Without the hook that sees consumed packets, only a hook at the function itself names these drops.
#[test]
fn without_consume() {
    let Some(scene) = scene_with_full_queue(Family::Ipv4, "syn-no-consume") else { return };
    let by_function = doctor::by_function("tcp_conn_request");
    let tracing = Trace::of(&scene.pair.b).args(&["--no-consume"]).start();
    send_syns(&scene.peer);
    if by_function {
        return expect_overflow(&scene, &scene.peer, tracing, &Full::accept(&scene.listener));
    }
    wait::until_counter("SYNs dropped", COUNT, || scene.mib("TcpExtListenOverflows"));
    assert_eq!(tracing.stop().number("seen"), 0, "drops");
    say("NOTE: syn-no-consume: no function hook here, and nothing was named");
}
