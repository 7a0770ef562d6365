//! Filter arguments, shared by every command that looks at drops, and their names resolved for this kernel.

use std::{net::IpAddr, path::Path, str::FromStr};

use clap::Args;
use ipnet::IpNet;
use netdrop_common::filter::{MAX_LOCATIONS, MAX_PORT_RANGES, MAX_REASONS, PortRange, TextRange};

use super::failure::{Usage, did_you_mean};
use crate::{
    attribute::netns::resolve_argument,
    cause::Catalogue,
    filter::{End, Family, Filter, ReasonFilter},
    kernel::Kernel,
    packet::Protocol,
    say::say,
};

/// Longest interface name (IFNAMSIZ - 1).
const MAX_IFNAME: usize = 15;

/// Filters. A drop must meet all of them; ICMP errors match by the packet they quote as well.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters (a drop must meet all)")]
pub(super) struct FilterArgs {
    /// Source or destination port: numbers and ranges, `80,443,8000-8080`.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    port: Vec<Ports>,

    /// Source port.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    src_port: Vec<Ports>,

    /// Destination port.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    dst_port: Vec<Ports>,

    /// Source or destination address: an address or a CIDR.
    #[arg(long, value_name = "CIDR")]
    host: Option<Host>,

    /// Source address.
    #[arg(long, value_name = "CIDR")]
    src: Option<Host>,

    /// Destination address.
    #[arg(long, value_name = "CIDR")]
    dst: Option<Host>,

    /// Protocol: tcp, udp, icmp, icmp6, arp, or an IP protocol number.
    #[arg(long, value_name = "PROTO")]
    proto: Option<Proto>,

    /// Address family: ip or ip6.
    #[arg(long, value_name = "FAMILY")]
    family: Option<FamilyName>,

    /// Name of the network interface the packet was on.
    #[arg(long, short = 'i', value_name = "NAME")]
    interface: Option<String>,

    /// Network namespace: a name as in `ip netns`, an inode, a path, or pid:N.
    #[arg(long, value_name = "NETNS")]
    netns: Option<String>,

    /// The kernel's drop reason, or !REASON for all but it; several with commas.
    #[arg(long, value_name = "REASON", value_delimiter = ',', allow_hyphen_values = false)]
    reason: Vec<String>,

    /// Cause id, as in `netdrop explain`; several with commas.
    #[arg(long, value_name = "CAUSE", value_delimiter = ',')]
    cause: Vec<String>,

    /// Kernel function that dropped.
    #[arg(long, value_name = "SYMBOL")]
    location: Option<String>,
}

/// `80` or `8000-8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports(PortRange);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse::<u16>()
                .map_err(|_| format!("`{text}` is no port or range, like 80 or 8000-8080 (up to 65535)"))
        };
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            return Err(format!("{low} is above {high}"));
        }
        Ok(Self(PortRange { low, high }))
    }
}

/// An address or a CIDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host(IpNet);

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or CIDR, like 10.0.0.1, 10.0.0.0/8 or fd00::/8");
        if text.contains('/') {
            return text.parse().map(Self).map_err(|_| wrong());
        }
        text.parse::<IpAddr>().map(|address| Self(address.into())).map_err(|_| wrong())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proto(Protocol);

impl FromStr for Proto {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if let Some((_, protocol)) = Protocol::NAMED.iter().find(|(name, _)| *name == lower) {
            return Ok(Self(*protocol));
        }
        if let Ok(number) = lower.parse() {
            return Ok(Self(Protocol::Ip(number)));
        }
        let near = near(&lower, Protocol::NAMED.iter().map(|(name, _)| *name));
        Err(format!("tcp, udp, icmp, icmp6, arp or a number (0-255){}", did_you_mean(&near)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FamilyName {
    /// IPv4.
    #[value(alias = "ip4", alias = "ipv4", alias = "inet")]
    Ip,
    /// IPv6.
    #[value(alias = "ipv6", alias = "inet6")]
    Ip6,
}

/// Names that look like a misspelt one, best first.
fn near<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    /// Similarity below which a name is no help.
    const SIMILAR: f64 = 0.75;
    /// More is a list, not a suggestion.
    const MOST: usize = 3;
    let mut scored: Vec<(f64, &str)> = names
        .map(|name| {
            // Short names: one slip leaves little that is alike.
            let slip = strsim::osa_distance(wrong, name) <= 1;
            (if slip { 1.0 } else { strsim::jaro_winkler(wrong, name) }, name)
        })
        .filter(|(score, _)| *score >= SIMILAR)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(MOST).map(|(_, name)| name).collect()
}

impl FilterArgs {
    /// Resolves names for the running kernel.
    ///
    /// # Errors
    ///
    /// [`Usage`] for a name that does not exist, with those that look like it.
    pub(super) fn resolve(&self, kernel: &Kernel, catalogue: &Catalogue) -> anyhow::Result<Filter> {
        let mut filter = Filter {
            ports: [
                ports("--port", &self.port)?,
                ports("--src-port", &self.src_port)?,
                ports("--dst-port", &self.dst_port)?,
            ],
            hosts: [self.host, self.src, self.dst].map(|host| host.map(|host| host.0)),
            protocol: self.proto.map(|proto| proto.0),
            family: self.family.map(|family| match family {
                FamilyName::Ip => Family::Ip,
                FamilyName::Ip6 => Family::Ip6,
            }),
            reasons: self.reasons(kernel)?,
            locations: self.locations(kernel)?,
            causes: self.causes(kernel, catalogue)?,
            interface: self.interface()?,
            netns: None,
        };
        possible(&filter)?;
        if let Some(netns) = &self.netns {
            let id = resolve_argument(netns, Path::new("/proc"))
                .map_err(|error| Usage(format!("--netns: {error}")))?;
            filter.netns = Some(id);
        }
        Ok(filter)
    }

    fn interface(&self) -> Result<Option<String>, Usage> {
        let Some(name) = &self.interface else { return Ok(None) };
        if name.is_empty() || name.len() > MAX_IFNAME {
            return Err(Usage(format!("--interface: an interface name has 1 to {MAX_IFNAME} bytes")));
        }
        // The interface may be in any namespace, so one that is not here is worth a word, not an error.
        let here: Vec<String> = std::fs::read_dir("/sys/class/net")
            .map(|entries| {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
            })
            .unwrap_or_default();
        if self.netns.is_none() && !here.is_empty() && !here.contains(name) {
            let near = near(name, here.iter().map(String::as_str));
            say(format_args!(
                "no interface `{name}` in this namespace, waiting for one in any{}",
                did_you_mean(&near)
            ));
        }
        Ok(Some(name.clone()))
    }

    fn causes(&self, kernel: &Kernel, catalogue: &Catalogue) -> Result<Vec<String>, Usage> {
        for id in &self.cause {
            if catalogue.get(id).is_none() {
                let hint = did_you_mean(&catalogue.suggest(id));
                let other = if kernel.reasons.find(id).is_some() {
                    "; that is a drop reason, see --reason"
                } else {
                    ""
                };
                return Err(Usage(format!(
                    "--cause: no cause `{id}`{other}{hint}; `netdrop explain` lists all causes"
                )));
            }
        }
        Ok(self.cause.clone())
    }

    fn reasons(&self, kernel: &Kernel) -> Result<Option<ReasonFilter>, Usage> {
        if self.reason.is_empty() {
            return Ok(None);
        }
        if !kernel.reasons.any() {
            return Err(Usage(format!(
                "--reason: this kernel ({}) has no drop reasons, they came with 5.17; --location and --cause work",
                kernel.release
            )));
        }
        if self.reason.len() > MAX_REASONS {
            return Err(Usage(format!("--reason: at most {MAX_REASONS}, {} given", self.reason.len())));
        }
        // `!A,B` excludes both: an exclamation mark on the first is meant for all.
        let exclude = self.reason[0].starts_with('!');
        let mut codes = Vec::new();
        for (index, text) in self.reason.iter().enumerate() {
            let name = text.strip_prefix('!').unwrap_or(text);
            if index > 0 && text.starts_with('!') && !exclude {
                return Err(Usage("--reason: either REASON,REASON or !REASON,REASON, not both".to_owned()));
            }
            codes.push(kernel.reasons.find(name).ok_or_else(|| no_reason(name, kernel))?);
        }
        Ok(Some(if exclude { ReasonFilter::Exclude(codes) } else { ReasonFilter::Include(codes) }))
    }

    fn locations(&self, kernel: &Kernel) -> Result<Vec<TextRange>, Usage> {
        let Some(name) = &self.location else { return Ok(Vec::new()) };
        let symbols = kernel.symbols.as_ref().map_err(|error| Usage(format!("--location: {error}")))?;
        if name.is_empty() {
            return Err(Usage("--location: name a kernel function, like tcp_v4_rcv".to_owned()));
        }
        let ranges = symbols.ranges(name);
        if ranges.is_empty() {
            let hint = did_you_mean(&symbols.suggest(name));
            return Err(Usage(format!("--location: this kernel has no function `{name}`{hint}")));
        }
        if ranges.len() > MAX_LOCATIONS {
            return Err(Usage(format!(
                "--location: `{name}` is {} functions of that name, at most {MAX_LOCATIONS} can be filtered",
                ranges.len()
            )));
        }
        Ok(ranges.into_iter().map(|(start, end)| TextRange { start, end }).collect())
    }
}

fn no_reason(name: &str, kernel: &Kernel) -> Usage {
    let names: Vec<String> = kernel.reasons.iter().map(|(_, name)| name).collect();
    let near = near(&name.to_ascii_uppercase(), names.iter().map(String::as_str));
    Usage(format!(
        "--reason: this kernel ({}) has no drop reason `{name}`{}",
        kernel.release,
        did_you_mean(&near)
    ))
}

fn ports(flag: &str, ports: &[Ports]) -> Result<Vec<PortRange>, Usage> {
    if ports.len() > MAX_PORT_RANGES {
        return Err(Usage(format!(
            "{flag}: at most {MAX_PORT_RANGES} numbers or ranges, {} given",
            ports.len()
        )));
    }
    Ok(ports.iter().map(|ports| ports.0).collect())
}

/// Refuses what no packet can meet: it would wait for ever.
fn possible(filter: &Filter) -> Result<(), Usage> {
    let impossible = |what: &str| Err(Usage(format!("no packet can match: {what}")));
    let ports = filter.ports.iter().any(|ranges| !ranges.is_empty());
    match filter.protocol {
        Some(protocol) if ports && !protocol.has_ports() => {
            return impossible(&format!(
                "{protocol} has no ports (ICMP errors match --port by the packet they quote: leave --proto out)"
            ));
        }
        Some(Protocol::Arp) if filter.family.is_some() => return impossible("ARP is neither IPv4 nor IPv6"),
        _ => {}
    }
    let mut families: Vec<Family> = filter.family.into_iter().collect();
    for host in filter.hosts.iter().flatten() {
        families.push(if host.addr().is_ipv4() { Family::Ip } else { Family::Ip6 });
    }
    if families.windows(2).any(|pair| pair[0] != pair[1]) {
        return impossible("IPv4 and IPv6 are both asked for");
    }
    Ok(())
}

/// The order in which [`Filter`] holds what is said of ends.
const _: () = assert!(matches!(End::ALL, [End::Either, End::Source, End::Destination]));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_typed() {
        assert_eq!("80".parse(), Ok(Ports(PortRange { low: 80, high: 80 })));
        assert_eq!("1-65535".parse(), Ok(Ports(PortRange { low: 1, high: 65535 })));
        for wrong in ["", "-", "80-", "-80", "http", "65536", "90-80", "1-2-3"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_as_typed() {
        assert_eq!("10.0.0.1".parse::<Host>().unwrap().0.to_string(), "10.0.0.1/32");
        assert_eq!("fd00::/8".parse::<Host>().unwrap().0.to_string(), "fd00::/8");
        assert!("10.0.0.1/33".parse::<Host>().is_err());
        assert!("nginx".parse::<Host>().is_err());
    }

    #[test]
    fn protocols_as_typed() {
        assert_eq!("TCP".parse(), Ok(Proto(Protocol::Ip(6))));
        assert_eq!("89".parse(), Ok(Proto(Protocol::Ip(89))));
        assert_eq!("arp".parse(), Ok(Proto(Protocol::Arp)));
        assert!("icpm".parse::<Proto>().unwrap_err().contains("`icmp`"));
        assert!("256".parse::<Proto>().is_err());
    }

    #[test]
    fn misspelt_names_find_their_like() {
        let names = ["NO_SOCKET", "NETFILTER_DROP", "SOCKET_FILTER"];
        assert_eq!(near("NO_SOKET", names.into_iter())[0], "NO_SOCKET");
        assert!(near("XYZ", names.into_iter()).is_empty());
    }
}
