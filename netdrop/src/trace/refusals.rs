//! Refused calls on their way through a run.

use netdrop_common::refusal::RefusalEvent;

use super::Pipeline;
use crate::{
    attribute::{Wanted, netns::NetnsId},
    cause::Class,
    clock::Clock,
    outputs::Outputs,
    process::ProcessEvidence,
    refusal::Refusal,
    totals::wanted,
};

impl Pipeline<'_> {
    pub(super) fn refusal(&mut self, record: &RefusalEvent, clock: Clock, outputs: &mut Outputs<'_>) {
        let judged = self.refusals.judge(&record.key);
        if !wanted(&self.causes, &judged.cause) || record.overflowed != 0 && !self.causes.is_empty() {
            return;
        }
        if judged.class == Class::Benign && !self.all {
            self.tally.refusals.hidden += 1;
        } else if self.full() {
            self.tally.refusals.counted_only += 1;
        } else {
            self.tally.refusals.shown += 1;
            let netns = NetnsId::of_refusal(&record.key);
            let attribution = netns.map(|id| self.attributor.lookup(id)).unwrap_or_default();
            let attributor = &self.attributor;
            let wants = judged.wants("ports") || judged.wants("holder");
            let table = netns
                .filter(|_| wants)
                .and_then(|id| self.inside.ports(id, record.key.protocol, || attributor.open(id)));
            let time = clock.wall(record.time_ns);
            let mut refusal = Refusal::new(record, time, judged, attribution, table.as_deref());
            if let (Some(holder), Some(netns)) = (&mut refusal.evidence.holder, netns)
                && holder.inode != 0
            {
                let socket = Wanted {
                    inode: holder.inode.into(),
                    netns,
                    evidence: ProcessEvidence::SockDiag,
                    state: false,
                };
                if let Some(process) = self.attributor.owner(socket) {
                    holder.pid = Some(process.pid);
                    holder.comm = Some(process.comm);
                }
            }
            outputs.refusal(&refusal);
        }
    }
}
