//! TCP segments that a protected socket does not believe.

use std::net::IpAddr;

use netdrop_tests::lab::say_skip;
use netdrop_tests::scene::{Rejected, Scene};
use netdrop_tests::sockopt;

/// Segments that each scenario sends.
const COUNT: u64 = 3;

/// Option 19 of a TCP header (RFC 2385), with a signature that no key makes, and two no-operations.
const SIGNATURE: [u8; 20] = [19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 1];

/// `struct tcp_md5sig` (include/uapi/linux/tcp.h), with the address of an IPv4 peer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Key {
    family: libc::sa_family_t,
    port: u16,
    address: [u8; 4],
    rest_of_address: [u8; 120],
    flags: u8,
    prefix: u8,
    len: u16,
    interface: u32,
    key: [u8; 80],
}

/// Sends SYNs, with a signature or without, to a listener that has a key for the peer, or none.
fn signatures(scene: Option<Scene>, key: bool, signature: bool, counter: &str) {
    let Some(scene) = scene else { return };
    if key && !set_key(&scene) {
        return;
    }
    let tracing = scene.trace();

    let mut header = scene.peer.syn_header();
    if signature {
        header.set_options_raw(&SIGNATURE).expect("20 bytes fit");
    }
    for _ in 0..COUNT {
        scene.peer.send(header.clone(), &[]);
    }

    scene.expect(tracing, &rejected("S", &|| scene.mib(counter)));
}

/// What these segments must be called.
fn rejected<'a>(flags: &'static str, counter: &'a dyn Fn() -> u64) -> Rejected<'a> {
    let verdict = ("suspect", "observed");
    Rejected { cause: "tcp-authentication", verdict, flags, count: COUNT, counter }
}

/// Gives the listener a key for the peer; false, after a `SKIP`, on a kernel without TCP MD5 signatures.
#[track_caller]
fn set_key(scene: &Scene) -> bool {
    let IpAddr::V4(peer) = scene.peer.address().ip() else { panic!("an IPv4 scene") };
    let mut bytes = [0; 80];
    bytes[..6].copy_from_slice(b"secret");
    let key = Md5Key {
        family: libc::AF_INET as libc::sa_family_t,
        port: 0,
        address: peer.octets(),
        rest_of_address: [0; 120],
        flags: 0,
        prefix: 0,
        len: 6,
        interface: 0,
        key: bytes,
    };
    match sockopt::try_set(&scene.listener, libc::IPPROTO_TCP, libc::TCP_MD5SIG, key) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            say_skip("tcp-md5", "this kernel has no TCP MD5 signatures");
            false
        }
        Err(error) => panic!("TCP_MD5SIG: {error}"),
    }
}

#[test]
fn no_signature() {
    signatures(Scene::ipv4("md5-none"), true, false, "TcpExtTCPMD5NotFound");
}

#[test]
fn wrong_signature() {
    signatures(Scene::ipv4("md5-wrong"), true, true, "TcpExtTCPMD5Failure");
}

#[test]
fn unexpected_signature() {
    signatures(Scene::ipv4("md5-unasked"), false, true, "TcpExtTCPMD5Unexpected");
}

#[test]
fn too_many_hops() {
    min_ttl(Scene::ipv4("minttl"), libc::IPPROTO_IP, libc::IP_MINTTL);
}

#[test]
fn too_many_hops_over_ipv6() {
    min_ttl(Scene::ipv6("minttl6"), libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT);
}

/// A session that must come from a neighbour (GTSM), and segments that have crossed a router.
fn min_ttl(scene: Option<Scene>, level: i32, option: i32) {
    let Some(mut scene) = scene else { return };
    let server = scene.peer.connect(&scene.listener);
    sockopt::set(&server, level, option, 255);
    let tracing = scene.trace();

    scene.peer.ttl = 254;
    for _ in 0..COUNT {
        scene.peer.send_data(100);
    }

    scene.expect(tracing, &rejected("P.", &|| scene.mib("TcpExtTCPMinTTLDrop")));
}
