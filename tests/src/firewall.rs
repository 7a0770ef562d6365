//! Single rules of any packet filter, at any hook, that count what they drop or reject.

use std::fs;

use serde_json::Value;

use crate::counters::json;
use crate::family::Family;
use crate::netns::Netns;
use crate::volume::emulated;

/// What a rule is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// nft, in a table of this family: `ip`, `ip6`, `inet`, `bridge`, `netdev`.
    Nft(&'static str),
    /// iptables-legacy or ip6tables-legacy, in this table.
    Xtables(Family, &'static str),
}

impl Tool {
    /// The program that a scenario needs for it.
    pub fn program(self) -> &'static str {
        match self {
            Self::Nft(_) => "nft",
            Self::Xtables(family, _) => family.pick("iptables-legacy", "ip6tables-legacy"),
        }
    }
}

/// A hook of the IP layer or of a bridge; `Ingress` and `Egress` are those of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// For another host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
    /// Arriving on a device.
    Ingress(&'static str),
    /// Leaving by a device.
    Egress(&'static str),
}

impl Hook {
    /// As nft spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress(_) => "ingress",
            Self::Egress(_) => "egress",
        }
    }

    /// The device it belongs to, as nft spells it.
    fn device(self) -> String {
        match self {
            Self::Ingress(device) | Self::Egress(device) => format!("device {device}"),
            _ => String::new(),
        }
    }
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drops it.
    Drop,
    /// Drops it and sends an ICMP error.
    Reject,
    /// Drops it and resets the connection.
    Reset,
    /// Gives it to a program: that of [`Netns::queue`], where a scenario has one.
    Queue,
}

/// Which packets a rule matches.
#[derive(Clone, Copy, Debug)]
pub struct To {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Destination port.
    pub port: u16,
    /// Only half of them, at random.
    pub half: bool,
}

impl To {
    /// Every datagram to a port.
    pub fn udp(port: u16) -> Self {
        Self { protocol: "udp", port, half: false }
    }

    /// Every segment to a port.
    pub fn tcp(port: u16) -> Self {
        Self { protocol: "tcp", port, half: false }
    }

    /// Half of what it was, at random.
    #[must_use]
    pub fn half(self) -> Self {
        Self { half: true, ..self }
    }
}

/// A rule in its place. It is removed in `Drop`.
pub struct Rule<'a> {
    netns: &'a Netns,
    tool: Tool,
    hook: Hook,
    matches: To,
    verdict: Verdict,
}

/// The table of nft rules: it holds one chain and one counter, both of this name.
const TABLE: &str = "ndt-rule";

impl Netns {
    /// Adds a rule; `Err` holds the refusal where the kernel lacks what it needs.
    pub fn rule(&self, tool: Tool, hook: Hook, matches: To, verdict: Verdict) -> Result<Rule<'_>, String> {
        let rule = Rule { netns: self, tool, hook, matches, verdict };
        match tool {
            Tool::Nft(family) => self.try_nft(&rule.nft_table(family))?,
            Tool::Xtables(..) => drop(self.try_run_with_input(&rule.xtables("-A"), "")?),
        }
        Ok(rule)
    }
}

impl Rule<'_> {
    /// Where it is.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The port it matches.
    pub fn port(&self) -> u16 {
        self.matches.port
    }

    /// Packets it has dropped or rejected.
    #[track_caller]
    pub fn packets(&self) -> u64 {
        match self.tool {
            Tool::Nft(family) => {
                let listed = json(&self.netns.run(&format!("nft -j list counter {family} {TABLE} {TABLE}")));
                let objects = listed["nftables"].as_array().into_iter().flatten();
                objects.filter_map(|object| object["counter"]["packets"].as_u64()).next()
            }
            Tool::Xtables(_, table) => {
                let chain = self.hook.name().to_uppercase();
                let rule = self.netns.run(&format!("{} -w -t {table} -nvxL {chain} 1", self.tool.program()));
                rule.split_whitespace().next().and_then(|packets| packets.parse().ok())
            }
        }
        .unwrap_or_else(|| panic!("no packet count of {:?} at {:?}", self.tool, self.hook))
    }

    /// The script of a table that holds this rule.
    fn nft_table(&self, family: &str) -> String {
        let (hook, device) = (self.hook.name(), self.hook.device());
        let To { protocol, port, half } = self.matches;
        let half = if half { "numgen random mod 2 < 1" } else { "" };
        let verdict = match self.verdict {
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::Reset => "reject with tcp reset",
            Verdict::Queue => "queue",
        };
        format!(
            "table {family} {TABLE} {{
                counter {TABLE} {{ }}
                chain {TABLE} {{
                    type filter hook {hook} {device} priority 0; policy accept;
                    {protocol} dport {port} {half} counter name {TABLE} {verdict}
                }}
            }}"
        )
    }

    /// The command that adds (`-A`) or deletes (`-D`) this rule.
    fn xtables(&self, action: &str) -> String {
        let Tool::Xtables(_, table) = self.tool else { return String::new() };
        let To { protocol, port, half } = self.matches;
        let half = if half { "-m statistic --mode random --probability 0.5" } else { "" };
        let verdict = match self.verdict {
            Verdict::Drop => "DROP",
            Verdict::Reject => "REJECT",
            Verdict::Reset => "REJECT --reject-with tcp-reset",
            Verdict::Queue => "NFQUEUE",
        };
        let chain = self.hook.name().to_uppercase();
        format!(
            "{} -w -t {table} {action} {chain} -p {protocol} --dport {port} {half} -j {verdict}",
            self.tool.program()
        )
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        let command = match self.tool {
            Tool::Nft(family) => format!("nft delete table {family} {TABLE}"),
            Tool::Xtables(..) => self.xtables("-D"),
        };
        // Also when it could not be added. A rule left behind goes with its namespace.
        let _ = self.netns.command(&command).output();
    }
}

/// Whether an event names no rule because listing them took longer than a drop waits for it: that is so on emulated
/// machines alone.
pub fn unread(event: &Value) -> bool {
    emulated() && event["evidence"]["netfilter"]["rule_count"].is_null()
}

/// Whether the namespace has no table of iptables-legacy: asking for one would make it.
#[track_caller]
pub fn without_legacy_tables(netns: &Netns) -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().all(|names| {
        let path = format!("/proc/thread-self/net/{names}");
        netns.enter(|| fs::read_to_string(path)).is_ok_and(|names| names.is_empty())
    })
}

/// All rules of a namespace.
pub struct Ruleset {
    /// As the tools list them, without figures.
    pub text: String,
    /// Packets counted by rules that drop or reject them.
    dropped: u64,
    /// Packets that fell to policies of iptables that drop.
    pub policies: u64,
}

impl Ruleset {
    /// Packets that rules have dropped or rejected, by their own counters.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The rules of a namespace, of nftables and iptables-legacy.
#[track_caller]
pub fn ruleset(netns: &Netns) -> Ruleset {
    let mut listed = netns.run("nft -a list ruleset");
    for (names, tool) in
        [("ip_tables_names", "iptables-legacy-save"), ("ip6_tables_names", "ip6tables-legacy-save")]
    {
        // Asking makes tables.
        let path = format!("/proc/thread-self/net/{names}");
        if netns.enter(|| fs::read_to_string(path)).is_ok_and(|names| !names.is_empty()) {
            listed.push_str(&netns.run(&format!("{tool} -c")));
        }
    }
    let mut ruleset = Ruleset { text: String::new(), dropped: 0, policies: 0 };
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `[3:252] -A …`, `:INPUT DROP [3:252]`, `counter packets 3 bytes 252 drop`.
        let save =
            words.iter().find_map(|word| word.strip_prefix('[')?.split_once(':')?.0.parse::<u64>().ok());
        let nft =
            words.iter().skip_while(|word| **word != "packets").nth(1).and_then(|word| word.parse().ok());
        let drops = ["DROP", "REJECT", "drop", "reject"].iter().any(|verdict| words.contains(verdict));
        match save.or(nft) {
            Some(packets) if drops && line.starts_with(':') => ruleset.policies += packets,
            Some(packets) if drops => ruleset.dropped += packets,
            _ => {}
        }
        let number = |word: &&&str| !word.starts_with('[') && word.parse::<u64>().is_err();
        ruleset.text.extend(words.iter().filter(number).flat_map(|word| [word, " "]));
        ruleset.text.push('\n');
    }
    ruleset
}
