//! The qdisc that dropped a packet.

use netdrop_common::event::{DropEvent, QDISC_DROPPED};
use serde::Serialize;

use super::text;
use crate::counters;

/// A qdisc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Qdisc {
    /// `tbf`, `fq_codel` ….
    pub kind: String,
    /// `1:`, as tc shows it; `0:` is one that the kernel made.
    pub handle: String,
    /// `root`, or the class it hangs from.
    pub parent: String,
    /// Packets (or bytes, for the kinds that count them) it may hold; nothing where the kind keeps it elsewhere.
    pub limit: Option<u32>,
    /// Packets it holds.
    pub qlen: u32,
    /// The device.
    pub device: Option<String>,
    /// What says that this one dropped the packet: `hook`, its enqueue function was seen to answer so; `counters`, of
    /// those below the one in front of the device its counter alone moved (inferred). Else nothing, and it is the one
    /// in front of the device.
    pub by: Option<&'static str>,
}

impl Qdisc {
    /// As the record has it, or the counters where they say more.
    pub(super) fn new(
        record: &DropEvent,
        device: Option<&str>,
        below: Option<&counters::qdisc::Qdisc>,
    ) -> Self {
        if let Some(below) = below {
            return Self {
                kind: below.kind.clone(),
                handle: handle(below.handle),
                parent: handle(below.parent),
                limit: below.limit,
                qlen: below.qlen,
                device: device.map(str::to_owned),
                by: Some("counters"),
            };
        }
        let qdisc = &record.qdisc;
        Self {
            kind: text(&qdisc.kind).unwrap_or_default(),
            handle: handle(qdisc.handle),
            parent: handle(qdisc.parent),
            limit: Some(qdisc.limit).filter(|limit| *limit != 0),
            qlen: qdisc.qlen,
            device: device.map(str::to_owned),
            by: (record.have & QDISC_DROPPED != 0).then_some("hook"),
        }
    }
}

/// A qdisc handle as tc shows it: hexadecimal, the minor number left out where it is 0.
fn handle(handle: u32) -> String {
    /// `TC_H_ROOT` (include/uapi/linux/pkt_sched.h).
    const ROOT: u32 = u32::MAX;
    match (handle >> 16, handle & 0xffff) {
        _ if handle == ROOT => "root".to_owned(),
        (major, 0) => format!("{major:x}:"),
        (major, minor) => format!("{major:x}:{minor:x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_read_as_tc_writes_them() {
        assert_eq!(handle(u32::MAX), "root");
        assert_eq!(handle(0x0001_0000), "1:");
        assert_eq!(handle(0x8001_000a), "8001:a");
        assert_eq!(handle(0), "0:");
    }
}
