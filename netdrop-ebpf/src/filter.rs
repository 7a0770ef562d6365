//! Filters, from rodata: a filter that is off is a constant 0 and the verifier removes its code.

use aya_ebpf::Global;
use netdrop_common::{
    event::{TUPLE_ADDRESSES, TUPLE_NO_PORTS, TUPLE_NO_TRANSPORT, TUPLE_NOT_NETWORK, TUPLE_PORTS, Tuple},
    filter::{Cidr, MAX_LOCATIONS, MAX_PORT_RANGES, MAX_REASONS, PortRange, TextRange, host, reason_mode},
};

use crate::{
    headers::{self, ETH_ARP, ETH_IPV4, ETH_IPV6},
    offsets::Access,
    rodata::element,
    scratch::Scratch,
    skb::{self, NetnsId, Place},
};

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            static $name: Global<$ty> = Global::new($value);
        )*
    };
}

settings! {
    /// `reason_mode`.
    FILTER_REASON_MODE: u8 = reason_mode::OFF;
    /// Reasons in `FILTER_REASONS`.
    FILTER_REASON_COUNT: u8 = 0;
    FILTER_REASONS: [u32; MAX_REASONS] = [0; MAX_REASONS];
    /// Ranges in `FILTER_LOCATIONS`.
    FILTER_LOCATION_COUNT: u8 = 0;
    FILTER_LOCATIONS: [TextRange; MAX_LOCATIONS] = [TextRange { start: 0, end: 0 }; MAX_LOCATIONS];
    /// 0 is off.
    FILTER_NETNS_INODE: u32 = 0;
    /// 0 when userspace does not know it.
    FILTER_NETNS_COOKIE: u64 = 0;
    /// Device name, NUL-padded; 0 is off.
    FILTER_IFNAME: [u64; 2] = [0; 2];
    /// Ethertype; 0 is off.
    FILTER_ETHERTYPE: u16 = 0;
    /// 1 when `FILTER_PROTO` holds a protocol.
    FILTER_PROTO_ON: u8 = 0;
    FILTER_PROTO: u8 = 0;
    /// Ranges in use for either, source and destination port.
    FILTER_PORT_COUNTS: [u8; host::COUNT] = [0; host::COUNT];
    FILTER_PORTS: [PortRange; MAX_PORT_RANGES * host::COUNT] = [PortRange { low: 0, high: 0 }; MAX_PORT_RANGES * host::COUNT];
    /// Ethertype of the CIDR for either, source and destination address; 0 is off.
    FILTER_HOST_FAMILIES: [u16; host::COUNT] = [0; host::COUNT];
    FILTER_HOSTS: [Cidr; host::COUNT] = [Cidr { address: [0; 4], mask: [0; 4] }; host::COUNT];
}

/// What the filters say of a drop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Match,
    Filtered,
    Undecidable,
}

impl Verdict {
    /// A drop must pass every filter; one filter that says no outweighs one that cannot say.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Filtered, _) | (_, Self::Filtered) => Self::Filtered,
            (Self::Undecidable, _) | (_, Self::Undecidable) => Self::Undecidable,
            _ => Self::Match,
        }
    }

    /// Either packet may match: the one that was dropped, or the one that an ICMP error quotes.
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Match, _) | (_, Self::Match) => Self::Match,
            (Self::Undecidable, _) | (_, Self::Undecidable) => Self::Undecidable,
            _ => Self::Filtered,
        }
    }

    #[inline(always)]
    fn from(matches: bool) -> Self {
        if matches { Self::Match } else { Self::Filtered }
    }
}

/// Judges by reason.
#[inline(always)]
pub(crate) fn reason(reason: u32) -> Verdict {
    let mode = FILTER_REASON_MODE.load();
    if mode == reason_mode::OFF {
        return Verdict::Match;
    }
    let count = usize::from(FILTER_REASON_COUNT.load());
    let mut listed = false;
    let mut index = 0;
    while index < MAX_REASONS && index < count {
        if element(&FILTER_REASONS, index) == reason {
            listed = true;
            break;
        }
        index += 1;
    }
    Verdict::from(listed == (mode == reason_mode::INCLUDE))
}

/// Whether a call from this function returns to `location`: that may be the first byte after the function, never
/// its first.
#[inline(always)]
pub(crate) fn within(location: u64, function: TextRange) -> bool {
    location > function.start && location <= function.end
}

/// Judges by the function that dropped.
#[inline(always)]
pub(crate) fn location(location: u64) -> Verdict {
    let count = usize::from(FILTER_LOCATION_COUNT.load());
    if count == 0 {
        return Verdict::Match;
    }
    let mut index = 0;
    while index < MAX_LOCATIONS && index < count {
        if within(location, element(&FILTER_LOCATIONS, index)) {
            return Verdict::Match;
        }
        index += 1;
    }
    Verdict::Filtered
}

/// Judges by network namespace and interface.
#[inline(always)]
pub(crate) fn place<A: Access>(place: &Place<A>) -> Verdict {
    netns_is(place.netns).and(interface(place))
}

/// Judges by network namespace.
#[inline(always)]
pub(crate) fn netns_is(netns: NetnsId) -> Verdict {
    let inode = FILTER_NETNS_INODE.load();
    if inode == 0 {
        return Verdict::Match;
    }
    if netns.inode == 0 {
        return Verdict::Undecidable;
    }
    let cookie = FILTER_NETNS_COOKIE.load();
    let same_cookie = cookie == 0 || netns.cookie == 0 || netns.cookie == cookie;
    Verdict::from(netns.inode == inode && same_cookie)
}

/// Judges by interface.
#[inline(always)]
pub(crate) fn interface<A: Access>(place: &Place<A>) -> Verdict {
    let first: u64 = element(&FILTER_IFNAME, 0);
    if first == 0 {
        return Verdict::Match;
    }
    let Some(device) = place.device else { return Verdict::Undecidable };
    let name = skb::ifname(device);
    Verdict::from(name[0] == first && name[1] == element(&FILTER_IFNAME, 1))
}

/// Judges what is at no interface.
#[inline(always)]
pub(crate) fn no_interface() -> Verdict {
    Verdict::from(element::<u64, 2>(&FILTER_IFNAME, 0) == 0)
}

/// Whether any filter looks at the packet.
#[inline(always)]
pub(crate) fn needs_packet() -> bool {
    let mut on = FILTER_ETHERTYPE.load() != 0 || FILTER_PROTO_ON.load() != 0;
    let mut end = 0;
    while end < host::COUNT {
        on |= element(&FILTER_PORT_COUNTS, end) != 0;
        on |= element(&FILTER_HOST_FAMILIES, end) != 0;
        end += 1;
    }
    on
}

/// Judges by the packet, or by the one it quotes. A function of its own, for its own stack frame.
#[inline(never)]
pub(crate) fn packet(scratch: &mut Scratch) -> Verdict {
    let verdict = tuple(&scratch.outer.tuple);
    if verdict == Verdict::Match || !headers::parse_quoted(scratch) {
        return verdict;
    }
    verdict.or(tuple(&scratch.quoted.tuple))
}

/// Judges by addresses, ports and protocol.
#[inline(never)]
pub(crate) fn tuple(tuple: &Tuple) -> Verdict {
    if tuple.have & TUPLE_NOT_NETWORK != 0 {
        return Verdict::Filtered;
    }
    let mut verdict = family(tuple).and(proto(tuple));
    let mut end = 0;
    while end < host::COUNT {
        verdict = verdict.and(hosts(tuple, end)).and(ports(tuple, end));
        end += 1;
    }
    verdict
}

#[inline(always)]
fn family(tuple: &Tuple) -> Verdict {
    let ethertype = FILTER_ETHERTYPE.load();
    if ethertype == 0 {
        return Verdict::Match;
    }
    if tuple.ethertype == 0 { Verdict::Undecidable } else { Verdict::from(tuple.ethertype == ethertype) }
}

#[inline(always)]
fn is_ip(tuple: &Tuple) -> bool {
    tuple.ethertype == ETH_IPV4 || tuple.ethertype == ETH_IPV6
}

#[inline(always)]
fn proto(tuple: &Tuple) -> Verdict {
    if FILTER_PROTO_ON.load() == 0 {
        return Verdict::Match;
    }
    let readable = tuple.have & TUPLE_ADDRESSES != 0 && tuple.have & TUPLE_NO_TRANSPORT == 0;
    if tuple.ethertype == 0 || is_ip(tuple) && !readable {
        return Verdict::Undecidable;
    }
    Verdict::from(is_ip(tuple) && tuple.proto == FILTER_PROTO.load())
}

#[inline(always)]
fn hosts(tuple: &Tuple, end: usize) -> Verdict {
    let family: u16 = element(&FILTER_HOST_FAMILIES, end);
    if family == 0 {
        return Verdict::Match;
    }
    let comparable = tuple.ethertype == family || family == ETH_IPV4 && tuple.ethertype == ETH_ARP;
    if tuple.ethertype != 0 && !comparable {
        return Verdict::Filtered;
    }
    if tuple.have & TUPLE_ADDRESSES == 0 {
        return Verdict::Undecidable;
    }
    let cidr: Cidr = element(&FILTER_HOSTS, end);
    let source = end != host::DESTINATION && inside(&tuple.saddr, &cidr);
    let destination = end != host::SOURCE && inside(&tuple.daddr, &cidr);
    Verdict::from(source || destination)
}

#[inline(always)]
fn inside(address: &[u8; 16], cidr: &Cidr) -> bool {
    let mut different = 0;
    let mut word = 0;
    while word < 4 {
        let at = word * 4;
        let bytes = [address[at], address[at + 1], address[at + 2], address[at + 3]];
        different |= (u32::from_ne_bytes(bytes) ^ cidr.address[word]) & cidr.mask[word];
        word += 1;
    }
    different == 0
}

#[inline(always)]
fn ports(tuple: &Tuple, end: usize) -> Verdict {
    let count = usize::from(element(&FILTER_PORT_COUNTS, end));
    if count == 0 {
        return Verdict::Match;
    }
    if tuple.have & TUPLE_PORTS == 0 {
        let portless = tuple.have & TUPLE_NO_PORTS != 0 || tuple.ethertype != 0 && !is_ip(tuple);
        return if portless { Verdict::Filtered } else { Verdict::Undecidable };
    }
    let mut outside = 1;
    let mut index = 0;
    while index < MAX_PORT_RANGES && index < count {
        let range: PortRange = element(&FILTER_PORTS, end * MAX_PORT_RANGES + index);
        if end != host::DESTINATION {
            outside &= is_outside(tuple.sport, range);
        }
        if end != host::SOURCE {
            outside &= is_outside(tuple.dport, range);
        }
        index += 1;
    }
    Verdict::from(outside == 0)
}

/// 1 for a port outside the range, without a branch: the verifier walks both sides of each, and three
/// filters of 16 ranges would be more than it takes.
#[inline(always)]
fn is_outside(port: u16, range: PortRange) -> u64 {
    let port = u64::from(port);
    (port.wrapping_sub(u64::from(range.low)) | u64::from(range.high).wrapping_sub(port)) >> 63
}
