//! Packets that BPF programs refuse on behalf of a cgroup or of a socket.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;

use netdrop_tests::binary::Killed;
use netdrop_tests::bpf::{CgroupHook, Kind, Program};
use netdrop_tests::link::Pair;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, wait};
use serde_json::json;

/// Datagrams of each run.
const DATAGRAMS: u64 = 5;

/// What a program answers that lets nothing pass.
const REFUSE: i32 = 0;

/// Both families: name, pair of hosts, their addresses.
type Family = (&'static str, fn(&Lab) -> Pair, &'static str, &'static str);
const FAMILIES: [Family; 2] =
    [("ipv4", Lab::pair, "10.0.0.1", "10.0.0.2"), ("ipv6", Lab::pair_with_ipv6, "fd00::1", "fd00::2")];

#[test]
fn egress() {
    for (family, pair, src, dst) in FAMILIES {
        let Some(lab) = Lab::new(&format!("cgroup-egress-{family}"), &["bash"]) else { return };
        let pair = pair(&lab);
        let cgroup = lab.cgroup();
        let program = Program::load(Kind::CgroupSkb, REFUSE);
        let _attached = program.attach_cgroup(cgroup.as_fd(), CgroupHook::Egress);
        let tracing = Trace::of(&pair.a).start();

        // The datagram of a refused printf is gone; the shell says so for each.
        let mut sender = pair.a.command("bash -c");
        sender.arg(format!(
            "exec 3<>/dev/udp/{dst}/5431; for i in {{1..{DATAGRAMS}}}; do printf x >&3 || echo refused; done"
        ));
        cgroup.admit(&mut sender);
        let ended = sender.output().expect("bash starts");
        let refused = String::from_utf8_lossy(&ended.stdout).lines().count() as u64;
        assert_eq!(refused, DATAGRAMS, "the sender is told: {ended:?}");
        assert_eq!(program.packets(), DATAGRAMS);

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "cgroup-bpf-drop",
            class: "harmful",
            netns: &pair.a,
            count: DATAGRAMS,
            packet: json!({"family": family, "proto": "udp", "src": src, "dst": dst, "dport": 5431}),
        });
        expect_reason(event, "BPF_CGROUP_EGRESS");
        assert_eq!(event["direction"], "out", "{event}");
        let counter = if family == "ipv4" { "IpOutDiscards" } else { "Ip6OutDiscards" };
        assert_eq!(pair.a.mib(counter), DATAGRAMS, "{counter}");
    }
}

#[test]
fn ingress() {
    for (family, pair, dst, src) in FAMILIES {
        let Some(lab) = Lab::new(&format!("cgroup-ingress-{family}"), &["bash"]) else { return };
        let pair = pair(&lab);
        let cgroup = lab.cgroup();
        let program = Program::load(Kind::CgroupSkb, REFUSE);
        let _attached = program.attach_cgroup(cgroup.as_fd(), CgroupHook::Ingress);

        // A client in the cgroup says hello, and keeps its socket until it is killed.
        let server = pair.b.udp_socket(&bracketed(src, 5431));
        let mut client = pair.a.command("bash -c");
        client.arg(format!("exec 3<>/dev/udp/{src}/5431; printf hello >&3; read")).stdin(Stdio::piped());
        cgroup.admit(&mut client);
        let _client = Killed::start(&mut client);
        let address = sender_of_one(&server);
        let tracing = Trace::of(&pair.a).start();

        send_udp(&server, &address.to_string(), DATAGRAMS, 64);
        wait::until_counter("datagrams the program saw", DATAGRAMS, || program.packets());
        let counter = if family == "ipv4" { "UdpInErrors" } else { "Udp6InErrors" };
        wait::until_counter(counter, DATAGRAMS, || pair.a.mib(counter));

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "socket-filter-drop",
            class: "harmful",
            netns: &pair.a,
            count: DATAGRAMS,
            packet: json!({"family": family, "proto": "udp", "src": src, "sport": 5431, "dst": dst,
                "dport": address.port()}),
        });
        expect_reason(event, "SOCKET_FILTER");
        assert_eq!(event["direction"], "in", "{event}");
    }
}

#[test]
fn filter_of_a_socket() {
    for (family, pair, src, dst) in FAMILIES {
        let Some(lab) = Lab::new(&format!("socket-filter-{family}"), &[]) else { return };
        let pair = pair(&lab);
        let filtered = pair.b.udp_socket(&bracketed(dst, 5433));
        let program = Program::load(Kind::SocketFilter, REFUSE);
        program.attach_socket(&filtered);
        let tracing = Trace::of(&pair.b).start();

        send_udp(&pair.a.udp_socket(&bracketed(src, 5432)), &bracketed(dst, 5433), DATAGRAMS, 64);
        wait::until_counter("datagrams the program saw", DATAGRAMS, || program.packets());
        let counter = if family == "ipv4" { "UdpInErrors" } else { "Udp6InErrors" };
        wait::until_counter(counter, DATAGRAMS, || pair.b.mib(counter));

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "socket-filter-drop",
            class: "harmful",
            netns: &pair.b,
            count: DATAGRAMS,
            packet: json!({"family": family, "proto": "udp", "src": src, "sport": 5432, "dst": dst, "dport": 5433}),
        });
        expect_reason(event, "SOCKET_FILTER");
    }
}

/// An address and port as sockets spell them.
fn bracketed(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Waits for one datagram and returns where it came from.
#[track_caller]
fn sender_of_one(socket: &UdpSocket) -> SocketAddr {
    socket.set_read_timeout(Some(wait::DEADLINE)).expect("a socket takes a timeout");
    socket.recv_from(&mut [0; 64]).expect("the client says hello").1
}
