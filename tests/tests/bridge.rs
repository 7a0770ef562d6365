//! Frames that a bridge does not forward.

use netdrop_tests::bridge::Bridged;
use netdrop_tests::firewall::{Hook, To, Tool, Verdict};
use netdrop_tests::frame::Hop;
use netdrop_tests::lab::{self, say_skip};
use netdrop_tests::reason::{expect_reason, lacks_evidence};
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Trace, Tracing, wait};
use serde_json::{Value, json};

/// Frames of each run.
const FRAMES: u64 = 5;

/// Addresses of two hosts that the bridge passes frames between; it looks at none of them.
const ADDRESSES: [(&str, &str, &str); 2] = [("ipv4", "10.0.0.1", "10.0.0.2"), ("ipv6", "fd00::1", "fd00::2")];

/// Sends frames from `a` to `b`, of which the bridge takes all and forwards none.
#[track_caller]
fn send_into(bridged: &Bridged, frame: &Vec<u8>) {
    let before = packets(bridged, "left", "rx");
    bridged.a.send_frames("eth0", [frame; FRAMES as usize]);
    wait::until_counter("frames on the left port", before + FRAMES, || packets(bridged, "left", "rx"));
    assert_eq!(packets(bridged, "right", "tx"), 0, "the bridge forwarded");
}

/// Packets that a port of the bridge received (`rx`) or sent (`tx`).
#[track_caller]
fn packets(bridged: &Bridged, port: &str, way: &str) -> u64 {
    let counter = bridged.s.link_counter(port, &format!("/stats64/{way}/packets"));
    counter.expect("every device counts packets")
}

/// Ends a trace and requires that all frames were drops of the bridge; returns the first event.
#[track_caller]
fn expect_all(tracing: Tracing, bridged: &Bridged, class: &'static str, packet: Value) -> Value {
    let outcome = tracing.stop();
    let dropped = Dropped { cause: "bridge-drop", class, netns: &bridged.s, count: FRAMES, packet };
    outcome.expect(&dropped).clone()
}

#[test]
fn port_that_does_not_forward_yet() {
    // States as spanning tree numbers them. Blocking cannot be set by hand on a bridge without a loop.
    for (state, name) in [(0, "disabled"), (1, "listening"), (2, "learning")] {
        let Some(lab) = Lab::new(&format!("stp-{name}"), &["bridge"]) else { return };
        let bridged = lab.bridged();
        bridged.s.run(&format!("bridge link set dev left state {state}"));
        let hop = Hop::between(bridged.a_end, bridged.b_end);
        for (family, src, dst) in ADDRESSES {
            let tracing = Trace::of(&bridged.s).start();
            send_into(&bridged, &hop.with_src(src).with_dst(dst).udp(64, 5440, 5441, &[0; 64]));
            let packet = json!({"family": family, "proto": "udp", "src": src, "sport": 5440, "dst": dst, "dport": 5441});
            let event = expect_all(tracing, &bridged, "suspect", packet);
            expect_reason(&event, "BRIDGE_INGRESS_STP_STATE");
            assert_eq!(event["interface"]["name"], "left", "{name}: {event}");
            assert_eq!(event["direction"], "in", "{name}: {event}");
        }
    }
}

#[test]
fn unknown_destination_and_no_port_floods() {
    let Some(lab) = Lab::new("flood-off", &["bridge"]) else { return };
    let bridged = lab.bridged();
    for port in ["left", "right"] {
        bridged.s.run(&format!("bridge link set dev {port} flood off"));
    }
    let mut hop = Hop::between(bridged.a_end, bridged.b_end);
    hop.macs.1 = [0x02, 0, 0, 0, 0, 0x99];
    let tracing = Trace::of(&bridged.s).start();
    send_into(&bridged, &hop.udp(64, 5440, 5441, &[0; 64]));
    let event = expect_all(tracing, &bridged, "suspect", json!({"sport": 5440, "dport": 5441}));
    expect_reason(&event, "NO_TX_TARGET");
    assert_eq!(event["interface"]["name"], "left", "{event}");
    assert_eq!(event["direction"], "in", "{event}");

    // The same for what the bridge itself sends.
    bridged.s.run("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:99 nud permanent dev br0");
    let tracing = Trace::of(&bridged.s).start();
    send_udp(&bridged.s.udp_socket("10.0.0.3:5442"), "10.0.0.9:5443", FRAMES, 64);
    wait::until_counter("frames sent by br0", FRAMES, || packets(&bridged, "br0", "tx"));
    assert_eq!(packets(&bridged, "right", "tx"), 0, "the bridge forwarded");
    let event =
        expect_all(tracing, &bridged, "suspect", json!({"src": "10.0.0.3", "sport": 5442, "dport": 5443}));
    expect_reason(&event, "NO_TX_TARGET");
    assert_eq!(event["interface"]["name"], "br0", "{event}");
    assert_eq!(event["direction"], "out", "{event}");
}

#[test]
fn isolated_ports() {
    let Some(lab) = Lab::new("isolated", &["bridge"]) else { return };
    let bridged = lab.bridged();
    for port in ["left", "right"] {
        bridged.s.run(&format!("bridge link set dev {port} isolated on"));
    }
    let tracing = Trace::of(&bridged.s).start();
    send_into(&bridged, &Hop::between(bridged.a_end, bridged.b_end).udp(64, 5440, 5441, &[0; 64]));
    let event = expect_all(tracing, &bridged, "suspect", json!({"sport": 5440, "dport": 5441}));
    // The kernel gives no reason.
    assert_eq!(event["cause"]["confidence"], "inferred", "{event}");
}

#[test]
fn impossible_source_address() {
    let Some(lab) = Lab::new("source-mac", &["bridge"]) else { return };
    let bridged = lab.bridged();
    let mut hop = Hop::between(bridged.a_end, bridged.b_end);
    hop.macs.0 = [0x03, 0, 0, 0, 0, 1];
    let tracing = Trace::of(&bridged.s).start();
    send_into(&bridged, &hop.udp(64, 5440, 5441, &[0; 64]));
    let event = expect_all(tracing, &bridged, "suspect", json!({"sport": 5440, "dport": 5441}));
    expect_reason(&event, "MAC_INVALID_SOURCE");
}

#[test]
fn pause_frame() {
    let Some(lab) = Lab::new("pause", &["bridge"]) else { return };
    let bridged = lab.bridged();
    let mut hop = Hop::between(bridged.a_end, bridged.b_end);
    hop.macs.1 = [0x01, 0x80, 0xc2, 0, 0, 1];
    let tracing = Trace::of(&bridged.s).args(&["--all"]).start();
    send_into(&bridged, &hop.udp(64, 5440, 5441, &[0; 64]));
    let event = expect_all(tracing, &bridged, "benign", json!({"sport": 5440, "dport": 5441}));
    expect_reason(&event, "MAC_IEEE_MAC_CONTROL");
}

#[test]
fn frame_longer_than_the_mtu_of_the_port() {
    // With and without the firewall for bridged packets, which is behind another function.
    for firewall in [false, true] {
        let Some(lab) = Lab::new("port-mtu", &["bridge"]) else { return };
        let bridged = lab.bridged();
        if !bridged.s.bridge_firewall(firewall) && firewall {
            say_skip("port-mtu", "with firewall: this kernel has no br_netfilter, or it is not loaded");
            continue;
        }
        bridged.s.run("ip link set right mtu 1000");
        let tracing = Trace::of(&bridged.s).start();
        send_into(&bridged, &Hop::between(bridged.a_end, bridged.b_end).udp(64, 5440, 5441, &[0; 1200]));
        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "mtu-exceeded",
            class: "harmful",
            netns: &bridged.s,
            count: FRAMES,
            packet: json!({"sport": 5440, "dport": 5441, "len": 1228}),
        });
        assert_eq!(event["interface"]["name"], "right", "{event}");
        assert_eq!(event["cause"]["confidence"], "inferred", "{event}");
        // A figure may be missing, but not be that of a device which the frame fits.
        let limit = &event["evidence"]["mtu"]["limit"];
        assert!(limit.is_null() || limit == 1000, "{event}");
    }
}

#[test]
fn full_queue_for_broadcasts_of_macvlan() {
    let Some(lab) = Lab::new("macvlan", &[]) else { return };
    let pair = lab.pair();
    // A queue without room.
    let macvlan = "link add macvlan0 link eth0 type macvlan mode bridge bcqueuelen 0\nlink set macvlan0 up\n";
    if let Err(refused) = pair.b.try_run_with_input("ip -batch -", macvlan) {
        return lab::skip_for_kernel("macvlan", "macvlan", &refused);
    }
    let mut hop = Hop::between(pair.a_end, pair.b_end).with_dst("10.0.0.255");
    hop.macs.1 = [0xff; 6];
    let dropped = || pair.b.rx_dropped("eth0");
    let before = dropped();
    let tracing = Trace::of(&pair.b).start();
    pair.a.send_frames("eth0", [&hop.udp(64, 5440, 5441, &[0; 64]); FRAMES as usize]);
    wait::until_counter("rx dropped", before + FRAMES, dropped);
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "bridge-drop",
        class: "harmful",
        netns: &pair.b,
        count: FRAMES,
        packet: json!({"proto": "udp", "sport": 5440, "dst": "10.0.0.255", "dport": 5441}),
    });
    assert_eq!(event["direction"], "in", "{event}");
}

#[test]
fn iptables_rule_for_bridged_packets() {
    let Some(lab) = Lab::new("br-netfilter", &["bridge", "iptables-legacy"]) else { return };
    let bridged = lab.bridged();
    if !bridged.s.bridge_firewall(true) {
        return say_skip("br-netfilter", "this kernel has no br_netfilter, or it is not loaded");
    }
    let filter = Tool::Xtables(Family::Ipv4, "filter");
    let rule = match bridged.s.rule(filter, Hook::Forward, To::udp(5101), Verdict::Drop) {
        Ok(rule) => rule,
        Err(refused) => {
            return lab::skip_for_kernel("br-netfilter", "iptables-legacy filter table", &refused);
        }
    };
    let tracing = Trace::of(&bridged.s).start();
    send_udp(&bridged.a.udp_socket("10.0.0.1:5100"), "10.0.0.2:5101", FRAMES, 64);
    wait::until_counter("the rule's counter", FRAMES, || rule.packets());
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &bridged.s,
        count: FRAMES,
        packet: json!({"src": "10.0.0.1", "sport": 5100, "dst": "10.0.0.2", "dport": 5101, "len": 92}),
    });
    if lacks_evidence(event, "netfilter") {
        return;
    }
    assert_eq!(event["evidence"]["netfilter"]["family"], "ip", "{event}");
    assert_eq!(event["evidence"]["netfilter"]["hook"], "forward", "{event}");
}

/// A datagram's way over the bridge, by who sends it to whom.
#[derive(Clone, Copy, Debug)]
enum Path {
    /// From host to host.
    Through,
    /// To the bridge's own address.
    In,
    /// From the bridge's own address.
    Out,
}

#[test]
fn nft_rules_of_the_bridge_family() {
    let Some(lab) = Lab::new("nft-bridge", &["nft", "bridge"]) else { return };
    let bridged = lab.bridged();
    let tracing = Trace::of(&bridged.s).start();
    let hooks = [
        (Hook::Prerouting, Path::Through, 5101),
        (Hook::Input, Path::In, 5102),
        (Hook::Forward, Path::Through, 5103),
        (Hook::Output, Path::Out, 5104),
        (Hook::Postrouting, Path::Through, 5105),
    ];
    for (hook, path, port) in hooks {
        let rule = match bridged.s.rule(Tool::Nft("bridge"), hook, To::udp(port), Verdict::Drop) {
            Ok(rule) => rule,
            Err(refused) => return lab::skip_for_kernel("nft-bridge", "nft bridge family", &refused),
        };
        let (sender, from, to) = match path {
            Path::Through => (&bridged.a, "10.0.0.1", "10.0.0.2"),
            Path::In => (&bridged.a, "10.0.0.1", "10.0.0.3"),
            Path::Out => (&bridged.s, "10.0.0.3", "10.0.0.2"),
        };
        send_udp(&sender.udp_socket(&format!("{from}:5100")), &format!("{to}:{port}"), FRAMES, 64);
        wait::until_counter("the rule's counter", FRAMES, || rule.packets());
    }

    let outcome = tracing.stop();
    outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &bridged.s,
        count: FRAMES * hooks.len() as u64,
        packet: json!({"family": "ipv4", "proto": "udp", "sport": 5100, "len": 92}),
    });
    for (hook, path, port) in hooks {
        let events = outcome.events.iter().filter(|event| event["packet"]["dport"] == port);
        outcome.expect_count(&format!("{hook:?} {path:?}"), events.clone().count() as u64, FRAMES);
        for event in events {
            let direction = if matches!(path, Path::Out) { "out" } else { "in" };
            assert_eq!(event["direction"], direction, "{event}");
            if lacks_evidence(event, "netfilter") {
                continue;
            }
            assert_eq!(event["evidence"]["netfilter"]["family"], "bridge", "{event}");
            assert_eq!(event["evidence"]["netfilter"]["hook"], hook.name(), "{event}");
        }
    }
}
