//! Evidence in a few words, for a line of text.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::rule::filtered;
use crate::{
    attribute::untrusted::printable,
    evidence::{Conntrack, Evidence, Listen},
    process::Process,
    refusal::Refusal,
};

/// What speaks for the cause, `1280 of 2304 bytes`; nothing when there is none.
pub(super) fn brief(evidence: &Evidence) -> Option<String> {
    let Evidence { socket, memory, route, neighbour, mtu, qdisc, netfilter, conntrack, listen, witness } =
        evidence;
    let mut parts = Vec::new();
    if let Some(socket) = socket {
        let backlog =
            if socket.backlog > 0 { format!(", backlog {}", socket.backlog) } else { String::new() };
        parts.push(format!("{} of {} bytes{backlog}", socket.used, socket.limit));
    }
    if let Some(memory) = memory {
        parts.push(format!("{} of {} pages", memory.used, memory.limit));
    }
    if let Some(route) = route {
        let kind = match route.kind {
            Some("none") => Some("no route".to_owned()),
            Some(kind) => Some(format!("{kind} route")),
            None => None,
        };
        parts.extend(kind);
    }
    if let Some(neighbour) = neighbour {
        let queue = neighbour.queue_limit.map(|limit| format!(", queue {limit} bytes")).unwrap_or_default();
        parts.push(format!("table {} of {}{queue}", neighbour.entries, neighbour.limit));
    }
    if let Some(mtu) = mtu {
        let device = mtu.device.as_deref().map(|name| format!("{} ", printable(name))).unwrap_or_default();
        parts.push(format!("{device}mtu {}", mtu.limit));
    }
    if let Some(qdisc) = qdisc {
        let limit = qdisc.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        // What the kernel made for a class has no handle of its own.
        let place = if qdisc.handle == "0:" && qdisc.parent != "root" {
            format!("below {}", qdisc.parent)
        } else {
            qdisc.handle.clone()
        };
        parts.push(format!("{} {place} holds {}{limit}", printable(&qdisc.kind), qdisc.qlen));
    }
    if let Some(netfilter) = netfilter {
        parts.extend(filtered(netfilter));
    }
    if let Some(conntrack) = conntrack {
        parts.extend(tracked(conntrack));
    }
    if let Some(listen) = listen {
        parts.extend(queue(listen));
    }
    if let Some(witness) = witness {
        parts.push(format!("{} +{}", witness.cell, witness.delta));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whose socket it was and what that process does, `nginx[3985] D uninterruptible in nfs_wait_bit_killable`.
pub(super) fn owner(process: &Process) -> String {
    let mut text = format!("{}[{}]", printable(&process.comm), process.pid);
    let thread = process.thread.map(|thread| format!("thread {thread}"));
    for (word, what) in [(" ", thread.as_deref()), (" ", process.state), (" in ", process.wchan.as_deref())] {
        if let Some(what) = what {
            text.push_str(word);
            text.push_str(what);
        }
    }
    text
}

/// What was asked for, and why it was refused: `connect() tcp 10.0.0.1 > 10.0.0.2:80 EADDRNOTAVAIL`, `(32768-60999:
/// 28232 of 28232 in use towards it, 91 % TIME_WAIT; called by curl[4242])`.
pub(super) fn refused(refusal: &Refusal) -> (String, String) {
    let Refusal { packet, evidence, process, .. } = refusal;
    let mut asked = evidence.call.name.map_or_else(|| "?".to_owned(), |name| format!("{name}()"));
    // Writing to a string cannot fail.
    if let Some(proto) = packet.proto {
        let _ = write!(asked, " {proto}");
    }
    if let Some(from) = end(packet.src, packet.sport) {
        let _ = write!(asked, " {from}");
    }
    if let Some(to) = end(packet.dst, packet.dport) {
        let _ = write!(asked, " > {to}");
    }
    if let Some(errno) = evidence.call.errno {
        let _ = write!(asked, " {errno}");
    }
    let mut parts = Vec::new();
    if let Some(ports) = &evidence.ports {
        let towards = if packet.dport.is_some() && ports.time_wait.is_some() { " towards it" } else { "" };
        let mut text =
            format!("{}-{}: {} of {} in use{towards}", ports.low, ports.high, ports.used, ports.total);
        if let Some(waiting @ 1..) = ports.time_wait {
            let _ = write!(text, ", {} % TIME_WAIT", u64::from(waiting) * 100 / u64::from(ports.used.max(1)));
        }
        parts.push(text);
    }
    if let Some(holder) = &evidence.holder {
        let peer = holder.remote.map(|remote| format!(" > {remote}")).unwrap_or_default();
        let chosen = if holder.ephemeral == Some(true) { ", in the range of source ports" } else { "" };
        let by = holder.pid.zip(holder.comm.as_deref());
        let by = by.map(|(pid, comm)| format!(" by {}[{pid}]", printable(comm))).unwrap_or_default();
        parts.push(format!("held{by}: {}{peer} {}{chosen}", holder.local, holder.state));
    }
    parts.push(format!("called by {}", owner(process)));
    (asked, format!("({})", parts.join("; ")))
}

fn end(address: Option<IpAddr>, port: Option<u16>) -> Option<String> {
    match (address, port) {
        (Some(address), Some(port)) => Some(SocketAddr::new(address, port).to_string()),
        (Some(address), None) => Some(address.to_string()),
        (None, Some(port)) => Some(format!("*:{port}")),
        (None, None) => None,
    }
}

/// `table 200 of 200`, `snat to 192.0.2.1:5000`.
fn tracked(conntrack: &Conntrack) -> Vec<String> {
    let mut parts = Vec::new();
    if let (Some(count), Some(max)) = (conntrack.count, conntrack.max) {
        parts.push(format!("table {count} of {max}"));
    }
    if let (Some(nat), Some(original), Some(reply)) = (conntrack.nat, &conntrack.original, &conntrack.reply) {
        let snat = SocketAddr::new(reply.dst, reply.dport);
        let dnat = SocketAddr::new(reply.src, reply.sport);
        let to = match nat {
            "snat" => snat.to_string(),
            "dnat" => dnat.to_string(),
            _ => format!("{snat} and {dnat}"),
        };
        let from = SocketAddr::new(original.src, original.sport);
        parts.push(format!("{nat} of {from} to {to}"));
    }
    if let Some(first) = conntrack.winner.as_ref().and_then(|winner| winner.original.as_ref()) {
        let (src, dst) = (SocketAddr::new(first.src, first.sport), SocketAddr::new(first.dst, first.dport));
        parts.push(format!("first came {src} > {dst}"));
    }
    parts
}

/// `accept queue 2 of 1, backlog binds`.
fn queue(listen: &Listen) -> Vec<String> {
    let mut parts = Vec::new();
    if let (Some(length), Some(limit)) = (listen.length, listen.limit) {
        parts.push(format!("{} queue {length} of {limit}", listen.queue));
    }
    parts.extend(listen.binds.map(|knob| match knob {
        "backlog" => "bound by listen()".to_owned(),
        knob => format!("bound by {knob}"),
    }));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Neighbour, Route, SocketMemory};
    use crate::process::ProcessEvidence;

    #[test]
    fn figures_in_a_few_words() {
        let socket = SocketMemory {
            used: 1280,
            limit: 2304,
            backlog: 0,
            send_limit: 0,
            sysctl: None,
            owner_state: None,
            owner_wchan: None,
        };
        let evidence = Evidence { socket: Some(socket), ..Evidence::default() };
        assert_eq!(brief(&evidence).as_deref(), Some("1280 of 2304 bytes"));
        let route = Route { kind: Some("blackhole"), error: Some("EINVAL") };
        let neighbour = Neighbour { entries: 10, limit: 10, state: None, queue_limit: None };
        let evidence = Evidence { route: Some(route), neighbour: Some(neighbour), ..Evidence::default() };
        assert_eq!(brief(&evidence).as_deref(), Some("blackhole route, table 10 of 10"));
        assert_eq!(brief(&Evidence::default()), None);
    }

    #[test]
    fn an_owner_says_what_it_does() {
        let process = Process::new(3985, "a\x1b[31m".into(), ProcessEvidence::Socket);
        assert_eq!(owner(&process), "a\\u{1b}[31m[3985]");
        let stuck = Process {
            state: Some("D uninterruptible"),
            wchan: Some("nfs_wait_bit_killable".into()),
            ..Process::new(3985, "nginx".into(), ProcessEvidence::Socket)
        };
        assert_eq!(owner(&stuck), "nginx[3985] D uninterruptible in nfs_wait_bit_killable");
    }
}
