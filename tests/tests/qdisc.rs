//! Packets that the queue in front of a device drops.

use netdrop_tests::family::at;
use netdrop_tests::frame::Hop;
use netdrop_tests::link::Pair;
use netdrop_tests::reason::{expect_certain, lacks_evidence};
use netdrop_tests::traffic::{Sent, send_udp};
use netdrop_tests::{Dropped, Family, Lab, Trace, lab, wait};
use serde_json::{Value, json};

/// Queues in front of `eth0`, and what becomes of the packets that they drop.
struct Queues<'a> {
    /// Of the scenario, and of what the kernel must have.
    name: &'a str,
    /// What `tc` is told.
    commands: &'a [&'a str],
    cause: &'static str,
    class: &'static str,
}

/// Datagrams of each run.
const SENT: u64 = 60;

impl Queues<'_> {
    /// Sends datagrams of each family through the queues, expects an event for each that they dropped, and lets
    /// `check` look at the first one and at what the sender was told.
    #[track_caller]
    fn expect_drops(&self, check: impl Fn(&Pair, &Value, Sent, u64)) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let name = format!("{}-{}", self.name, family.name());
            let Some(lab) = Lab::new(&name, &["tc"]) else { return };
            let pair = lab.pair_of(family);
            if let Some(refused) = self.commands.iter().find_map(|words| pair.a.try_tc(words).err()) {
                return lab::skip_for_kernel(&name, self.name, &refused);
            }
            let tracing = Trace::of(&pair.a).start();

            let (src, dst) = (pair.a_end.ip, pair.b_end.ip);
            let told = send_udp(&pair.a.udp_socket(&at(src, 5400)), &at(dst, 5401), SENT, 1000);
            // Some drop on the way out, and go on until they are empty.
            let (dropped, _) = wait::until_stable("drops and backlog", || pair.a.qdisc_sums("eth0"));

            let outcome = tracing.stop();
            let event = outcome.expect(&Dropped {
                cause: self.cause,
                class: self.class,
                netns: &pair.a,
                count: dropped,
                packet: json!({"family": family.name(), "proto": "udp", "src": src.to_string(), "sport": 5400,
                    "dst": dst.to_string(), "dport": 5401, "len": family.header_len() + 8 + 1000}),
            });
            assert_eq!(event["interface"]["name"], "eth0", "{event}");
            assert_eq!(event["direction"], "out", "{event}");
            let dropping = pair.a.dropping_qdisc("eth0");
            if lacks_evidence(event, "qdisc") {
                continue;
            }
            let qdisc = &event["evidence"]["qdisc"];
            assert_eq!(qdisc["kind"], dropping["kind"], "{event}");
            assert_eq!(qdisc["handle"], dropping["handle"], "{event}");
            if dropping["root"] == true {
                assert_eq!(qdisc["parent"], "root", "{event}");
            } else {
                assert_eq!(qdisc["parent"], dropping["parent"], "{event}");
                assert!(!qdisc["by"].is_null(), "the device's own qdisc was not the one: {event}");
            }
            assert_eq!(qdisc["device"], "eth0", "{event}");
            assert_eq!(pair.a.qdisc_drops("eth0"), dropped, "packets were still on their way");
            check(&pair, event, told, dropped);
        }
    }
}

/// A full child is certain where its own enqueue function is hooked; from the counters it is inferred.
#[track_caller]
fn expect_certain_by_hook(event: &Value) {
    if event["evidence"]["qdisc"]["by"] == "hook" {
        expect_certain(event);
    } else {
        assert_eq!(event["cause"]["confidence"], "inferred", "{event}");
    }
}

#[test]
fn tbf_over_its_limit() {
    let commands = ["qdisc add dev eth0 root tbf rate 64kbit burst 1600 limit 3000"];
    let queues = Queues { name: "tbf", commands: &commands, cause: "qdisc-overlimit", class: "harmful" };
    queues.expect_drops(|pair, event, told, dropped| {
        assert!(dropped < SENT, "the first packet always passes");
        // The limit is in bytes, that of a bfifo which tbf has below itself.
        expect_certain_by_hook(event);
        if !lacks_evidence(event, "qdisc") {
            assert_eq!(event["evidence"]["qdisc"]["kind"], "bfifo", "{event}");
            assert_eq!(event["evidence"]["qdisc"]["limit"], 3000, "{event}");
        }
        // What the catalogue says of senders and counters.
        assert_eq!(told, Sent { accepted: SENT, refused: 0 });
        let counters = match pair.a_end.ip.is_ipv4() {
            true => ["IpOutDiscards", "UdpSndbufErrors"],
            false => ["Ip6OutDiscards", "Udp6SndbufErrors"],
        };
        for counter in counters {
            assert_eq!(pair.a.mib(counter), dropped, "{counter}");
        }
    });
}

#[test]
fn child_of_htb_at_its_limit() {
    let commands = [
        "qdisc add dev eth0 root handle 1: htb default 10 r2q 1",
        "class add dev eth0 parent 1: classid 1:10 htb rate 8kbit burst 2k cburst 2k",
        "qdisc add dev eth0 parent 1:10 handle 10: pfifo limit 3",
    ];
    let queues = Queues { name: "htb", commands: &commands, cause: "qdisc-overlimit", class: "harmful" };
    queues.expect_drops(|_, event, _, dropped| {
        assert!(dropped < SENT, "the first packets always pass");
        // The child's limit, which is seen where its enqueue function is hooked; the root has none.
        expect_certain_by_hook(event);
        if !lacks_evidence(event, "qdisc") {
            assert_eq!(event["evidence"]["qdisc"]["limit"], 3, "{event}");
            assert_eq!(event["evidence"]["qdisc"]["parent"], "1:10", "{event}");
        }
    });
}

#[test]
fn child_of_mq() {
    let Some(lab) = Lab::new("mq", &["tc"]) else { return };
    let pair = lab.pair();
    pair.a.run("ip link add mq0 numtxqueues 2 type veth peer name mq1");
    pair.a.run("ip addr add 10.9.0.1/24 dev mq0");
    pair.a.run("ip link set mq0 up");
    pair.a.run("ip link set mq1 up");
    pair.a.run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev mq0");
    for words in [
        "qdisc add dev mq0 root handle 1: mq",
        "qdisc add dev mq0 parent 1:1 handle 10: pfifo limit 0",
        "qdisc add dev mq0 parent 1:2 handle 20: pfifo limit 0",
    ] {
        if let Err(refused) = pair.a.try_tc(words) {
            return lab::skip_for_kernel("mq", "mq", &refused);
        }
    }
    let tracing = Trace::of(&pair.a).start();

    send_udp(&pair.a.udp_socket("10.9.0.1:5406"), "10.9.0.2:5407", 5, 64);
    wait::until_counter("dropped", 5, || pair.a.qdisc_drops("mq0"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "qdisc-overlimit",
        class: "harmful",
        netns: &pair.a,
        count: 5,
        packet: json!({"proto": "udp", "sport": 5406, "dport": 5407}),
    });
    let dropping = pair.a.dropping_qdisc("mq0");
    let qdisc = &event["evidence"]["qdisc"];
    if !lacks_evidence(event, "qdisc") {
        for field in ["kind", "handle", "parent"] {
            assert_eq!(qdisc[field], dropping[field], "{event}");
        }
        assert_eq!(qdisc["device"], "mq0", "{event}");
    }
}

#[test]
fn pfifo_without_room() {
    let commands = ["qdisc add dev eth0 root pfifo limit 0"];
    let queues = Queues { name: "pfifo", commands: &commands, cause: "qdisc-overlimit", class: "harmful" };
    queues.expect_drops(|_, _, _, dropped| assert_eq!(dropped, SENT));
}

#[test]
fn netem_loss() {
    let commands = ["qdisc add dev eth0 root netem loss 100%"];
    let queues = Queues { name: "netem", commands: &commands, cause: "qdisc-netem-loss", class: "harmful" };
    queues.expect_drops(|pair, event, told, dropped| {
        assert_eq!(dropped, SENT);
        expect_certain(event);
        // Nothing at all tells the sender.
        assert_eq!(told, Sent { accepted: SENT, refused: 0 });
        let counter = if pair.a_end.ip.is_ipv4() { "IpOutDiscards" } else { "Ip6OutDiscards" };
        assert_eq!(pair.a.mib(counter), 0, "{counter}");
    });
}

/// What a chaos test left behind on a container's `eth0`: a third of what it sends is lost.
#[test]
fn netem_loses_some() {
    let commands = ["qdisc add dev eth0 root netem loss 30%"];
    let queues = Queues { name: "netem", commands: &commands, cause: "qdisc-netem-loss", class: "harmful" };
    queues.expect_drops(|_, event, told, dropped| {
        assert!(dropped < SENT, "{dropped} of {SENT} lost");
        expect_certain(event);
        assert_eq!(event["evidence"]["qdisc"]["kind"], "netem", "{event}");
        assert_eq!(told, Sent { accepted: SENT, refused: 0 });
    });
}

#[test]
fn netem_at_its_limit() {
    let commands = ["qdisc add dev eth0 root netem delay 60s limit 3"];
    let queues = Queues { name: "netem", commands: &commands, cause: "qdisc-overlimit", class: "harmful" };
    queues.expect_drops(|_, event, _, dropped| {
        assert_eq!(dropped, SENT - 3);
        assert_eq!(event["evidence"]["qdisc"]["limit"], 3, "{event}");
        assert_eq!(event["evidence"]["qdisc"]["qlen"], 3, "{event}");
        expect_certain(event);
    });
}

/// What a queue with its own limit sits behind, so that it cannot empty itself: tbf gives it a rate.
const SLOW: &str = "qdisc add dev eth0 root handle 1: tbf rate 8kbit burst 2k limit 1m";

#[test]
fn fair_queues_at_their_limit() {
    for (name, queue) in [
        ("fq_codel", "qdisc add dev eth0 parent 1:1 handle 10: fq_codel limit 3"),
        ("codel", "qdisc add dev eth0 parent 1:1 handle 10: codel limit 3"),
        ("fq", "qdisc add dev eth0 parent 1:1 handle 10: fq limit 3"),
        ("fq", "qdisc add dev eth0 parent 1:1 handle 10: fq limit 1000 flow_limit 3"),
    ] {
        let queues = Queues { name, commands: &[SLOW, queue], cause: "qdisc-overlimit", class: "harmful" };
        queues.expect_drops(|_, _, _, dropped| assert!(dropped < SENT, "{queue}: the first packets pass"));
    }
}

#[test]
fn active_queue_management() {
    for name in ["codel", "fq_codel"] {
        let queue = format!("qdisc add dev eth0 parent 1:1 handle 10: {name} target 1ms interval 10ms noecn");
        let commands = ["qdisc add dev eth0 root handle 1: tbf rate 500kbit burst 2k limit 1m", &queue];
        let queues = Queues { name, commands: &commands, cause: "qdisc-other", class: "suspect" };
        queues.expect_drops(|_, _, _, dropped| assert!(dropped < SENT, "{queue}: the first packets pass"));
    }
}

#[test]
fn noop_while_the_other_end_is_down() {
    let Some(lab) = Lab::new("noop", &["tc"]) else { return };
    let pair = lab.pair();
    pair.b.run("ip link set eth0 down");
    pair.a.await_loss_of_carrier("eth0");
    let tracing = Trace::of(&pair.a).start();

    let told = send_udp(&pair.a.udp_socket("10.0.0.1:5404"), "10.0.0.2:5405", 5, 64);
    assert_eq!(told, Sent { accepted: 5, refused: 0 });
    // No host here speaks IPv6; the frame goes as far as the queue all the same.
    let six = Hop::between(pair.a_end, pair.b_end).with_src("fd00::1").with_dst("fd00::2");
    pair.a.send_frames("eth0", [&six.udp(64, 5404, 5405, &[0; 64]); 5]);
    let dropped = || pair.a.tx_dropped("eth0");
    wait::until_counter("tx dropped", 10, dropped);

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "interface-down",
        class: "suspect",
        netns: &pair.a,
        count: 10,
        packet: json!({"proto": "udp", "sport": 5404, "dport": 5405}),
    });
    expect_certain(event);
    assert_eq!(event["evidence"]["qdisc"]["kind"], "noop", "{event}");
    for (family, src, dst) in [("ipv4", "10.0.0.1", "10.0.0.2"), ("ipv6", "fd00::1", "fd00::2")] {
        let events = outcome.events.iter().filter(|event| event["packet"]["family"] == family);
        outcome.expect_count(family, events.clone().count() as u64, 5);
        for event in events {
            assert_eq!(event["packet"]["src"], src, "{event}");
            assert_eq!(event["packet"]["dst"], dst, "{event}");
            assert_eq!(event["interface"]["name"], "eth0", "{event}");
            assert_eq!(event["direction"], "out", "{event}");
        }
    }
}

#[test]
fn a_full_queue_of_a_router_drops_forwarded_packets_and_its_own() {
    let Some(lab) = Lab::new("tbf-router", &["tc"]) else { return };
    let routed = lab.routed();
    if let Err(refused) = routed.r.try_tc("qdisc add dev right root tbf rate 64kbit burst 1600 limit 3000") {
        return lab::skip_for_kernel("tbf-router", "tbf", &refused);
    }
    // The port is open: no ICMP error comes back through the router.
    let _open = routed.b.udp_socket("10.2.0.2:5401");
    let tracing = Trace::of(&routed.r).start();

    send_udp(&routed.a.udp_socket("10.1.0.2:5402"), "10.2.0.2:5401", 60, 1000);
    wait::until_counter("IpForwDatagrams", 60, || routed.r.mib("IpForwDatagrams"));
    let forwarded = wait::until_stable("tbf's drops", || routed.r.qdisc_drops("right"));
    send_udp(&routed.r.udp_socket("10.2.0.1:5403"), "10.2.0.2:5401", 60, 1000);
    let own = routed.r.qdisc_drops("right") - forwarded;
    assert!(own > 0, "the queue was not full");

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "qdisc-overlimit",
        class: "harmful",
        netns: &routed.r,
        count: forwarded + own,
        packet: json!({"proto": "udp", "dst": "10.2.0.2", "dport": 5401}),
    });
    for (sport, count, direction) in [(5402, forwarded, "forward"), (5403, own, "out")] {
        let events = outcome.events.iter().filter(|event| event["packet"]["sport"] == sport);
        outcome.expect_count(direction, events.clone().count() as u64, count);
        for event in events {
            assert_eq!(event["direction"], direction, "{event}");
            assert_eq!(event["interface"]["name"], "right", "{event}");
        }
    }
}
