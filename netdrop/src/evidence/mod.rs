//! The figures behind a verdict: what the kernel side read for the causes of a drop's reason, under the names
//! of the JSON object `evidence`.

mod below;
mod conntrack;
mod listen;
mod netfilter;
mod ports;
mod qdisc;
mod ruled;

use netdrop_common::{
    event::{
        Connection, DropEvent, HAVE_MEMORY, HAVE_MTU, HAVE_NEIGHBOUR, HAVE_QDISC, HAVE_ROUTE,
        HAVE_SOCKET_MEMORY, Listener,
    },
    witness::Cell,
};
use serde::Serialize;

pub use below::Below;
pub use conntrack::{Conntrack, Direction, Table, Winner};
pub use listen::Listen;
pub use netfilter::{Netfilter, Telling};
pub use ports::{Held, Holder, PortTable, Ports};
pub use qdisc::Qdisc;
pub use ruled::Observed;

use crate::{
    counters,
    judge::Judged,
    packet::{Packet, Protocol},
    process::Process,
};

/// Everything that speaks for the cause of one drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Memory of the receiving socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketMemory>,
    /// Memory of all sockets of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ProtocolMemory>,
    /// The packet's route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The neighbour table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<Neighbour>,
    /// The MTU that the packet met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// The qdisc that dropped, or the one in front of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qdisc: Option<Qdisc>,
    /// The netfilter hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netfilter: Option<Netfilter>,
    /// What connection tracking knows of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<Conntrack>,
    /// The listener's queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
    /// The kernel counter that speaks for the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
}

/// A kernel counter that moved, on the same CPU, just before the drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Its name, as `nstat` (without `TcpExt`) and `conntrack -S` show it.
    pub cell: &'static str,
    /// By how much, at most 255.
    pub delta: u8,
}

/// What was found out of a drop besides its record.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The netfilter hook.
    pub netfilter: Option<Netfilter>,
    /// The packet's connection, and the one that was there first.
    pub connections: Option<[Connection; 2]>,
    /// The listener, asked for where the hook did not have it.
    pub listener: Option<Listener>,
    /// State of the conntrack table.
    pub table: Table,
    /// The qdisc below the device's that dropped, by its counter.
    pub below: Option<counters::qdisc::Qdisc>,
    /// Whose socket the packet was for.
    pub process: Option<Process>,
}

/// Receive memory of the socket the packet was for, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketMemory {
    /// Received and unread (`sk_rmem_alloc`).
    pub used: u32,
    /// Limit of that (`sk_rcvbuf`).
    pub limit: u32,
    /// Received while a program held the socket's lock (`sk_backlog.len`).
    pub backlog: u32,
    /// Limit of the send buffer (`sk_sndbuf`), which bounds the backlog together with `limit`.
    pub send_limit: u32,
    /// The setting that bounds the limit.
    pub sysctl: Option<&'static str>,
    /// State of the socket's owner, see [`Process::state`].
    pub owner_state: Option<&'static str>,
    /// Where the owner waits.
    pub owner_wchan: Option<String>,
}

/// Memory of all sockets of a protocol, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProtocolMemory {
    /// In use (`memory_allocated` of the protocol); CPUs keep some more to themselves.
    pub used: u64,
    /// Third value of the setting.
    pub limit: u64,
    /// The setting.
    pub sysctl: Option<&'static str>,
}

/// A route that refuses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// As `ip route` names the type; `none` where no route matches or the host does not forward.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// What the route answers (`dst->error`).
    pub error: Option<&'static str>,
}

/// The neighbour table, which all namespaces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Entries that count against the limit.
    pub entries: u32,
    /// `gc_thresh3`.
    pub limit: u32,
    /// State of the neighbour that the packet was for, as `ip neigh` names it; follows from the reason.
    pub state: Option<&'static str>,
    /// Bytes that may wait for one unresolved neighbour of this device (`unres_qlen_bytes`).
    pub queue_limit: Option<u32>,
}

/// The MTU that the packet met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mtu {
    /// Length of the packet, from the network header on.
    pub len: Option<u32>,
    /// Longest packet that goes through.
    pub limit: u32,
    /// The device that says so; the other end of a veth may be in another namespace.
    pub device: Option<String>,
}

impl Evidence {
    /// What speaks for the cause of this record.
    #[must_use]
    pub fn new(
        record: &DropEvent,
        judged: &Judged,
        packet: &Packet,
        device: Option<&str>,
        found: &Found,
    ) -> Self {
        let have = |key: &str, bit: u16| judged.wants(key) && record.have & bit != 0;
        Self {
            socket: have("socket", HAVE_SOCKET_MEMORY).then(|| SocketMemory {
                used: record.socket_used,
                limit: record.socket_limit,
                backlog: record.socket_backlog,
                send_limit: record.socket_send_limit,
                sysctl: match packet.proto {
                    Some(Protocol::UDP) => Some("net.core.rmem_max"),
                    Some(Protocol::TCP) => Some("net.ipv4.tcp_rmem"),
                    _ => None,
                },
                owner_state: found.process.as_ref().and_then(|process| process.state),
                owner_wchan: found.process.as_ref().and_then(|process| process.wchan.clone()),
            }),
            memory: have("memory", HAVE_MEMORY).then_some(ProtocolMemory {
                used: record.memory_used,
                limit: record.memory_limit,
                sysctl: match packet.proto {
                    Some(Protocol::UDP) => Some("net.ipv4.udp_mem"),
                    Some(Protocol::TCP) => Some("net.ipv4.tcp_mem"),
                    _ => None,
                },
            }),
            route: (have("route", HAVE_ROUTE) && record.route_error != 0)
                .then(|| Route::new(record.route_error, judged.reason.name.as_deref())),
            neighbour: have("neighbour", HAVE_NEIGHBOUR).then(|| Neighbour {
                entries: record.neighbour.entries,
                limit: record.neighbour.limit,
                state: neighbour_state(judged.reason.name.as_deref(), judged.location.symbol.as_deref()),
                queue_limit: Some(record.neighbour.queue_limit).filter(|limit| *limit != 0),
            }),
            mtu: have("mtu", HAVE_MTU)
                .then(|| Mtu { len: packet.len, limit: record.mtu, device: text(&record.mtu_device) })
                .filter(Mtu::is_exceeded),
            qdisc: have("qdisc", HAVE_QDISC).then(|| Qdisc::new(record, device, found.below.as_ref())),
            netfilter: found.netfilter.clone(),
            conntrack: if judged.wants("conntrack") {
                Conntrack::new(found.connections.as_ref(), found.table)
            } else {
                None
            },
            listen: if judged.wants("listen") {
                Listen::new(record, found.listener, found.process.as_ref())
            } else {
                None
            },
            witness: Cell::from_code(record.witness_cell)
                .filter(|_| judged.wants("witness"))
                .map(|cell| Witness { cell: cell.name(), delta: record.witness_delta }),
        }
    }
}

impl Mtu {
    /// Whether the packet is too long for it. One that fits met another device's, as on a bridge, where neither
    /// the route nor the other end of a veth says what the port takes.
    fn is_exceeded(&self) -> bool {
        self.len.is_none_or(|len| len > self.limit)
    }
}

impl Route {
    /// What `-dst->error` says of the route (`fib_props`, net/ipv4/fib_semantics.c; `ip6_rt_type_to_error`,
    /// net/ipv6/route.c).
    fn new(error: u8, reason: Option<&str>) -> Self {
        /// Not for this host, and it does not forward: no route was looked at (ip_route_input_slow).
        const NOT_FORWARDING: &str = "IP_INADDRERRORS";
        let (kind, error) = match i32::from(error) {
            libc::ENETUNREACH => (Some("none"), Some("ENETUNREACH")),
            libc::EHOSTUNREACH if reason == Some(NOT_FORWARDING) => (Some("none"), Some("EHOSTUNREACH")),
            libc::EHOSTUNREACH => (Some("unreachable"), Some("EHOSTUNREACH")),
            libc::EACCES => (Some("prohibit"), Some("EACCES")),
            libc::EINVAL => (Some("blackhole"), Some("EINVAL")),
            libc::EAGAIN => (Some("throw"), Some("EAGAIN")),
            _ => (None, None),
        };
        Self { kind, error }
    }
}

/// The state that the kernel's reason implies, or the place where it gives none (net/core/neighbour.c).
fn neighbour_state(reason: Option<&str>, symbol: Option<&str>) -> Option<&'static str> {
    match (reason, symbol) {
        (Some("NEIGH_FAILED"), _) | (_, Some("neigh_invalidate")) => Some("FAILED"),
        (Some("NEIGH_QUEUEFULL"), _) => Some("INCOMPLETE"),
        _ => None,
    }
}

/// A NUL-padded name; nothing when it is empty.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (len > 0).then(|| String::from_utf8_lossy(&bytes[..len]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded() {
        assert_eq!(text(b"tbf\0\0\0\0\0"), Some("tbf".to_owned()));
        assert_eq!(text(b"exactly8"), Some("exactly8".to_owned()));
        assert_eq!(text(&[0; 16]), None);
    }

    #[test]
    fn an_mtu_that_the_packet_fits_speaks_for_nothing() {
        let exceeded = |len| Mtu { len, limit: 1500, device: None }.is_exceeded();
        assert!(exceeded(Some(1501)) && exceeded(None));
        assert!(!exceeded(Some(1500)));
    }

    #[test]
    fn routes_tell_their_type() {
        let route = |error: i32, reason| Route::new(error as u8, reason).kind;
        assert_eq!(route(libc::EINVAL, Some("NOT_SPECIFIED")), Some("blackhole"));
        assert_eq!(route(libc::EACCES, None), Some("prohibit"));
        assert_eq!(route(libc::EHOSTUNREACH, None), Some("unreachable"));
        assert_eq!(route(libc::EHOSTUNREACH, Some("IP_INADDRERRORS")), Some("none"));
        assert_eq!(route(libc::ENETUNREACH, Some("IP_INNOROUTES")), Some("none"));
        assert_eq!(route(5, None), None);
    }
}
