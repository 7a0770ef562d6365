//! Packets that an XDP program drops, on any device and in the driver of veth.

use netdrop_tests::bpf::{Kind, Program, XdpMode, xdp};
use netdrop_tests::frame::Hop;
use netdrop_tests::reason::{expect_certain, may_be_unnamed};
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::{Value, json};

/// Frames of each run.
const FRAMES: u64 = 5;

/// Sends frames, of IPv4 and of IPv6, to a device on which a program answers `answer`; returns the first
/// event of each.
#[track_caller]
fn judged_by_xdp(name: &str, mode: XdpMode, answer: i32, class: &'static str) -> Vec<Value> {
    let addresses = [("ipv4", "10.0.0.1", "10.0.0.2"), ("ipv6", "fd00::1", "fd00::2")];
    let one_family = |(family, src, dst): (&str, &str, &str)| {
        let lab = Lab::new(name, &[])?;
        // No host here speaks IPv6: the program sees nothing that the scenario did not send.
        let pair = lab.pair();
        let frame =
            Hop::between(pair.a_end, pair.b_end).with_src(src).with_dst(dst).udp(64, 5410, 5411, &[0; 64]);
        let program = Program::load(Kind::Xdp, answer);
        let _attached = program.attach_xdp(&pair.b, "eth0", mode).expect("veth runs XDP programs");
        let tracing = Trace::of(&pair.b).start();

        pair.a.send_frames("eth0", [&frame; FRAMES as usize]);
        wait::until_counter("packets the program saw", FRAMES, || program.packets());

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "xdp-drop",
            class,
            netns: &pair.b,
            count: FRAMES,
            packet: json!({"family": family, "proto": "udp", "src": src, "sport": 5410, "dst": dst, "dport": 5411}),
        });
        expect_certain(event);
        assert_eq!(event["interface"]["name"], "eth0", "{event}");
        if !may_be_unnamed(event) {
            assert_eq!(event["direction"], "in", "{event}");
        }
        Some(event.clone())
    };
    addresses.into_iter().filter_map(one_family).collect()
}

#[test]
fn generic() {
    for event in judged_by_xdp("xdp-generic", XdpMode::Generic, xdp::DROP, "harmful") {
        // 5.10's compiler put the one into the other.
        let place = event["location"]["symbol"].as_str();
        assert!(["do_xdp_generic", "netif_receive_generic_xdp"].map(Some).contains(&place), "{event}");
    }
}

#[test]
fn native_of_veth() {
    for event in judged_by_xdp("xdp-native", XdpMode::Native, xdp::DROP, "harmful") {
        let place = event["location"]["symbol"].as_str();
        assert!(["veth_xdp_rcv_skb", "veth_poll"].map(Some).contains(&place), "{event}");
    }
}

#[test]
fn program_that_fails() {
    judged_by_xdp("xdp-aborted", XdpMode::Generic, xdp::ABORTED, "harmful");
}

#[test]
fn redirect_to_nowhere() {
    // The program never said where to.
    judged_by_xdp("xdp-redirect", XdpMode::Generic, xdp::REDIRECT, "suspect");
}
