//! Evidence in a few words, for a line of text.

use crate::{attribute::untrusted::printable, evidence::Evidence};

/// What speaks for the cause, `1280 of 2304 bytes`; nothing when there is none.
pub(super) fn brief(evidence: &Evidence) -> Option<String> {
    let Evidence { socket, memory, route, neighbour, mtu, qdisc, netfilter } = evidence;
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
        parts.push(format!("{} {} holds {}{limit}", printable(&qdisc.kind), qdisc.handle, qdisc.qlen));
    }
    if let Some(netfilter) = netfilter {
        let told = netfilter.verdict.filter(|verdict| *verdict == "reject");
        parts.extend(netfilter.family.zip(netfilter.hook).map(|(family, hook)| format!("{family} {hook}")));
        parts.extend(told.map(str::to_owned));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Neighbour, Netfilter, Route, SocketMemory};

    #[test]
    fn figures_in_a_few_words() {
        let socket = SocketMemory { used: 1280, limit: 2304, backlog: 0, send_limit: 0, sysctl: None };
        let evidence = Evidence { socket: Some(socket), ..Evidence::default() };
        assert_eq!(brief(&evidence).as_deref(), Some("1280 of 2304 bytes"));
        let route = Route { kind: Some("blackhole"), error: Some("EINVAL") };
        let neighbour = Neighbour { entries: 10, limit: 10, state: None, queue_limit: None };
        let evidence = Evidence { route: Some(route), neighbour: Some(neighbour), ..Evidence::default() };
        assert_eq!(brief(&evidence).as_deref(), Some("blackhole route, table 10 of 10"));
        assert_eq!(brief(&Evidence::default()), None);
    }

    #[test]
    fn a_rejecting_hook_says_so() {
        let netfilter = |verdict| Netfilter {
            family: Some("ip"),
            hook: Some("forward"),
            table: None,
            chain: None,
            rules: None,
            verdict,
        };
        let text = |verdict| {
            brief(&Evidence { netfilter: Some(netfilter(verdict)), ..Evidence::default() }).unwrap()
        };
        assert_eq!(text(Some("reject")), "ip forward, reject");
        assert_eq!(text(Some("drop")), "ip forward");
        assert_eq!(text(None), "ip forward");
    }
}
