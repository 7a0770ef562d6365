//! Ladders of the probe points that show refused calls.

use super::probe::{Probe, Rung, Target, Way};
use crate::kernel::Kernel;

/// Each once.
pub(super) static PROBES: [Probe; 3] = [
    Probe {
        name: "sock:inet_sock_set_state",
        shows: "connections of TCP that are refused because no source port is free",
        costs: Some("connect() without a free source port is not seen: no packet is made"),
        for_events: false,
        essential: true,
        ways: connections,
    },
    Probe {
        name: "inet_csk_get_port",
        shows: "bind() and listen() of TCP that are refused because a port is taken, or none is free",
        costs: Some("bind() and listen() of TCP on a port that is taken are not seen: no packet is involved"),
        for_events: false,
        essential: true,
        ways: tcp,
    },
    Probe {
        name: "udp_lib_get_port",
        shows: "bind() of UDP that is refused, and datagrams for which no source port is free",
        costs: Some("UDP sockets that get no port are not seen: no packet is made"),
        for_events: false,
        essential: true,
        ways: udp,
    },
];

/// What perf tracepoints of system calls cost, whatever they are.
const SLOW_PATH: &str = "every system call of every process takes the kernel's slower path, some 70 ns more; one run \
                         for each bind() and listen()";
const SLOW_PATH_SENDS: &str = "every system call of every process takes the kernel's slower path, some 70 ns more; one \
                               run for each connect(), sendto() and sendmsg() (--no-consume: for connect() alone)";

/// Connections that get no source port.
fn connections(kernel: &Kernel, _: bool) -> Vec<Way> {
    if !kernel.calls.has_set_state {
        return Vec::new();
    }
    Way::tracepoint(
        "inet_sock_set_state",
        "inet_sock_set_state",
        "one run for each change of a TCP socket's state",
    )
}

/// bind() and listen() of TCP.
fn tcp(kernel: &Kernel, _: bool) -> Vec<Way> {
    let mut ways = if kernel.calls.has_tcp_get_port {
        get_port("inet_csk_get_port", &["inet_csk_get_port"])
    } else {
        Vec::new()
    };
    ways.push(Way::new(
        Rung::Tracepoint,
        SLOW_PATH,
        &[
            ("tcp_bind_exit", Target::SyscallExit("sys_exit_bind")),
            ("tcp_listen_exit", Target::SyscallExit("sys_exit_listen")),
        ],
    ));
    ways
}

/// bind() of UDP, and the port that a socket without one gets when it connects or sends.
fn udp(kernel: &Kernel, consume: bool) -> Vec<Way> {
    let mut ways = if kernel.calls.has_udp_get_port {
        get_port("udp_lib_get_port", &["udp_lib_get_port"])
    } else {
        Vec::new()
    };
    let mut parts = vec![
        ("udp_bind_exit", Target::SyscallExit("sys_exit_bind")),
        ("udp_connect_exit", Target::SyscallExit("sys_exit_connect")),
    ];
    if consume {
        parts.push(("udp_sendto_exit", Target::SyscallExit("sys_exit_sendto")));
        parts.push(("udp_sendmsg_exit", Target::SyscallExit("sys_exit_sendmsg")));
    }
    ways.push(Way::new(Rung::Tracepoint, SLOW_PATH_SENDS, &parts));
    ways
}

/// The function of a protocol that gives a socket its port.
fn get_port(function: &'static str, probed: &'static [&'static str]) -> Vec<Way> {
    let [entry, exit, typed] = ["kprobe", "kretprobe", "fexit"].map(|kind| format!("{function}_{kind}"));
    vec![
        Way::new(
            Rung::Fexit,
            "one run for each port that is asked for",
            &[(&typed, Target::Fexit(function))],
        ),
        Way::new(
            Rung::Kprobe,
            "two probes for each port that is asked for",
            &[(&entry, Target::Kprobe(probed)), (&exit, Target::Kprobe(probed))],
        ),
    ]
}
