//! One drop as sinks see it: a record with its cause, its names and its packet.

use std::rc::Rc;

use jiff::Timestamp;
use netdrop_common::event::{DropEvent, HAVE_DEVICE, HAVE_ROUTE, HAVE_SENDER, HAVE_SOCKET};
use serde::Serialize;

use crate::{
    attribute::{Attribution, netns::NetnsId},
    capture::Capture,
    evidence::{Evidence, Found, text},
    judge::Judged,
    packet::Packet,
    process::Process,
};

/// Which way the packet was going, seen from the namespace that dropped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Arriving: for this namespace, or not routed yet.
    In,
    /// Sent by this namespace.
    Out,
    /// Passing through.
    Forward,
}

impl Direction {
    /// As JSON and text spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "forward",
        }
    }

    /// Concludes it from where the skb came from and where its route leads (`input` is the function
    /// behind `dst->input`).
    #[must_use]
    pub fn of(event: &DropEvent, input: Option<&str>, location: Option<&str>) -> Option<Self> {
        /// Functions that drop before the stack has noted the arriving interface.
        const BEFORE_ARRIVAL: &[&str] =
            &["enqueue_to_backlog", "netif_rx_internal", "do_xdp_generic", "veth_xdp_rcv_skb", "vxlan_rcv"];
        /// Functions of drivers that send, where the sender's socket is already let go.
        const LEAVING: &[&str] = &["tun_net_xmit"];
        if event.tuple.ethertype == 0 {
            // Nothing that goes anywhere: data of a local socket, or bytes nobody can read.
            return None;
        }
        let routed = event.have & HAVE_ROUTE != 0;
        // A queue drops a packet after its route was let go; on another device than it came by, it was
        // on its way out.
        let elsewhere = event.have & HAVE_DEVICE != 0 && event.iif != 0 && event.iif != event.ifindex;
        if !routed && elsewhere {
            return Some(Self::Forward);
        }
        if routed
            && matches!(input, Some("ip_forward" | "ip6_forward" | "ip_mr_input" | "ip6_mr_input"))
            && event.iif != 0
        {
            return Some(Self::Forward);
        }
        if event.have & HAVE_SOCKET != 0 || event.iif != 0 {
            return Some(Self::In);
        }
        if location.is_some_and(|symbol| BEFORE_ARRIVAL.contains(&symbol)) {
            return Some(Self::In);
        }
        if location.is_some_and(|symbol| LEAVING.contains(&symbol)) {
            return Some(Self::Out);
        }
        (routed || event.have & HAVE_SENDER != 0).then_some(Self::Out)
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// `ifindex`, in the namespace of the drop.
    pub index: u32,
    /// Name; nothing where only the index is known.
    pub name: Option<String>,
}

/// One drop.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, by the wall clock.
    pub time: Timestamp,
    /// Cause, reason and location.
    pub judged: Rc<Judged>,
    /// Headers.
    pub packet: Packet,
    /// Which way.
    pub direction: Option<Direction>,
    /// Where; nothing when the kernel side could not tell.
    pub netns: Option<NetnsId>,
    /// Names of the place.
    pub attribution: Attribution,
    /// Device.
    pub interface: Option<Interface>,
    /// Whose socket the packet was for.
    pub process: Option<Process>,
    /// What speaks for the cause.
    pub evidence: Evidence,
    /// Functions of the kernel stack, innermost first, when they were asked for.
    pub stack: Option<Vec<String>>,
    /// Bytes; nothing when there are none, or none of a network packet.
    pub capture: Option<Capture>,
}

/// What a record needs to become an event.
pub struct Known<'a> {
    /// When.
    pub time: Timestamp,
    /// What follows from its counter key.
    pub judged: Rc<Judged>,
    /// Names of its place.
    pub attribution: Attribution,
    /// The function behind `dst->input`.
    pub input: Option<&'a str>,
    /// What was found out besides.
    pub found: Found,
    /// The packet.
    pub packet: Packet,
    /// The kernel stack, for people.
    pub stack: Option<Vec<String>>,
}

impl Event {
    /// Puts a record and what is known of it together.
    #[must_use]
    pub fn new(record: &DropEvent, known: Known<'_>) -> Self {
        let Known { time, judged, attribution, input, found, packet, stack } = known;
        let interface = interface(record);
        let device = interface.as_ref().and_then(|interface| interface.name.as_deref());
        Self {
            time,
            direction: Direction::of(record, input, judged.location.symbol.as_deref()),
            netns: NetnsId::of(&record.key),
            attribution,
            evidence: Evidence::new(record, &judged, &packet, device, &found),
            packet,
            interface,
            process: found.process,
            stack,
            capture: Capture::of(record),
            judged,
        }
    }
}

/// The device, or at least the index of the one the packet came in by.
fn interface(record: &DropEvent) -> Option<Interface> {
    if record.have & HAVE_DEVICE != 0 {
        return Some(Interface { index: record.ifindex, name: text(&record.ifname) });
    }
    (record.iif != 0).then_some(Interface { index: record.iif, name: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(have: u16, iif: u32) -> DropEvent {
        let mut record = crate::decode::decode(&[0; size_of::<DropEvent>()]).unwrap().event;
        (record.have, record.iif, record.tuple.ethertype) = (have, iif, 0x0800);
        record
    }

    #[test]
    fn directions() {
        let cases = [
            (HAVE_ROUTE, 3, Some("ip_forward"), None, Some(Direction::Forward)),
            (HAVE_ROUTE, 3, Some("ip_local_deliver"), None, Some(Direction::In)),
            (HAVE_ROUTE, 3, Some("ip_error"), None, Some(Direction::In)),
            (0, 3, None, None, Some(Direction::In)),
            (HAVE_SOCKET, 0, None, None, Some(Direction::In)),
            (HAVE_SENDER, 0, None, None, Some(Direction::Out)),
            (HAVE_ROUTE, 0, Some("ip_forward"), None, Some(Direction::Out)),
            (HAVE_SENDER, 0, None, Some("enqueue_to_backlog"), Some(Direction::In)),
            (HAVE_SENDER, 0, None, Some("veth_xdp_rcv_skb"), Some(Direction::In)),
            (0, 0, None, Some("tun_net_xmit"), Some(Direction::Out)),
            (0, 0, None, None, None),
        ];
        for (have, iif, input, location, expected) in cases {
            assert_eq!(
                Direction::of(&record(have, iif), input, location),
                expected,
                "{have} {iif} {input:?}"
            );
        }
        let mut queued = DropEvent { ifindex: 4, ..record(HAVE_DEVICE, 3) };
        assert_eq!(Direction::of(&queued, None, None), Some(Direction::Forward));
        queued.ifindex = 3;
        assert_eq!(Direction::of(&queued, None, None), Some(Direction::In));
        queued.tuple.ethertype = 0;
        assert_eq!(Direction::of(&queued, None, None), None);
    }

    #[test]
    fn interfaces() {
        let mut with_name = record(HAVE_DEVICE, 7);
        with_name.ifname[..4].copy_from_slice(b"eth0");
        with_name.ifindex = 2;
        assert_eq!(interface(&with_name), Some(Interface { index: 2, name: Some("eth0".into()) }));
        assert_eq!(interface(&record(0, 7)), Some(Interface { index: 7, name: None }));
        assert_eq!(interface(&record(0, 0)), None);
    }
}
