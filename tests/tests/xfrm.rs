//! Packets that an IPsec policy does not let pass.

use netdrop_tests::family::at;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, wait};
use serde_json::{Value, json};

/// Datagrams of each run.
const DATAGRAMS: u64 = 5;

/// A counter of `/proc/net/xfrm_stat`.
#[track_caller]
fn xfrm_stat(netns: &Netns, name: &str) -> u64 {
    let text = netns.run("cat /proc/net/xfrm_stat");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn policy_for_this_host() {
    // A policy that blocks, and one that wants what arrives in the clear to be encrypted.
    let policies =
        [("XfrmInPolBlock", "action block"), ("XfrmInTmplMismatch", "tmpl proto esp mode transport")];
    for family in [Family::Ipv4, Family::Ipv6] {
        for (counter, policy) in policies {
            let Some(lab) = Lab::new(&format!("xfrm-in-{}", family.name()), &[]) else { return };
            let pair = lab.pair_of(family);
            let (src, dst) = (pair.a_end.ip, pair.b_end.ip);
            pair.b.run(&format!("ip xfrm policy add src {src} dst {dst} dir in {policy}"));
            let _open = pair.b.udp_socket(&at(dst, 5501));
            let tracing = Trace::of(&pair.b).start();

            send_udp(&pair.a.udp_socket(&at(src, 5500)), &at(dst, 5501), DATAGRAMS, 64);
            wait::until_counter(counter, DATAGRAMS, || xfrm_stat(&pair.b, counter));

            let outcome = tracing.stop();
            let event = outcome.expect(&Dropped {
                cause: "xfrm-policy-drop",
                class: "harmful",
                netns: &pair.b,
                count: DATAGRAMS,
                packet: json!({"family": family.name(), "proto": "udp", "src": src.to_string(), "sport": 5500,
                    "dst": dst.to_string(), "dport": 5501}),
            });
            expect_reason(event, "XFRM_POLICY");
            assert_eq!(event["direction"], "in", "{event}");
        }
    }
}

#[test]
fn policy_for_forwarded_packets() {
    for family in [Family::Ipv4, Family::Ipv6] {
        for (counter, direction) in [("XfrmInPolBlock", "fwd"), ("XfrmOutPolBlock", "out")] {
            let Some(lab) = Lab::new(&format!("xfrm-{direction}-{}", family.name()), &[]) else { return };
            let routed = lab.routed_of(family);
            let (src, dst) = (routed.a_end.ip, routed.b_end.ip);
            routed.r.run(&format!("ip xfrm policy add src {src} dst {dst} dir {direction} action block"));
            // For the forward policy of IPv6 the kernel gives no reason, and it drops others at the same place.
            let unsaid = (family, direction) == (Family::Ipv6, "fwd");
            let trace = Trace::of(&routed.r);
            let trace = if unsaid { trace.may_be_unknown("no reason at ip6_forward") } else { trace };
            let tracing = trace.start();

            send_udp(&routed.a.udp_socket(&at(src, 5500)), &at(dst, 5501), DATAGRAMS, 64);
            wait::until_counter(counter, DATAGRAMS, || xfrm_stat(&routed.r, counter));

            let (cause, class) =
                if unsaid { ("unknown", "suspect") } else { ("xfrm-policy-drop", "harmful") };
            let packet = json!({"family": family.name(), "proto": "udp", "src": src.to_string(), "sport": 5500,
                "dst": dst.to_string(), "dport": 5501});
            let outcome = tracing.stop();
            let event = outcome.expect(&Dropped { cause, class, netns: &routed.r, count: DATAGRAMS, packet });
            if unsaid {
                names_the_policy(event);
            } else {
                expect_reason(event, "XFRM_POLICY");
            }
        }
    }
}

#[test]
fn policy_where_no_socket_waits() {
    let Some(lab) = Lab::new("xfrm-closed", &[]) else { return };
    let pair = lab.pair();
    pair.b.run("ip xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir in action block");
    let unsaid = "the kernel gives no reason, and a datagram shorter than its header ends at the same place";
    let tracing = Trace::of(&pair.b).may_be_unknown(unsaid).start();

    send_udp(&pair.a.udp_socket("10.0.0.1:5500"), "10.0.0.2:5501", DATAGRAMS, 64);
    wait::until_counter("XfrmInPolBlock", DATAGRAMS, || xfrm_stat(&pair.b, "XfrmInPolBlock"));

    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "unknown",
        class: "suspect",
        netns: &pair.b,
        count: DATAGRAMS,
        packet: json!({"proto": "udp", "sport": 5500, "dport": 5501}),
    });
    names_the_policy(event);
}

/// Requires that the note of an unknown cause says what it may be.
#[track_caller]
fn names_the_policy(event: &Value) {
    let why = event["cause"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("xfrm-policy-drop"), "{event}");
}
