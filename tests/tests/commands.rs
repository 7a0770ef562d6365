//! The commands beside `trace`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use netdrop_tests::frame::Hop;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Lab, Trace, binary, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn top_counts_from_the_kernels_counters() {
    let Some(lab) = Lab::new("top", &[]) else { return };
    let netns = lab.netns("only");
    let top = Trace::top_of(&netns).args(&["--interval", "200ms", "--iterations", "6"]).start();
    let socket = netns.udp_socket("127.0.0.1:5950");
    send_udp(&socket, "127.0.0.1:5951", 7, 8);
    assert_eq!(netns.mib("UdpNoPorts"), 7);

    let ended = top.finish_raw();
    assert_eq!(ended.status.code(), Some(0));
    let tables: Vec<Value> =
        ended.stdout.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(tables.len(), 6, "{:?}", ended.stdout);
    let rows = || tables.iter().flat_map(|table| table["rows"].as_array().into_iter().flatten());
    let added: u64 = rows().filter_map(|row| row["added"].as_u64()).sum();
    assert_eq!(added, 7, "{:?}", ended.stdout);
    let last = rows().next_back().expect("the last table has a row");
    assert_eq!(last["cause"]["id"], "port-closed");
    assert_eq!(last["cause"]["count"], 7);
    assert_eq!(last["netns"]["inode"], netns.inode());
    assert_eq!(last["netns"]["name"], netns.name());
    assert!(tables.iter().all(|table| table["v"] == 1));
}

#[test]
fn top_prints_a_last_exact_table_on_a_signal() {
    let Some(lab) = Lab::new("top-signal", &[]) else { return };
    let netns = lab.netns("only");
    let top = Trace::top_of(&netns).args(&["--interval", "1h"]).start();
    send_udp(&netns.udp_socket("127.0.0.1:5952"), "127.0.0.1:5953", 7, 8);
    wait::until_counter("UdpNoPorts", 7, || netns.mib("UdpNoPorts"));

    top.signal(Signal::INT);
    let ended = top.finish_raw();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout.len(), 1, "{:?}", ended.stdout);
    let table: Value = serde_json::from_str(&ended.stdout[0]).expect("a line of JSON");
    assert_eq!(table["rows"].as_array().map(Vec::len), Some(1), "{table}");
    assert_eq!(table["rows"][0]["cause"]["id"], "port-closed", "{table}");
    assert_eq!(table["rows"][0]["cause"]["count"], 7, "{table}");
    assert_eq!(table["rows"][0]["added"], 7, "{table}");
}

#[test]
fn rows_of_top_sum_to_seen_with_benign_drops_too() {
    let Some(lab) = Lab::new("top-benign", &[]) else { return };
    let pair = lab.pair();
    let top = Trace::top_of(&pair.b).args(&["--interval", "1h"]).start();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let mut astray = hop;
    astray.macs.1 = [0x02, 0, 0, 0, 0, 0x99];
    // The frames keep their order: once the last were counted, the others were dropped.
    let frames = [astray.udp(64, 5954, 5955, &[]), hop.udp(64, 5954, 5955, &[])];
    pair.a.send_frames("eth0", [&frames[0]; 8].into_iter().chain([&frames[1]; 3]));
    wait::until_counter("UdpNoPorts", 3, || pair.b.mib("UdpNoPorts"));

    top.signal(Signal::INT);
    let ended = top.finish_raw();
    let table: Value = serde_json::from_str(&ended.stdout[0]).expect("a line of JSON");
    let rows = table["rows"].as_array().expect("rows");
    let sum: u64 = rows.iter().filter_map(|row| row["cause"]["count"].as_u64()).sum();
    assert_eq!(json!(sum), table["seen"], "{table}");
    let benign = rows.iter().find(|row| row["cause"]["class"] == "benign");
    assert_eq!(benign.map(|row| &row["cause"]["count"]), Some(&json!(8)), "{table}");
}

#[test]
fn doctor_shows_how_each_probe_point_is_observed() {
    let Some(_lab) = Lab::new("doctor", &[]) else { return };
    let finished = binary::run(&["doctor", "--json"]).expect_code(0);
    let report = finished.json_lines().remove(0);
    assert_eq!(report["v"], 1);
    let probes = report["probes"].as_array().expect("a list of probe points");
    let kfree_skb = probes.iter().find(|probe| probe["point"] == "skb:kfree_skb").expect("skb:kfree_skb");
    assert!(kfree_skb["rung"].is_string(), "{report}");
}

#[test]
fn doctor_without_rights_says_what_is_missing() {
    // Only root can become nobody.
    let Some(_lab) = Lab::new("doctor-nobody", &[]) else { return };
    let directory = tempfile::tempdir().expect("create a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
    let copy = directory.path().join("netdrop");
    fs::copy(binary::path(), &copy).expect("copy netdrop");
    let finished =
        binary::run_command(Command::new(copy).arg("doctor").uid(65534).gid(65534).current_dir("/"));
    let text = format!("{}{}", finished.stdout, finished.stderr);
    assert!(text.contains("CAP_BPF") || text.contains("root"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn explain_knows_causes_reasons_and_functions() {
    for name in ["port-closed", "NO_SOCKET", "ip_error"] {
        let finished = binary::run(&["explain", name]).expect_code(0);
        assert!(finished.stdout.contains(name), "{name} is not in:\n{}", finished.stdout);
        let answers = binary::run(&["explain", name, "--json"]).expect_code(0).json_lines();
        assert!(answers.iter().all(|answer| answer["v"] == 1), "{answers:?}");
    }
}

#[test]
fn explain_suggests_what_a_misspelt_name_may_mean() {
    let finished = binary::run(&["explain", "prot-closed"]).expect_code(2);
    assert!(finished.stderr.contains("port-closed"), "{}", finished.stderr);
}
