//! `--pcap`: dropped packets as a capture, beside the other output or instead of it.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use netdrop_tests::capture::{Capture, Piped, linktype};
use netdrop_tests::damage::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN};
use netdrop_tests::frame::Hop;
use netdrop_tests::lab::skip_for_kernel;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Lab, Netns, Trace, binary, reason, wait};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of a packet that netdrop captures.
const SNAPLEN: usize = 128;

/// A directory of the test's own, and a file in it that does not exist yet.
fn scratch() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let path = directory.path().join("drops.pcapng");
    (directory, path)
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of plain characters")
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_nanos()).expect("it is before 2554")
}

/// What [`provoke`] sends from. One for the whole test: a process that another test is just starting may
/// hold a closed socket for a moment longer, and its port with it.
fn sender(netns: &Netns) -> UdpSocket {
    netns.udp_socket("127.0.0.1:5970")
}

/// Sends datagrams to a closed port over `lo` and waits until the kernel has counted them.
fn provoke(netns: &Netns, sender: &UdpSocket, count: u64) {
    let before = netns.mib("UdpNoPorts");
    send_udp(sender, "127.0.0.1:5971", count, 8);
    wait::until_counter("UdpNoPorts", before + count, || netns.mib("UdpNoPorts"));
}

/// Reads a capture that is whole.
#[track_caller]
fn read(path: &Path) -> Capture {
    Capture::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn frames_as_they_came_and_why_they_were_dropped() {
    let Some(lab) = Lab::new("pcap-frames", &[]) else { return };
    let pair = lab.pair();
    let (_directory, path) = scratch();
    let hop = Hop::between(pair.a_end, pair.b_end);
    let frames = [hop.udp(64, 5972, 5973, b"short"), hop.udp(64, 5974, 5975, &[0x6e; 1000])];
    let tracing = Trace::of(&pair.b).args(&["--pcap", shown(&path)]).start();

    let before = now();
    pair.a.send_frames("eth0", frames.iter().cycle().take(6));
    wait::until_counter("UdpNoPorts", 6, || pair.b.mib("UdpNoPorts"));
    tracing.await_events("the frames", 6, |event| event["cause"]["id"] == "port-closed");
    let after = now();
    let outcome = tracing.stop();

    let capture = read(&path);
    assert!(capture.application.starts_with("netdrop "), "{capture:?}");
    assert_eq!(capture.packets.len(), outcome.events.len());
    assert_eq!(outcome.events.len(), 6);
    for ((packet, event), frame) in capture.packets.iter().zip(&outcome.events).zip(frames.iter().cycle()) {
        let interface = capture.interface_of(packet);
        assert_eq!((interface.name.as_deref(), interface.linktype), (Some("eth0"), linktype::ETHERNET));
        let netns = format!("netns {} (inode {})", pair.b.name(), pair.b.inode());
        assert_eq!(interface.description, netns);

        assert_eq!(packet.bytes, frame[..frame.len().min(SNAPLEN)]);
        assert_eq!(packet.original, frame.len());
        assert!((before..=after).contains(&packet.time), "{before} {} {after}", packet.time);
        let time: jiff::Timestamp =
            event["time"].as_str().and_then(|time| time.parse().ok()).expect("a time");
        assert_eq!(i128::from(packet.time), time.as_nanosecond());

        let words = [
            ("cause", "port-closed"),
            ("class", "suspect"),
            ("confidence", if reason::known("NO_SOCKET") { "observed" } else { "inferred" }),
            ("location", event["location"]["symbol"].as_str().expect("a symbol")),
            ("netns", pair.b.name()),
            ("inode", &pair.b.inode().to_string()),
            ("direction", "in"),
        ];
        let reason = reason::known("NO_SOCKET").then_some("NO_SOCKET");
        assert_eq!(packet.word("reason"), reason, "reason in {}", packet.comment);
        for (key, value) in words {
            assert_eq!(packet.word(key), Some(value), "{key} in {}", packet.comment);
        }
        // Inbound, unicast.
        assert_eq!(packet.flags, 0b101, "{}", packet.comment);
    }
    let sums = capture.sums.expect("a run that has ended says its sums");
    assert!(sums.contains(" seen=6 shown=6 "), "{sums}");
}

/// Drops datagrams on their way out, before they have an Ethernet header.
fn dropped_before_the_ethernet_header(name: &str, ipv6: bool) {
    let Some(lab) = Lab::new(name, &["nft"]) else { return };
    let pair = if ipv6 { lab.pair_with_ipv6() } else { lab.pair() };
    let (_directory, path) = scratch();
    pair.a.nft_drop("output", "udp dport 5977");
    let tracing = Trace::of(&pair.a).args(&["-w", shown(&path)]).start();

    let (from, to) = if ipv6 { ("[fd00::1]", "[fd00::2]") } else { ("10.0.0.1", "10.0.0.2") };
    let socket = pair.a.udp_socket(&format!("{from}:5976"));
    let refused = send_udp(&socket, &format!("{to}:5977"), 3, 300).refused;
    assert_eq!(refused, 3, "all are dropped");
    assert_eq!(pair.a.nft_packets("output"), refused);
    // And one that has such a header, in the same capture.
    let answer = Hop::between(pair.b_end, pair.a_end).udp(64, 5978, 5979, &[0; 30]);
    pair.b.send_frames("eth0", [&answer]);
    let counter = if ipv6 { "Udp6NoPorts" } else { "UdpNoPorts" };
    wait::until_counter(counter, 1, || pair.a.mib(counter));
    let outcome = tracing.stop();

    let capture = read(&path);
    let raw = capture.with_linktype(linktype::RAW);
    outcome.expect_count("packets without Ethernet header", raw.len() as u64, refused);
    let header = if ipv6 { IPV6_LEN } else { IPV4_LEN };
    for packet in raw {
        assert_eq!(packet.bytes[0] >> 4, if ipv6 { 6 } else { 4 });
        assert_eq!((packet.bytes.len(), packet.original), (SNAPLEN, header + 8 + 300));
        // Destination port, payload.
        assert_eq!(packet.bytes[header + 2..header + 4], 5977_u16.to_be_bytes());
        assert_eq!(packet.bytes[header + 8], b'n');
        assert_eq!(packet.word("cause"), Some("netfilter-rule"), "{}", packet.comment);
        assert_eq!(packet.word("direction"), Some("out"), "{}", packet.comment);
        assert_eq!(packet.flags, 0b10, "{}", packet.comment);
    }
    let ethernet = capture.with_linktype(linktype::ETHERNET);
    assert_eq!(ethernet.iter().map(|packet| &packet.bytes).collect::<Vec<_>>(), [&answer]);
}

#[test]
fn ipv4_without_ethernet_header() {
    dropped_before_the_ethernet_header("pcap-raw", false);
}

#[test]
fn ipv6_without_ethernet_header() {
    dropped_before_the_ethernet_header("pcap-raw6", true);
}

#[test]
fn arp_without_ethernet_header() {
    let Some(lab) = Lab::new("pcap-arp", &["nft"]) else { return };
    let pair = lab.pair();
    let (_directory, path) = scratch();
    let script = "table arp ndt {
        chain output {
            type filter hook output priority 0;
            drop
        }
    }";
    if let Err(refused) = pair.a.try_nft(script) {
        return skip_for_kernel("arp_without_ethernet_header", "nft arp family", &refused);
    }
    let tracing = Trace::of(&pair.a).args(&["--pcap", shown(&path)]).start();
    send_udp(&pair.a.udp_socket("10.0.0.1:5980"), "10.0.0.77:5981", 1, 8);
    let is_arp = |event: &Value| event["packet"]["proto"] == "arp";
    tracing.await_event("the question for 10.0.0.77", is_arp);
    let outcome = tracing.stop();

    let capture = read(&path);
    let cooked = capture.with_linktype(linktype::LINUX_SLL);
    assert_eq!(cooked.len(), outcome.events.iter().filter(|event| is_arp(event)).count());
    for packet in cooked {
        // Ethertype, then an ARP question for Ethernet and IPv4.
        assert_eq!(packet.bytes[14..24], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(packet.bytes[16 + 24..], [10, 0, 0, 77]);
        assert_eq!(packet.original, packet.bytes.len());
        assert_eq!(packet.word("cause"), Some("netfilter-rule"), "{}", packet.comment);
    }
}

#[test]
fn filters_count_and_benign_drops_as_for_events() {
    for (args, expected) in
        [(&[][..], 3), (&["--all"], 11), (&["--count", "2"], 2), (&["--dst-port", "5985"], 1)]
    {
        let Some(lab) = Lab::new("pcap-filters", &[]) else { return };
        let pair = lab.pair();
        let (_directory, path) = scratch();
        let hop = Hop::between(pair.a_end, pair.b_end);
        let mut astray = hop;
        astray.macs.1 = [0x02, 0, 0, 0, 0, 0x99];
        let frames: Vec<Vec<u8>> = (0..8)
            .map(|_| astray.udp(64, 5982, 5983, &[]))
            .chain((5984..=5986).map(|port| hop.udp(64, 5982, port, &[])))
            .collect();
        let tracing = Trace::of(&pair.b).args(&["--pcap", shown(&path)]).args(args).start();
        pair.a.send_frames("eth0", &frames);
        // The frames keep their order: once the last were counted, the others were dropped.
        wait::until_counter("UdpNoPorts", 3, || pair.b.mib("UdpNoPorts"));
        let outcome = if args.contains(&"--count") { tracing.finish() } else { tracing.stop() };
        let packets = read(&path).packets.len();
        assert_eq!(packets, outcome.events.len(), "{args:?}");
        assert_eq!(packets, expected, "{args:?}");
    }
}

#[test]
fn readable_while_it_is_written() {
    let Some(lab) = Lab::new("pcap-growing", &[]) else { return };
    let netns = lab.netns("only");
    let sender = sender(&netns);
    let (_directory, path) = scratch();
    let tracing = Trace::of(&netns).args(&["--pcap", shown(&path)]).start();
    for total in [3, 10] {
        provoke(&netns, &sender, total - netns.mib("UdpNoPorts"));
        wait::until("packets in the file", || {
            let capture = Capture::read(&path)?;
            assert_eq!(capture.sums, None, "the run has not ended");
            match capture.packets.len() as u64 {
                packets if packets == total => Ok(()),
                packets => Err(format!("{packets} of {total}")),
            }
        });
    }
    tracing.stop();
    assert!(read(&path).sums.is_some());
    tcpdump_reads(&path, 10);
}

/// Where tcpdump is installed, it must find this many packets in a capture of one link type.
fn tcpdump_reads(path: &Path, packets: usize) {
    let Ok(read) = Command::new("tcpdump").args(["-n", "-r", shown(path)]).output() else { return };
    let lines = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{read:?}");
    assert_eq!(lines.lines().count(), packets, "{lines}");
    assert!(lines.lines().all(|line| line.contains("127.0.0.1.5970 > 127.0.0.1.5971: UDP")), "{lines}");
}

#[test]
fn an_old_file_is_replaced_and_a_new_one_gets_what_the_umask_leaves() {
    let Some(lab) = Lab::new("pcap-file", &[]) else { return };
    let netns = lab.netns("only");
    let (_directory, path) = scratch();
    let run = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 027; exec \"$0\" trace --duration 100ms --netns \"$1\" --pcap \"$2\""]);
        command.arg(binary::path()).arg(netns.path()).arg(&path);
        binary::run_command(&mut command).expect_code(0);
        assert_eq!(read(&path).packets.len(), 0);
    };
    run();
    let mode = fs::metadata(&path).expect("the capture is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "{mode:o}");
    fs::write(&path, vec![0xff; 100_000]).expect("write a file of our own");
    run();
}

#[test]
fn drops_without_bytes_are_said_at_the_end() {
    let Some(lab) = Lab::new("pcap-unix", &[]) else { return };
    let netns = lab.netns("only");
    let (_directory, path) = scratch();
    let tracing = Trace::of(&netns).args(&["--all", "--pcap", shown(&path)]).start();
    netns.enter(|| {
        use std::io::Write;
        let (mut writer, _reader) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        writer.write_all(&[0x45; 60]).expect("write to a socket");
    });
    tracing.await_event("the unread data", |event| event["location"]["symbol"] == "unix_release_sock");
    let outcome = tracing.stop();
    assert_eq!(read(&path).packets.len(), 0);
    let said = outcome.stderr.last().map(String::as_str).unwrap_or_default();
    let expected = format!("netdrop: not in the capture: {} of the drops shown", outcome.events.len());
    assert!(said.starts_with(&expected), "{:?}", outcome.stderr);
}

#[test]
fn a_capture_on_stdout_with_the_summary_on_stderr() {
    let Some(lab) = Lab::new("pcap-stdout", &[]) else { return };
    let netns = lab.netns("only");
    let piped = Piped::start(&netns, usize::MAX);
    provoke(&netns, &sender(&netns), 4);
    piped.await_packets(4);
    let (status, stdout, stderr) = piped.stop();
    assert_eq!(status.code(), Some(0), "{stderr:?}");
    let capture = Capture::parse(&stdout).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(capture.packets.len(), 4);
    assert!(capture.packets.iter().all(|packet| packet.original == ETHERNET_LEN + IPV4_LEN + 8 + 8));
    let text = stderr.join("\n");
    assert!(text.contains("seen 4 = shown 4 + hidden 0"), "{text}");
    assert!(text.contains("port-closed"), "{text}");
}

#[test]
fn a_reader_of_stdout_that_goes_ends_the_run_quietly() {
    let Some(lab) = Lab::new("pcap-closed", &[]) else { return };
    let netns = lab.netns("only");
    let sender = sender(&netns);
    let mut piped = Piped::start(&netns, 1);
    wait::until("netdrop ends", || {
        provoke(&netns, &sender, 1);
        if piped.has_ended() { Ok(()) } else { Err("still running".to_owned()) }
    });
    let (status, _, stderr) = piped.finish();
    assert_eq!(status.code(), Some(0), "{stderr:?}");
    let last = stderr.last().map(String::as_str).unwrap_or_default();
    assert!(last.starts_with("netdrop: tracing"), "{stderr:?}");
}

#[test]
fn a_full_device_ends_the_run_with_an_error_and_the_summary() {
    let Some(lab) = Lab::new("pcap-full", &[]) else { return };
    let netns = lab.netns("only");
    let netns = netns.path().to_string_lossy();
    // It ends by itself, and as soon as it traces: there is nothing to wait for.
    let finished = binary::run(&["trace", "--json", "--netns", &netns, "--pcap", "/dev/full"]).expect_code(1);
    assert_eq!(finished.json_lines().last().expect("a summary")["kind"], "summary");
    let said = finished.stderr.lines().last().unwrap_or_default();
    assert!(said.starts_with("netdrop: cannot write to /dev/full: No space left on device"), "{said}");
}

#[test]
fn a_disk_that_fills_up_leaves_whole_packets() {
    let Some(lab) = Lab::new("pcap-fills", &["unshare", "mount"]) else { return };
    let netns = lab.netns("only");
    let sender = sender(&netns);
    let (directory, path) = scratch();
    // A file system of its own, in a mount namespace that ends with the shell.
    let script = "mount -t tmpfs -o size=64k none \"$1\" || exit 9
        \"$0\" trace --json --netns \"$2\" --pcap \"$1/drops\"; code=$?
        cat \"$1/drops\" > \"$3\"; exit $code";
    let mount_point = directory.path().join("small");
    fs::create_dir(&mount_point).expect("create a directory");
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(binary::path())
        .arg(&mount_point)
        .arg(netns.path())
        .arg(&path);
    let finished = std::thread::scope(|scope| {
        let run = scope.spawn(|| binary::run_command(&mut command));
        while !run.is_finished() {
            provoke(&netns, &sender, 20);
        }
        run.join().expect("netdrop ends")
    });
    let finished = finished.expect_code(1);
    assert!(finished.stderr.contains("No space left on device"), "{}", finished.stderr);
    let lines = finished.json_lines();
    let summary = lines.last().expect("a summary");
    assert_eq!(summary["kind"], "summary");
    let size = fs::metadata(&path).expect("the capture is there").len();
    assert!(size > 32 * 1024, "{size} bytes of 64 KiB");
    let packets = read(&path).packets.len() as u64;
    assert!(packets > 0 && packets <= summary["shown"].as_u64().expect("a count"), "{packets} of {summary}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (_directory, path) = scratch();
    for (args, hint) in [
        (&["trace", "--pcap", "-", "--json"][..], "both want standard output"),
        (&["trace", "--pcap", shown(&path), "--summary-only"], "--summary-only"),
    ] {
        let finished = binary::run(args).expect_code(2);
        assert_eq!(finished.stdout, "");
        assert!(finished.stderr.contains(hint), "{}", finished.stderr);
    }
    assert!(!path.exists());
}
