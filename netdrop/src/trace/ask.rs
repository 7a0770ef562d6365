//! What the machine is asked after a drop, because its record does not say it.

use netdrop_common::{
    codes::Conntrack,
    event::{DropEvent, HAVE_DEVICE, HAVE_LISTENER, HAVE_QDISC, HAVE_SOCKET, Listener, QDISC_DROPPED},
    facts::Facts,
};

use super::Pipeline;
use crate::{
    attribute::{Wanted, netns::NetnsId},
    counters::qdisc::{Qdisc, qdiscs},
    evidence::Table,
    inside::within,
    judge::Judged,
    packet::Packet,
    process::{Process, ProcessEvidence},
};

/// What was found out after a drop.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) listener: Option<Listener>,
    pub(super) table: Table,
    pub(super) process: Option<Process>,
}

impl Pipeline<'_> {
    /// Asks the counters which qdisc below the device's dropped, where no hook saw it.
    pub(super) fn below(&mut self, record: &DropEvent, judged: &Judged) -> Option<Qdisc> {
        let unseen = record.have & (HAVE_QDISC | HAVE_DEVICE | QDISC_DROPPED) == HAVE_QDISC | HAVE_DEVICE;
        if !judged.wants("qdisc") || !unseen || record.qdisc.handle == 0 {
            return None;
        }
        let netns = NetnsId::of(&record.key)?;
        let attributor = &self.attributor;
        self.below.find(netns, record.ifindex, record.qdisc.handle, || {
            attributor.open(netns).and_then(|netns| within(netns, qdiscs).ok()).unwrap_or_default()
        })
    }

    /// Asks the machine what the record should say and does not.
    pub(super) fn ask(&mut self, record: &DropEvent, judged: &Judged, packet: &Packet) -> Asked {
        let Some(netns) = NetnsId::of(&record.key) else { return Asked::default() };
        let attributor = &self.attributor;
        let open = || attributor.open(netns);
        let half_told = record.have & HAVE_LISTENER != 0 && record.listener.port == 0;
        let listening = if judged.wants("listen") && half_told {
            self.inside.listener(netns, packet, open)
        } else {
            None
        };
        let full = Facts(record.key.facts).conntrack() == Conntrack::TableFull;
        let table =
            if judged.wants("conntrack") && full { self.inside.table(netns, open) } else { Table::default() };
        let socket = if record.have & HAVE_SOCKET != 0 {
            Some((record.socket_inode, ProcessEvidence::Socket))
        } else if judged.wants("socket") && record.iif != 0 {
            let inode = self.inside.receiver(netns, packet, record.iif, open);
            inode.map(|inode| (inode, ProcessEvidence::SockDiag))
        } else {
            listening.map(|listening| (listening.inode, ProcessEvidence::SockDiag))
        };
        let state = judged.wants("listen") || judged.wants("socket");
        let process = socket
            .filter(|(inode, _)| *inode != 0)
            .and_then(|(inode, evidence)| self.attributor.owner(Wanted { inode, netns, evidence, state }));
        Asked { listener: listening.map(|listening| listening.listener), table, process }
    }
}
