//! The table and chain that a function hook saw drop a packet.

use netdrop_common::event::{RULED_BY_NFT, RULED_BY_XTABLES, Ruling};

use super::text;

/// What `ipt_do_table()` or `nft_do_chain()` was going through when it dropped the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Family of the table, as nft names it: that of the packet with xtables, possibly `inet` with nft.
    pub family: Option<&'static str>,
    /// The hook, where it was read (xtables).
    pub hook: Option<&'static str>,
    /// Name of the table.
    pub table: String,
    /// The chain that the hook enters: the built-in one with xtables, the base chain with nft. The rule may stand in
    /// one that this jumps to.
    pub base_chain: Option<String>,
    /// Whether it is a table of xtables (iptables-legacy), else of nft.
    pub legacy: bool,
}

impl Observed {
    /// Reads what the kernel side wrote; nothing when no hook saw a table.
    #[must_use]
    pub fn of(ruling: &Ruling) -> Option<Self> {
        let legacy = match ruling.by {
            RULED_BY_XTABLES => true,
            RULED_BY_NFT => false,
            _ => return None,
        };
        let table = text(&ruling.table)?;
        let (hook, built_in) = hook(ruling.hook).filter(|_| legacy).unzip();
        let base_chain = if legacy { built_in.map(str::to_owned) } else { text(&ruling.chain) };
        Some(Self { family: family(ruling.family), hook, table, base_chain, legacy })
    }
}

/// `NFPROTO_*` (include/uapi/linux/netfilter.h) as nft names families.
fn family(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    })
}

/// `enum nf_inet_hooks` (include/uapi/linux/netfilter.h): nft's name of the hook, and the built-in chain of iptables.
fn hook(number: u8) -> Option<(&'static str, &'static str)> {
    Some(match number {
        0 => ("prerouting", "PREROUTING"),
        1 => ("input", "INPUT"),
        2 => ("forward", "FORWARD"),
        3 => ("output", "OUTPUT"),
        4 => ("postrouting", "POSTROUTING"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<const N: usize>(name: &str) -> [u8; N] {
        let mut bytes = [0; N];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn a_table_of_iptables_has_its_built_in_chain() {
        let ruling =
            Ruling { table: name("mangle"), by: RULED_BY_XTABLES, hook: 4, family: 10, ..Ruling::NONE };
        let observed = Observed::of(&ruling).unwrap();
        assert_eq!((observed.family, observed.hook), (Some("ip6"), Some("postrouting")));
        assert_eq!((&*observed.table, observed.base_chain.as_deref()), ("mangle", Some("POSTROUTING")));
    }

    #[test]
    fn a_chain_of_nft_has_its_own_name() {
        let ruling =
            Ruling { table: name("fw"), chain: name("in"), by: RULED_BY_NFT, family: 1, ..Ruling::NONE };
        let observed = Observed::of(&ruling).unwrap();
        assert_eq!((observed.family, observed.hook), (Some("inet"), None));
        assert_eq!((&*observed.table, observed.base_chain.as_deref()), ("fw", Some("in")));
        assert!(!observed.legacy);
    }

    #[test]
    fn nothing_was_seen() {
        assert_eq!(Observed::of(&Ruling::NONE), None);
    }
}
