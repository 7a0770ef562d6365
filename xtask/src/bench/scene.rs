//! The rules that drop in a bench: each in a namespace of its own, with its own count.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use crate::{command, netns::Netns};

/// Which packet filter drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scene {
    /// nftables, which frees the packet where the rule is evaluated (Linux 6.7 and newer).
    Nft,
    /// iptables-legacy, whose drops look like those of connection tracking: netdrop asks its counters each time.
    Iptables,
}

impl Scene {
    /// Its name on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        }
    }

    /// Drops every datagram to this port of the namespace, and counts it.
    pub(super) fn drop_datagrams(self, netns: &Netns, port: u16) -> Result<()> {
        match self {
            Self::Nft => netns.nft(&format!(
                "table inet bench {{
                    counter dropped {{ }}
                    chain input {{
                        type filter hook input priority filter;
                        udp dport {port} counter name dropped drop
                    }}
                }}"
            )),
            Self::Iptables => iptables(netns, &format!("-A INPUT -p udp --dport {port} -j DROP"))
                .map(drop)
                .context("this kernel may have no iptables-legacy; leave it out with `--scene nft`"),
        }
    }

    /// Datagrams dropped in the namespace so far, by the kernel's own count.
    pub(super) fn dropped(self, netns: &Netns) -> Result<u64> {
        match self {
            Self::Nft => {
                let mut list = netns.command("nft");
                let listed =
                    command::output(list.args(["-j", "list", "counter", "inet", "bench", "dropped"]))?;
                let listed: Value = serde_json::from_str(&listed).context("nft's list is no JSON")?;
                let mut objects = listed["nftables"].as_array().into_iter().flatten();
                objects
                    .find_map(|object| object["counter"]["packets"].as_u64())
                    .with_context(|| format!("no counter in {listed}"))
            }
            Self::Iptables => {
                let rule = iptables(netns, "-nvxL INPUT 1")?;
                let packets = rule.split_whitespace().next().and_then(|packets| packets.parse().ok());
                packets.with_context(|| format!("no count of packets in `{}`", rule.trim()))
            }
        }
    }
}

/// iptables-legacy in the namespace, with these words; waits for the lock that it shares with others.
fn iptables(netns: &Netns, words: &str) -> Result<String> {
    let mut iptables = netns.command("iptables-legacy");
    command::output(iptables.arg("-w").args(words.split_whitespace()))
}
