//! The kernel's own counters of a namespace: what a scenario holds netdrop's numbers against.

use std::fs;

use serde_json::Value;

use crate::netns::Netns;

/// Files of two-line groups, `Udp: InDatagrams NoPorts …` over `Udp: 5 3 …`.
const MIB_TABLES: [&str; 2] = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];

/// A file of `Udp6NoPorts 3` lines.
const MIB6: &str = "/proc/thread-self/net/snmp6";

impl Netns {
    /// A MIB counter by its `nstat` name: `UdpNoPorts`, `TcpExtIPReversePathFilter`, `Udp6NoPorts` ….
    #[track_caller]
    pub fn mib(&self, name: &str) -> u64 {
        self.try_mib(name).unwrap_or_else(|| panic!("no MIB counter {name} in netns {}", self.name()))
    }

    /// A MIB counter, or `None` on a kernel that does not have it.
    #[track_caller]
    pub fn try_mib(&self, name: &str) -> Option<u64> {
        self.mibs().into_iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Every MIB counter of the namespace, by its `nstat` name.
    #[track_caller]
    fn mibs(&self) -> Vec<(String, u64)> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (tables, six) = self.enter(|| (MIB_TABLES.map(read).concat(), read(MIB6)));
        parse_tables(&tables).chain(parse_lines(&six)).collect()
    }

    /// Packets that the queues and filters of `device` dropped, as `tc -s qdisc` says.
    #[track_caller]
    pub fn qdisc_drops(&self, device: &str) -> u64 {
        self.qdisc_sums(device).0
    }

    /// Packets that the queues and filters of `device` dropped, and those that they hold.
    #[track_caller]
    pub fn qdisc_sums(&self, device: &str) -> (u64, u64) {
        let listed = json(&self.run(&format!("tc -s -j qdisc show dev {device}")));
        let qdiscs: Vec<&Value> = listed.as_array().into_iter().flatten().collect();
        // A qdisc with children counts what they dropped once more, and not always as often.
        let leaves = qdiscs.iter().filter(|qdisc| children(&qdiscs, qdisc).next().is_none());
        leaves.fold((0, 0), |(drops, held), qdisc| {
            (drops + number(qdisc, "drops"), held + number(qdisc, "qlen"))
        })
    }

    /// The qdisc of `device` that has dropped and of whose children none has, also one that the kernel made and tc does
    /// not show unasked.
    #[track_caller]
    pub fn dropping_qdisc(&self, device: &str) -> Value {
        let listed = json(&self.run(&format!("tc -s -j qdisc show invisible dev {device}")));
        let qdiscs: Vec<&Value> = listed.as_array().into_iter().flatten().collect();
        let drops = |qdisc: &Value| number(qdisc, "drops") > 0;
        let mut innermost =
            qdiscs.iter().filter(|qdisc| drops(qdisc) && !children(&qdiscs, qdisc).any(drops));
        let found = innermost.next().unwrap_or_else(|| panic!("nothing dropped on {device}: {listed}"));
        assert!(innermost.next().is_none(), "several dropped: {listed}");
        (*found).clone()
    }

    /// Packets that `device` dropped as they came in.
    #[track_caller]
    pub fn rx_dropped(&self, device: &str) -> u64 {
        self.link_counter(device, "/stats64/rx/dropped").expect("every device counts drops")
    }

    /// Packets that `device` dropped on their way out.
    #[track_caller]
    pub fn tx_dropped(&self, device: &str) -> u64 {
        self.link_counter(device, "/stats64/tx/dropped").expect("every device counts drops")
    }

    /// A counter of `ip -s -s link`, such as `/stats64/rx/otherhost_dropped`; `None` where this `ip` or
    /// kernel does not tell it.
    #[track_caller]
    pub fn link_counter(&self, device: &str, pointer: &str) -> Option<u64> {
        let links = json(&self.run(&format!("ip -s -s -j link show dev {device}")));
        links[0].pointer(pointer).and_then(Value::as_u64)
    }
}

/// Pages that all sockets of a protocol (`TCP`, `UDP`) hold on this machine, as `/proc/net/sockstat` says.
#[track_caller]
pub fn protocol_memory(protocol: &str) -> u64 {
    const FILE: &str = "/proc/net/sockstat";
    let text = fs::read_to_string(FILE).unwrap_or_else(|error| panic!("read {FILE}: {error}"));
    parse_sockstat(&text, protocol).unwrap_or_else(|| panic!("no mem of {protocol} in {text}"))
}

/// `mem` of a line like `UDP: inuse 0 mem 0`.
fn parse_sockstat(text: &str, protocol: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    words.nth(1)?.parse().ok()
}

/// A tool's JSON answer.
#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Counters of `/proc/net/snmp` and `/proc/net/netstat`: a line of names over a line of values.
fn parse_tables(text: &str) -> impl Iterator<Item = (String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut mibs = Vec::new();
    for pair in lines.chunks_exact(2) {
        let mut names = pair[0].split_whitespace();
        let group = names.next().unwrap_or_default().trim_end_matches(':');
        let values = pair[1].split_whitespace().skip(1);
        mibs.extend(names.zip(values).filter_map(|(n, v)| Some((format!("{group}{n}"), v.parse().ok()?))));
    }
    mibs.into_iter()
}

/// Counters of `/proc/net/snmp6`: a name and its value on each line.
fn parse_lines(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    })
}

/// What a failed test shows of a namespace: its counters that are not 0, its addresses, its rules.
/// Runs during a panic, so it must not panic itself.
pub(crate) fn describe(netns: &Netns) -> String {
    let shown = |words: &str| {
        let output = netns.command(words).output();
        output.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let mibs: Vec<String> = parse_tables(&shown("cat /proc/net/snmp /proc/net/netstat"))
        .chain(parse_lines(&shown("cat /proc/net/snmp6")))
        .filter(|(name, value)| *value != 0 && !name.contains("Octets"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{}\n{}{}", mibs.join(" "), shown("ip -br addr"), shown("nft list ruleset"))
}

/// The qdiscs that hang below this one.
fn children<'q>(qdiscs: &'q [&'q Value], qdisc: &'q Value) -> impl Iterator<Item = &'q Value> {
    // The parent of clsact has its own number.
    let others = qdiscs.iter().copied().filter(|other| other["handle"] != qdisc["handle"]);
    others.filter(|other| {
        let parent = other["parent"].as_str().and_then(|parent| parent.split_once(':'));
        parent.is_some_and(|(parent, _)| qdisc["handle"] == format!("{parent}:"))
    })
}

/// A figure of tc's answer.
#[track_caller]
fn number(qdisc: &Value, name: &str) -> u64 {
    qdisc[name].as_u64().unwrap_or_else(|| panic!("no {name} in tc's answer: {qdisc}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_pair_names_with_values() {
        let text = "Udp: InDatagrams NoPorts\nUdp: 7 3\nTcp: MaxConn OutRsts\nTcp: -1 2\n";
        let mibs: Vec<_> = parse_tables(text).collect();
        let expected = [("UdpInDatagrams", 7), ("UdpNoPorts", 3), ("TcpOutRsts", 2)];
        assert_eq!(mibs, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn memory_of_a_protocol() {
        let text = "sockets: used 13\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 231\nUDPLITE: inuse 0\nUDP: inuse 0 mem 7\n";
        assert_eq!(parse_sockstat(text, "TCP"), Some(231));
        assert_eq!(parse_sockstat(text, "UDP"), Some(7));
        assert_eq!(parse_sockstat(text, "UDPLITE"), None);
    }

    #[test]
    fn lines_hold_one_counter_each() {
        let mibs: Vec<_> = parse_lines("Udp6NoPorts                     \t4\nbroken\n").collect();
        assert_eq!(mibs, [("Udp6NoPorts".to_owned(), 4)]);
    }
}
