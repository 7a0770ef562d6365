//! A packet in one line.

use std::fmt;
use std::net::IpAddr;

use super::{Icmp, Inner, Packet, Protocol};

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.proto, self.family) {
            (Some(proto), _) => proto_name(f, proto)?,
            (None, Some(family)) => write!(f, "{family}")?,
            (None, None) => f.write_str("unreadable packet")?,
        }
        if let (Some(src), Some(dst)) = (self.src, self.dst) {
            f.write_str(" ")?;
            ends(f, (src, self.sport), (dst, self.dport))?;
        }
        if let Some(flags) = self.tcp_flags {
            write!(f, " [{flags}]")?;
        }
        if let (Some(icmp), Some(proto)) = (self.icmp, self.proto) {
            f.write_str(" ")?;
            icmp_message(f, proto, icmp)?;
        }
        if let Some(inner) = &self.inner {
            write!(f, " for {inner}")?;
        }
        if self.later_fragment {
            f.write_str(" (later fragment)")?;
        }
        for id in &self.vlan {
            write!(f, " vlan {id}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proto {
            Some(proto) => proto_name(f, proto)?,
            None => write!(f, "{}", self.family)?,
        }
        f.write_str(" ")?;
        ends(f, (self.src, self.sport), (self.dst, self.dport))
    }
}

/// A bare number would not tell what it is.
fn proto_name(f: &mut fmt::Formatter<'_>, proto: Protocol) -> fmt::Result {
    if proto.name().is_none() {
        f.write_str("proto ")?;
    }
    write!(f, "{proto}")
}

fn ends(f: &mut fmt::Formatter<'_>, src: (IpAddr, Option<u16>), dst: (IpAddr, Option<u16>)) -> fmt::Result {
    end(f, src)?;
    f.write_str(" > ")?;
    end(f, dst)
}

fn end(f: &mut fmt::Formatter<'_>, (address, port): (IpAddr, Option<u16>)) -> fmt::Result {
    match (address, port) {
        (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
        (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
        (address, None) => write!(f, "{address}"),
    }
}

/// `unreachable/port (3/3)`, or the numbers alone.
fn icmp_message(f: &mut fmt::Formatter<'_>, proto: Protocol, icmp: Icmp) -> fmt::Result {
    let (kind, code) = if proto == Protocol::ICMP6 { icmp6_names(icmp) } else { icmp_names(icmp) };
    if let Some(kind) = kind {
        f.write_str(kind)?;
        if let Some(code) = code {
            write!(f, "/{code}")?;
        }
        f.write_str(" ")?;
    }
    write!(f, "({}/{})", icmp.kind, icmp.code)
}

type Names = (Option<&'static str>, Option<&'static str>);

/// Names of an ICMP type and code (IANA, "ICMP Parameters").
const fn icmp_names(icmp: Icmp) -> Names {
    let kind = match icmp.kind {
        0 => "echo-reply",
        3 => "unreachable",
        4 => "source-quench",
        5 => "redirect",
        8 => "echo-request",
        9 => "router-advertisement",
        10 => "router-solicitation",
        11 => "time-exceeded",
        12 => "parameter-problem",
        13 => "timestamp-request",
        14 => "timestamp-reply",
        _ => return (None, None),
    };
    let code = match (icmp.kind, icmp.code) {
        (3, 0) => "net",
        (3, 1) => "host",
        (3, 2) => "protocol",
        (3, 3) => "port",
        (3, 4) => "fragmentation-needed",
        (3, 5) => "source-route",
        (3, 9) => "net-prohibited",
        (3, 10) => "host-prohibited",
        (3, 13) => "prohibited",
        (11, 0) => "ttl",
        (11, 1) => "reassembly",
        _ => return (Some(kind), None),
    };
    (Some(kind), Some(code))
}

/// Names of an ICMPv6 type and code (IANA, "ICMPv6 Parameters").
const fn icmp6_names(icmp: Icmp) -> Names {
    let kind = match icmp.kind {
        1 => "unreachable",
        2 => "packet-too-big",
        3 => "time-exceeded",
        4 => "parameter-problem",
        128 => "echo-request",
        129 => "echo-reply",
        130 => "mld-query",
        131 => "mld-report",
        132 => "mld-done",
        133 => "router-solicitation",
        134 => "router-advertisement",
        135 => "neighbour-solicitation",
        136 => "neighbour-advertisement",
        137 => "redirect",
        143 => "mld2-report",
        _ => return (None, None),
    };
    let code = match (icmp.kind, icmp.code) {
        (1, 0) => "no-route",
        (1, 1) => "prohibited",
        (1, 2) => "beyond-scope",
        (1, 3) => "address",
        (1, 4) => "port",
        (1, 5) => "source-policy",
        (1, 6) => "reject-route",
        (3, 0) => "hop-limit",
        (3, 1) => "reassembly",
        _ => return (Some(kind), None),
    };
    (Some(kind), Some(code))
}
