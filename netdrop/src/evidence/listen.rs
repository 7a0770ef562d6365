//! The queues of a listener.

use std::net::SocketAddr;

use netdrop_common::{
    codes::ListenDrop,
    event::{DropEvent, HAVE_LISTENER, Listener},
    facts::Facts,
};
use serde::Serialize;

use crate::{packet::address, process::Process};

/// The queue that a drop is about, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listen {
    /// `accept`: connections that the program has not accepted yet; `syn`: handshakes that are half done.
    pub queue: &'static str,
    /// The listener's own address; nothing where only the namespace's limits are known.
    pub address: Option<SocketAddr>,
    /// Entries in the queue.
    pub length: Option<u32>,
    /// Entries that the knob allows which binds. `sk_max_ack_backlog` bounds both queues, which are full with one more;
    /// of `tcp_max_syn_backlog` the last quarter is kept back.
    pub limit: Option<u32>,
    /// The argument of listen(), where it is what bounds the queue: a larger one is cut to `somaxconn` and forgotten.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` of the namespace.
    pub somaxconn: u32,
    /// `net.ipv4.tcp_max_syn_backlog` of the namespace.
    pub max_syn_backlog: u32,
    /// The knob that binds: `backlog`, `somaxconn` or `tcp_max_syn_backlog`.
    pub binds: Option<&'static str>,
    /// State of the listener's owner, see [`Process::state`].
    pub owner_state: Option<&'static str>,
    /// The kernel function that the owner waits in.
    pub owner_wchan: Option<String>,
}

impl Listen {
    /// What the record says, with what was `found` of the listener where the hook did not have it, and its `owner`.
    pub(super) fn new(record: &DropEvent, found: Option<Listener>, owner: Option<&Process>) -> Option<Self> {
        if record.have & HAVE_LISTENER == 0 {
            return None;
        }
        let code = Facts(record.key.facts).listen();
        let limits = record.listener;
        let listener = Some(limits).filter(|listener| listener.port != 0).or(found);
        let half_open = matches!(code, ListenDrop::SynQueue | ListenDrop::SynBacklog);
        let queue_limit = listener.map(|listener| listener.limit);
        let backlog = queue_limit.filter(|limit| *limit < limits.somaxconn);
        let (limit, binds) = match code {
            ListenDrop::SynBacklog => (Some(limits.max_syn_backlog), Some("tcp_max_syn_backlog")),
            _ if backlog.is_some() => (queue_limit, Some("backlog")),
            _ => (queue_limit, queue_limit.map(|_| "somaxconn")),
        };
        Some(Self {
            queue: if half_open { "syn" } else { "accept" },
            address: listener.map(|listener| local(&listener)),
            length: listener.map(|listener| if half_open { listener.half_open } else { listener.length }),
            limit,
            backlog,
            somaxconn: limits.somaxconn,
            max_syn_backlog: limits.max_syn_backlog,
            binds,
            owner_state: owner.and_then(|owner| owner.state),
            owner_wchan: owner.and_then(|owner| owner.wchan.clone()),
        })
    }
}

fn local(listener: &Listener) -> SocketAddr {
    let ip = address(&listener.address, listener.family == libc::AF_INET6 as u16);
    SocketAddr::new(ip, listener.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(code: ListenDrop, listener: Listener) -> DropEvent {
        let mut record = crate::decode::decode(&[0; size_of::<DropEvent>()]).unwrap().event;
        record.have = HAVE_LISTENER;
        record.key.facts = Facts::default().with_listen(code as u8).0;
        record.listener = listener;
        record
    }

    const LISTENER: Listener = Listener {
        address: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        port: 80,
        family: libc::AF_INET as u16,
        length: 2,
        limit: 1,
        half_open: 5,
        somaxconn: 4096,
        max_syn_backlog: 512,
    };

    #[test]
    fn the_smaller_of_argument_and_cap_binds() {
        let listen = Listen::new(&record(ListenDrop::AcceptQueue, LISTENER), None, None).unwrap();
        assert_eq!((listen.queue, listen.length, listen.limit), ("accept", Some(2), Some(1)));
        assert_eq!((listen.backlog, listen.binds), (Some(1), Some("backlog")));
        assert_eq!(listen.address.map(|address| address.to_string()).as_deref(), Some("10.0.0.2:80"));
        let capped = Listener { limit: 4096, ..LISTENER };
        let listen = Listen::new(&record(ListenDrop::AcceptQueue, capped), None, None).unwrap();
        assert_eq!((listen.backlog, listen.binds), (None, Some("somaxconn")));
    }

    #[test]
    fn half_done_handshakes_are_another_queue() {
        let listen = Listen::new(&record(ListenDrop::SynBacklog, LISTENER), None, None).unwrap();
        assert_eq!((listen.queue, listen.length), ("syn", Some(5)));
        assert_eq!((listen.limit, listen.binds), (Some(512), Some("tcp_max_syn_backlog")));
    }

    #[test]
    fn without_the_listener_its_limits_are_not_known() {
        let record = record(ListenDrop::AcceptQueue, Listener { port: 0, ..LISTENER });
        let listen = Listen::new(&record, None, None).unwrap();
        assert_eq!((listen.length, listen.binds, listen.address), (None, None, None));
        let found = Listen::new(&record, Some(LISTENER), None).unwrap();
        assert_eq!((found.length, found.binds), (Some(2), Some("backlog")));
    }
}
