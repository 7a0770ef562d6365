//! Calls that the kernel refuses for want of a port: connect(), bind(), listen(), and datagrams.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use netdrop_tests::link::Pair;
use netdrop_tests::refusal::{
    FIRST, Refused, bound, close_first, failed_bind, failed_connect, failed_listen, failed_send, local,
    new_socket,
};
use netdrop_tests::{Family, Lab, Netns, Trace, doctor, sockopt, wait};
use rustix::net::SendFlags;
use serde_json::{Value, json};

/// Ports that the kernel may choose. Of an odd number it may leave one out (`__inet_hash_connect()`).
const PORTS: u16 = 6;

/// Calls that are refused.
const COUNT: u64 = 7;

/// Where a service listens.
const SERVICE: u16 = 80;

/// The call, where this kernel says which one of UDP it was.
fn told(name: &'static str, errno: &'static str) -> Option<(&'static str, &'static str)> {
    let registers = doctor::by_function("udp_lib_get_port") && !doctor::shows_registers();
    (!registers).then_some((name, errno))
}

/// Two hosts, of which `a` has few ports.
fn pair_with_few_ports(name: &str, family: Family) -> Option<Pair> {
    let pair = Lab::new(name, &[])?.pair_of(family);
    pair.a.few_ports(PORTS);
    Some(pair)
}

#[test]
fn connect_without_a_free_port() {
    connect_refused("refuse-c4", Family::Ipv4);
}

#[test]
fn connect_without_a_free_port_over_ipv6() {
    connect_refused("refuse-c6", Family::Ipv6);
}

fn connect_refused(name: &str, family: Family) {
    let Some(pair) = pair_with_few_ports(name, family) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let _listener = pair.b.tcp_listener(&service.to_string());
    let connected = pair.a.connect_all(service, PORTS);
    let tracing = Trace::of(&pair.a).start();

    pair.a.enter(|| {
        for _ in 0..COUNT {
            let error = failed_connect(service, true);
            assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
        }
    });

    let outcome = tracing.stop();
    outcome.expect_refusals(COUNT);
    let event = outcome.expect_refused(&Refused {
        cause: "source-port-exhausted",
        call: Some(("connect", "EADDRNOTAVAIL")),
        netns: &pair.a,
        count: COUNT,
        packet: json!({"family": family.name(), "proto": "tcp", "src": pair.a_end.ip.to_string(), "sport": null,
            "dst": service.ip().to_string(), "dport": SERVICE}),
    });
    assert_eq!(event["direction"], "out", "{event}");
    let ports = json!({"low": FIRST, "high": FIRST + PORTS - 1, "reserved": 0, "total": PORTS, "used": PORTS,
        "time_wait": 0, "listening": 0});
    assert_eq!(event["evidence"]["ports"], ports, "{event}");
    assert_eq!(outcome.cause_count("source-port-exhausted"), COUNT);
    assert_eq!(outcome.netns_count(&pair.a), COUNT);
    drop(connected);
}

#[test]
fn ports_in_time_wait() {
    const RESERVED: u16 = 1;
    let Some(pair) = pair_with_few_ports("refuse-tw", Family::Ipv4) else { return };
    pair.a.sysctl("net/ipv4/ip_local_reserved_ports", &FIRST.to_string());
    pair.a.sysctl("net/ipv4/tcp_tw_reuse", "0");
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let listener = pair.b.tcp_listener(&service.to_string());
    let mut connected = pair.a.connect_all(service, PORTS - RESERVED);
    // Whoever closes first waits.
    const WAITING: usize = 3;
    connected.truncate(PORTS as usize - RESERVED as usize - WAITING);
    let (mut accepted, mut ended) = (Vec::new(), 0);
    for _ in 0..PORTS - RESERVED {
        let (mut stream, peer) = listener.accept().unwrap();
        if connected.iter().any(|stream| stream.local_addr().unwrap() == peer) {
            accepted.push(stream);
        } else {
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
            ended += 1;
        }
    }
    assert_eq!(ended, WAITING);
    wait::until("connections wait", || {
        let waiting = pair.a.run("ss -tanH state time-wait").lines().count();
        if waiting == WAITING { Ok(()) } else { Err(format!("{waiting}")) }
    });
    let tracing = Trace::of(&pair.a).start();

    let error = pair.a.enter(|| failed_connect(service, true));

    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
    let outcome = tracing.stop();
    outcome.expect_refusals(1);
    assert_eq!(outcome.cause_count("source-port-exhausted"), 1);
    let ports = &outcome.refusals[0]["evidence"]["ports"];
    assert_eq!((&ports["reserved"], &ports["total"], &ports["used"]), (&json!(1), &json!(5), &json!(5)));
    assert_eq!(ports["time_wait"], WAITING);
}

#[test]
fn datagram_without_a_free_port() {
    datagram_refused("refuse-u4", Family::Ipv4);
}

#[test]
fn datagram_without_a_free_port_over_ipv6() {
    datagram_refused("refuse-u6", Family::Ipv6);
}

fn datagram_refused(name: &str, family: Family) {
    let Some(pair) = pair_with_few_ports(name, family) else { return };
    let to = SocketAddr::new(pair.b_end.ip, 9);
    let any = SocketAddr::new(family.pick("0.0.0.0", "::").parse().expect("an address"), 0);
    let taken: Vec<UdpSocket> =
        pair.a.enter(|| (0..PORTS).map(|_| UdpSocket::bind(any).expect("a free port")).collect());
    let tracing = Trace::of(&pair.a).start();

    pair.a.enter(|| {
        for _ in 0..COUNT {
            assert_eq!(failed_send(to).raw_os_error(), Some(libc::EAGAIN));
            assert_eq!(failed_connect(to, false).raw_os_error(), Some(libc::EAGAIN));
            assert_eq!(failed_sendmsg(to).raw_os_error(), Some(libc::EAGAIN));
            assert_eq!(failed_bind(any, false).raw_os_error(), Some(libc::EADDRINUSE));
        }
    });

    let outcome = tracing.stop();
    outcome.expect_refusals(4 * COUNT);
    assert_eq!(outcome.cause_count("source-port-exhausted"), 4 * COUNT);
    let destination =
        if told("", "").is_some() { json!({"dport": 9, "dst": to.ip().to_string()}) } else { json!({}) };
    for call in ["sendto", "connect", "sendmsg"] {
        let Some(call) = told(call, "EAGAIN") else { continue };
        let event = outcome.expect_refused(&Refused {
            cause: "source-port-exhausted",
            call: Some(call),
            netns: &pair.a,
            count: COUNT,
            packet: destination.clone(),
        });
        let ports = &event["evidence"]["ports"];
        assert_eq!((&ports["used"], &ports["total"]), (&json!(PORTS), &json!(PORTS)), "{event}");
        assert!(ports["time_wait"].is_null(), "{event}");
    }
    if let Some(call) = told("bind", "EADDRINUSE") {
        outcome.expect_refused(&Refused {
            cause: "source-port-exhausted",
            call: Some(call),
            netns: &pair.a,
            count: COUNT,
            packet: json!({"proto": "udp", "family": family.name(), "sport": null, "dport": null}),
        });
    }
    drop(taken);
}

/// Sends by `sendmsg()` and returns how that failed.
#[track_caller]
fn failed_sendmsg(to: SocketAddr) -> io::Error {
    let socket = new_socket(to.ip(), false);
    let data = [io::IoSlice::new(b"x")];
    let mut control = rustix::net::SendAncillaryBuffer::default();
    let sent = rustix::net::sendmsg_addr(&socket, &to, &data, &mut control, SendFlags::empty());
    io::Error::from(sent.expect_err("sendmsg was not refused"))
}

#[test]
fn bind_without_a_free_port() {
    let Some(lab) = Lab::new("refuse-b0", &[]) else { return };
    let netns = lab.netns("one");
    netns.few_ports(PORTS);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let taken: Vec<_> =
        netns.enter(|| (0..PORTS).map(|_| std::net::TcpListener::bind(any).unwrap()).collect());
    let tracing = Trace::of(&netns).start();

    netns.enter(|| {
        for _ in 0..COUNT {
            assert_eq!(failed_bind(any, true).raw_os_error(), Some(libc::EADDRINUSE));
        }
    });

    let outcome = tracing.stop();
    outcome.expect_refusals(COUNT);
    let event = outcome.expect_refused(&Refused {
        cause: "source-port-exhausted",
        call: Some(("bind", "EADDRINUSE")),
        netns: &netns,
        count: COUNT,
        packet: json!({"proto": "tcp", "src": "127.0.0.1", "sport": null, "dst": null}),
    });
    let ports = &event["evidence"]["ports"];
    assert_eq!((&ports["used"], &ports["listening"]), (&json!(PORTS), &json!(PORTS)), "{event}");
    drop(taken);
}

/// Requires `count` refusals of a port of TCP in the outcome, and returns the holder that the first one names.
#[track_caller]
fn conflict<'o>(
    outcome: &'o netdrop_tests::Outcome,
    netns: &Netns,
    call: &'static str,
    at: SocketAddr,
    count: u64,
) -> &'o Value {
    outcome.expect_refusals(count);
    assert_eq!(outcome.cause_count("listen-port-conflict"), count);
    let event = outcome.expect_refused(&Refused {
        cause: "listen-port-conflict",
        call: Some((call, "EADDRINUSE")),
        netns,
        count,
        packet: json!({"src": at.ip().to_string(), "sport": at.port(), "dst": null, "dport": null}),
    });
    assert!(event["direction"].is_null(), "{event}");
    &event["evidence"]["holder"]
}

#[test]
fn port_of_a_connection() {
    let Some(pair) = pair_with_few_ports("refuse-est", Family::Ipv4) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let _listener = pair.b.tcp_listener(&service.to_string());
    let connected = pair.a.connect_all(service, 1);
    let taken = connected[0].local_addr().unwrap();
    let tracing = Trace::of(&pair.a).start();

    pair.a.enter(|| {
        for _ in 0..COUNT {
            assert_eq!(failed_bind(taken, true).raw_os_error(), Some(libc::EADDRINUSE));
        }
    });

    let outcome = tracing.stop();
    let holder = conflict(&outcome, &pair.a, "bind", taken, COUNT);
    assert_eq!(holder["state"], "established", "{holder}");
    assert_eq!(holder["local"], taken.to_string(), "{holder}");
    assert_eq!(holder["remote"], service.to_string(), "{holder}");
    assert_eq!(holder["ephemeral"], true, "{holder}");
    assert_eq!(holder["pid"], std::process::id(), "{holder}");
    assert!(holder["comm"].is_string(), "{holder}");
}

#[test]
fn port_in_time_wait() {
    let Some(pair) = pair_with_few_ports("refuse-btw", Family::Ipv4) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let listener = pair.b.tcp_listener(&service.to_string());
    let mut connected = pair.a.connect_all(service, 1);
    close_first(&listener, &connected);
    drop(listener);
    assert_eq!(connected[0].read(&mut [0; 1]).unwrap(), 0);
    drop(connected);
    wait::until("the service's end waits", || {
        let waiting = pair.b.run("ss -tanH state time-wait").lines().count();
        if waiting == 1 { Ok(()) } else { Err(format!("{waiting}")) }
    });
    let tracing = Trace::of(&pair.b).start();

    let error = pair.b.enter(|| failed_bind(service, true));

    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
    let outcome = tracing.stop();
    let holder = conflict(&outcome, &pair.b, "bind", service, 1);
    assert_eq!(holder["state"], "time-wait", "{holder}");
    assert_eq!(holder["ephemeral"], false, "{holder}");
    assert!(holder["pid"].is_null(), "{holder}");
}

#[test]
fn port_of_a_listener() {
    let Some(lab) = Lab::new("refuse-lis", &[]) else { return };
    let netns = lab.netns("one");
    let service: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let _listener = netns.tcp_listener(&service.to_string());
    let tracing = Trace::of(&netns).start();

    let error = netns.enter(|| failed_bind(service, true));

    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
    let outcome = tracing.stop();
    let holder = conflict(&outcome, &netns, "bind", service, 1);
    assert_eq!((&holder["state"], &holder["ephemeral"]), (&json!("listen"), &json!(false)), "{holder}");
    let why = outcome.refusals[0]["cause"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("another listener"), "{why}");
}

#[test]
fn listen_on_a_taken_port() {
    let Some(lab) = Lab::new("refuse-l2", &[]) else { return };
    let netns = lab.netns("one");
    let service: SocketAddr = "127.0.0.1:80".parse().unwrap();
    // Both may bind with SO_REUSEADDR, but only one may listen.
    let (first, second) = netns.enter(|| (bound(service), bound(service)));
    rustix::net::listen(&first, 1).unwrap();
    let tracing = Trace::of(&netns).start();

    for _ in 0..COUNT {
        assert_eq!(failed_listen(&second).raw_os_error(), Some(libc::EADDRINUSE));
    }

    let outcome = tracing.stop();
    let holder = conflict(&outcome, &netns, "listen", service, COUNT);
    assert_eq!(holder["state"], "listen", "{holder}");
    assert_eq!(local(&second.as_fd()), service);
}

#[test]
fn datagram_port_is_taken() {
    let Some(lab) = Lab::new("refuse-ub", &[]) else { return };
    let netns = lab.netns("one");
    let taken = netns.enter(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    let tracing = Trace::of(&netns).start();

    let error = netns.enter(|| failed_bind(taken.local_addr().unwrap(), false));

    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{error}");
    let outcome = tracing.stop();
    let holder = conflict(&outcome, &netns, "bind", taken.local_addr().unwrap(), 1);
    assert_eq!(holder["local"], "127.0.0.1:53", "{holder}");
}

#[test]
fn other_failures_are_no_refusals() {
    let Some(lab) = Lab::new("refuse-not", &[]) else { return };
    let pair = lab.pair();
    pair.a.run("ip neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth0");
    let tracing = Trace::of(&pair.a).start();

    pair.a.enter(|| {
        // Nobody listens: a reset ends it.
        let closed = SocketAddr::new(pair.b_end.ip, 81);
        assert_eq!(failed_connect(closed, true).kind(), io::ErrorKind::ConnectionRefused);
        // Nobody answers, and the program gives up.
        let silent: SocketAddr = "10.0.0.77:80".parse().unwrap();
        let socket = new_socket(silent.ip(), true);
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        assert_eq!(rustix::net::connect(&socket, &silent), Err(rustix::io::Errno::INPROGRESS));
        drop(socket);
        // No address of this host.
        let foreign: SocketAddr = "192.0.2.1:80".parse().unwrap();
        assert_eq!(failed_bind(foreign, true).raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(failed_bind(foreign, false).raw_os_error(), Some(libc::EADDRNOTAVAIL));
        // No port of the internet's.
        let _one = std::os::unix::net::UnixListener::bind(lab_path(&pair.a)).unwrap();
        let error = std::os::unix::net::UnixListener::bind(lab_path(&pair.a)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        std::fs::remove_file(lab_path(&pair.a)).unwrap();
        full_buffer(SocketAddr::new(pair.b_end.ip, 9));
    });

    let outcome = tracing.stop();
    assert_eq!(outcome.number("refusals"), 0);
    assert!(outcome.refusals.is_empty());
}

fn lab_path(netns: &Netns) -> std::path::PathBuf {
    std::env::temp_dir().join(netns.name())
}

/// Sends until the socket's own buffer is full: it has a port, and waits for something else.
fn full_buffer(to: SocketAddr) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 1i32);
    let large = [0; 1400];
    let refused = (0..100_000).find_map(|_| socket.send_to(&large, to).err());
    if let Some(error) = refused {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    }
}

#[test]
fn filters_leave_refusals_out() {
    let Some(pair) = pair_with_few_ports("refuse-flt", Family::Ipv4) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let _listener = pair.b.tcp_listener(&service.to_string());
    let _connected = pair.a.connect_all(service, PORTS);
    let own = pair.a.path().to_string_lossy().into_owned();
    for (args, expected) in [
        (&["--netns", &own, "--dst-port", "80", "--dst", "10.0.0.2/32", "--proto", "tcp"][..], 2),
        (&["--netns", &own, "--cause", "source-port-exhausted"], 2),
        (&["--netns", &own, "--dst-port", "81"], 0),
        (&["--netns", &own, "--proto", "udp"], 0),
        (&["--netns", &own, "--host", "10.9.0.0/16"], 0),
        (&["--netns", &own, "--interface", "eth0"], 0),
        (&["--netns", &own, "--cause", "no-route"], 0),
        (&["--netns", &pair.b.path().to_string_lossy()], 0),
    ] {
        let tracing = Trace::everywhere().args(args).start();
        pair.a.enter(|| {
            for _ in 0..2 {
                assert_eq!(failed_connect(service, true).raw_os_error(), Some(libc::EADDRNOTAVAIL));
            }
        });
        let outcome = tracing.stop();
        assert_eq!(outcome.number("refusals"), expected, "{args:?}");
        assert_eq!(outcome.refusals.len() as u64, expected, "{args:?}");
        // Where only drops are asked for, nothing is hooked.
        let filtered = outcome.summary["refused"]["filtered"].as_u64().unwrap();
        let hooked = !args.contains(&"--interface") && !args.contains(&"no-route");
        assert!(filtered >= 2 - expected || !hooked, "{args:?}: {filtered} filtered");
    }
}

#[test]
fn refusals_count_as_events() {
    let Some(pair) = pair_with_few_ports("refuse-cnt", Family::Ipv4) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let _listener = pair.b.tcp_listener(&service.to_string());
    let _connected = pair.a.connect_all(service, PORTS);
    let refuse = || {
        pair.a.enter(|| (0..COUNT).for_each(|_| drop(failed_connect(service, true))));
    };
    let counted = Trace::of(&pair.a).args(&["--count", "2"]).start();
    refuse();
    let outcome = counted.finish();
    assert_eq!((outcome.refusals.len(), &outcome.summary["refused"]["shown"]), (2, &json!(2)));
    let summed = Trace::of(&pair.a).args(&["--summary-only"]).start();
    refuse();
    let outcome = summed.stop();
    assert_eq!((outcome.number("refusals"), outcome.refusals.len()), (COUNT, 0));
    assert_eq!(outcome.summary["refused"]["counted_only"], COUNT);
}

#[test]
fn connect_is_not_disturbed() {
    let Some(pair) = pair_with_few_ports("refuse-ok", Family::Ipv4) else { return };
    let service = SocketAddr::new(pair.b_end.ip, SERVICE);
    let _listener = pair.b.tcp_listener(&service.to_string());
    let tracing = Trace::of(&pair.a).start();
    let connected: Vec<TcpStream> = pair.a.connect_all(service, PORTS);
    assert_eq!(connected.len(), PORTS as usize);
    assert_eq!(tracing.stop().number("refusals"), 0);
}
