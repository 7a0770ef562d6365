//! Drops that are only counted are counted as those that are shown.

use netdrop_tests::lab::say_skip;
use netdrop_tests::reason::lacks_all;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Lab, Trace, sockopt, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn under_the_same_causes() {
    if lacks_all("counted") {
        return;
    }
    let Some(lab) = Lab::new("counted", &["nft"]) else { return };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let shown = Trace::of(&netns).start();
    let counted = Trace::of(&netns).args(&["--summary-only"]).start();
    let of_other_reasons = Trace::of(&netns).args(&["--summary-only", "--reason", "!NETFILTER_DROP"]).start();

    // One reason says all, the other needs a look at the packet.
    let socket = netns.udp_socket("127.0.0.1:5970");
    send_udp(&socket, "127.0.0.1:9", 5, 18);
    send_udp(&socket, "127.0.0.1:5971", 3, 18);
    wait::until_counter("UdpNoPorts", 3, || netns.mib("UdpNoPorts"));
    let by_rule = netns.nft_packets("input");
    assert_eq!(by_rule, 5);

    let [shown, counted, of_other_reasons] = [shown, counted, of_other_reasons].map(|tracing| tracing.stop());
    shown.expect_count("netfilter-rule", shown.cause_count("netfilter-rule"), by_rule);
    shown.expect_count("port-closed", shown.cause_count("port-closed"), 3);
    assert_eq!(counted.summary["causes"], shown.summary["causes"]);
    assert_eq!(counted.summary["netns"], shown.summary["netns"]);
    assert_eq!(counted.number("seen"), counted.number("counted_only"));
    assert_eq!(of_other_reasons.cause_count("port-closed"), shown.cause_count("port-closed"));
    assert_eq!(of_other_reasons.cause_count("netfilter-rule"), 0);
    assert!(of_other_reasons.number("filtered") >= by_rule, "{}", of_other_reasons.summary);
}

#[test]
fn with_every_packet_of_an_skb() {
    let Some(lab) = Lab::new("counted-gso", &["nft"]) else { return };
    let netns = lab.netns("only");
    netns.nft_drop("input", "udp dport 9");
    let top = Trace::top_of(&netns).args(&["--interval", "1h"]).start();

    // Loopback takes what is to be cut into segments as it is.
    let socket = netns.udp_socket("127.0.0.1:5972");
    send_udp(&socket, "127.0.0.1:9", 2, 400);
    sockopt::set(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 100_i32);
    send_udp(&socket, "127.0.0.1:9", 3, 400);
    let by_rule = netns.nft_packets("input");
    if by_rule == 2 + 3 * 4 {
        return say_skip("counted-gso", "this kernel's loopback cuts datagrams into segments itself");
    }
    assert_eq!(by_rule, 5);

    top.signal(Signal::INT);
    let ended = top.finish_raw();
    let table: Value = serde_json::from_str(&ended.stdout[0]).expect("a line of JSON");
    assert_eq!(table["rows"][0]["cause"]["count"], 5, "{table}");
    assert_eq!(table["rows"][0]["segments"], json!(2 + 3 * 4), "{table}");
}
