//! The netfilter evidence of a drop: the hook by the stack, the rule by the namespace's ruleset.

use netdrop_common::event::{DropEvent, HAVE_DEVICE, Ruling};

use crate::{
    attribute::{Attributor, netns::NetnsId},
    evidence::{Netfilter, Observed, Telling, text},
    judge::Judged,
    kernel::Kernel,
    packet::Packet,
    rules::Rulebook,
};

/// What the kernel side saw of a drop.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The record.
    pub record: &'a DropEvent,
    /// The table that dropped the packet, where a hook saw it.
    pub ruling: Option<&'a Ruling>,
}

/// Finds the evidence of netfilter drops.
pub struct Firewall {
    rulebook: Rulebook,
    nftables_frees: bool,
}

impl Firewall {
    /// Reads no rules yet.
    #[must_use]
    pub fn new(kernel: &Kernel) -> Self {
        Self { rulebook: Rulebook::new(kernel.has_nftables()), nftables_frees: kernel.nftables_frees() }
    }

    /// What is to be said of a drop whose cause lists it; `functions` names those of the stack, innermost first, none where
    /// the record has no stack.
    pub fn evidence<'a>(
        &mut self,
        seen: Seen<'_>,
        functions: impl FnOnce() -> Vec<Option<&'a str>>,
        judged: &Judged,
        packet: &Packet,
        attributor: &Attributor,
    ) -> Option<Netfilter> {
        if !judged.wants("netfilter") {
            return None;
        }
        let Seen { record, ruling } = seen;
        let functions = functions();
        let observed = ruling.and_then(Observed::of);
        if functions.is_empty() && observed.is_none() {
            return None;
        }
        let telling = Telling {
            functions: &functions,
            location: judged.location.symbol.as_deref(),
            nftables_frees: self.nftables_frees,
            observed: observed.as_ref(),
        };
        let mut netfilter = Netfilter::new(record, &telling, packet.family);
        let device = text(&record.ifname).filter(|_| record.have & HAVE_DEVICE != 0);
        if judged.wants("netfilter.rules")
            && let Some(id) = NetnsId::of(&record.key)
            && let Some(question) = netfilter.question(record, &telling, packet, device.as_deref())
            && let Some(culprit) = self.rulebook.ask(id, &question, || attributor.open(id))
        {
            netfilter.name(&culprit);
        }
        Some(netfilter)
    }
}
