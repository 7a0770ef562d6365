//! How a trace ends, and how netdrop refuses to start one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Lab, Netns, Outcome, Trace, binary, wait};
use rustix::process::Signal;

/// The user that has no rights anywhere.
const NOBODY: u32 = 65534;

/// Sends datagrams to a closed port over `lo` and waits until the kernel has counted them.
fn provoke(netns: &Netns, count: u64) {
    let before = netns.mib("UdpNoPorts");
    let socket = netns.udp_socket("127.0.0.1:5900");
    send_udp(&socket, "127.0.0.1:5901", count, 8);
    wait::until_counter("UdpNoPorts", before + count, || netns.mib("UdpNoPorts"));
}

/// Runs a trace over five drops and ends it with `signal`.
fn ended_by(name: &str, args: &[&str], signal: Signal) -> Option<Outcome> {
    let netns = Lab::new(name, &[])?.netns("only");
    let tracing = Trace::of(&netns).args(args).start();
    provoke(&netns, 5);
    tracing.signal(signal);
    Some(tracing.finish())
}

#[test]
fn sigint_ends_with_the_summary() {
    let Some(outcome) = ended_by("sigint", &[], Signal::INT) else { return };
    outcome.expect_count("shown", outcome.number("shown"), 5);
}

#[test]
fn sigterm_ends_with_the_summary() {
    let Some(outcome) = ended_by("sigterm", &[], Signal::TERM) else { return };
    outcome.expect_count("shown", outcome.number("shown"), 5);
}

#[test]
fn summary_only_shows_no_event() {
    let Some(outcome) = ended_by("summary-only", &["--summary-only"], Signal::INT) else { return };
    assert!(outcome.events.is_empty());
    outcome.expect_count("counted_only", outcome.number("counted_only"), 5);
    outcome.expect_count("port-closed", outcome.cause_count("port-closed"), 5);
}

#[test]
fn duration_ends_the_trace() {
    let Some(lab) = Lab::new("duration", &[]) else { return };
    let netns = lab.netns("only");
    let tracing = Trace::of(&netns).args(&["--duration", "1s"]).start();
    let outcome = tracing.finish();
    let elapsed = outcome.summary["elapsed_s"].as_f64().expect("elapsed_s is a number");
    assert!(elapsed >= 1.0, "ended after {elapsed} s");
}

#[test]
fn count_ends_the_trace_after_that_many_events() {
    let Some(lab) = Lab::new("count", &[]) else { return };
    let netns = lab.netns("only");
    let tracing = Trace::of(&netns).args(&["--count", "3"]).start();
    provoke(&netns, 10);
    let outcome = tracing.finish();
    assert_eq!(outcome.events.len(), 3);
    assert!(outcome.number("seen") <= 10);
}

#[test]
fn a_closed_pipe_ends_the_trace_quietly() {
    let Some(lab) = Lab::new("closed-pipe", &[]) else { return };
    let netns = lab.netns("only");
    let mut tracing = Trace::of(&netns).close_stdout_after(1).start();
    // netdrop learns of the closed pipe when it writes the next time.
    wait::until("netdrop ends", || {
        provoke(&netns, 1);
        if tracing.has_ended() { Ok(()) } else { Err("still running".to_owned()) }
    });
    let ended = tracing.finish_raw();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.status);
    assert_eq!(ended.stdout.len(), 1);
    // What this kernel lacks is said before tracing begins; after it, nothing.
    let last = ended.stderr.last().map(String::as_str).unwrap_or_default();
    assert!(last.starts_with("netdrop: tracing"), "{:?}", ended.stderr);
}

/// Fills the pipe of a trace that nobody reads, then ends it with a first and further signals.
fn ended_while_stalled(name: &str, first: Signal, further: Signal) {
    let Some(lab) = Lab::new(name, &[]) else { return };
    let netns = lab.netns("only");
    let mut tracing = Trace::of(&netns).stall_stdout().start();
    provoke(&netns, 5000);
    // An event has several hundred bytes: these are far more than a pipe takes.
    wait::until("the pipe fills", || match tracing.unread() {
        0 => Err("it is empty".to_owned()),
        _ => Ok(()),
    });
    let full = wait::until_stable("bytes in the pipe", || tracing.unread());
    assert!(!tracing.has_ended());

    tracing.signal(first);
    // Signals of one kind that come before the first is heard count as one, hence again and again.
    wait::until("netdrop ends although nobody reads", || {
        tracing.signal(further);
        if tracing.has_ended() { Ok(()) } else { Err(format!("still running, {full} bytes unread")) }
    });
    let ended = tracing.finish_raw();
    assert_eq!(ended.status.code(), Some(0), "{}: {:?}", ended.status, ended.stderr);
}

#[test]
fn a_second_sigint_ends_a_trace_whose_reader_stalls() {
    ended_while_stalled("stalled-int", Signal::INT, Signal::INT);
}

#[test]
fn a_sigterm_after_a_sigint_ends_a_trace_whose_reader_stalls() {
    ended_while_stalled("stalled-term", Signal::INT, Signal::TERM);
}

#[test]
fn without_rights_one_paragraph_says_what_to_do() {
    // Only root can become nobody.
    let Some(_lab) = Lab::new("nobody", &[]) else { return };
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().expect("create a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
    let copy = directory.path().join("netdrop");
    fs::copy(binary::path(), &copy).expect("copy netdrop");
    let mut command = Command::new(copy);
    command.args(["trace", "--json"]).uid(NOBODY).gid(NOBODY).current_dir("/");
    let finished = binary::run_command(&mut command).expect_code(4);
    assert_eq!(finished.stdout, "");
    let text = finished.stderr.trim_end();
    assert!(!text.is_empty() && !text.contains("\n\n"), "not one paragraph:\n{text}");
    assert!(text.contains("sudo") || text.contains("root") || text.contains("CAP_"), "no way out:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// Runs netdrop with wrong arguments and requires exit code 2 and a hint on stderr.
#[track_caller]
fn expect_usage_error(args: &[&str], hint: &str) {
    let finished = binary::run(args).expect_code(2);
    assert_eq!(finished.stdout, "", "{}", finished.command);
    assert!(finished.stderr.contains(hint), "{}: no `{hint}` in:\n{}", finished.command, finished.stderr);
}

#[test]
fn too_many_ports() {
    let ports: Vec<String> = (1..=17).map(|port| port.to_string()).collect();
    expect_usage_error(&["trace", "--port", &ports.join(",")], "16");
}

#[test]
fn sixteen_port_ranges_are_allowed() {
    let Some(lab) = Lab::new("sixteen", &[]) else { return };
    let netns = lab.netns("only");
    let ranges: Vec<String> = (1..=16).map(|n| format!("{}-{}", n * 100, n * 100 + 1)).collect();
    let tracing = Trace::of(&netns).args(&["--port", &ranges.join(",")]).start();
    let socket = netns.udp_socket("127.0.0.1:5900");
    send_udp(&socket, "127.0.0.1:1601", 1, 8);
    tracing.await_event("the last range matches", |event| event["packet"]["dport"] == 1601);
    tracing.stop();
}

#[test]
fn misspelt_names_get_suggestions() {
    expect_usage_error(&["trace", "--reason", "NO_SOCKT"], "NO_SOCKET");
    expect_usage_error(&["trace", "--cause", "port-clsed"], "port-closed");
    expect_usage_error(&["trace", "--location", "tcp_v4_rvc"], "tcp_v4_rcv");
}

#[test]
fn nonsense_is_refused() {
    for (args, hint) in [
        (&["trace", "--port", "70000"][..], "70000"),
        (&["trace", "--port", "20-10"], "20-10"),
        (&["trace", "--host", "10.0.0.0/33"], "10.0.0.0/33"),
        (&["trace", "--family", "ipx"], "ipx"),
        (&["trace", "--no-such-flag"], "--no-such-flag"),
    ] {
        expect_usage_error(args, hint);
    }
}

#[test]
fn filters_that_no_packet_can_match_are_refused() {
    for (args, hint) in [
        (["--proto", "icmp", "--port", "53"], "no ports"),
        (["--proto", "arp", "--family", "ip"], "ARP"),
        (["--family", "ip6", "--host", "10.0.0.0/8"], "IPv4 and IPv6"),
    ] {
        expect_usage_error(&[&["trace"][..], &args].concat(), hint);
    }
}

#[test]
fn a_misspelt_protocol_gets_a_suggestion() {
    expect_usage_error(&["trace", "--proto", "tpc"], "`tcp`");
}

#[test]
fn a_reason_given_as_cause_is_recognised() {
    expect_usage_error(&["trace", "--cause", "no_socket"], "--reason");
}
