//! Packet headers: from the buffer's layout to addresses, ports and flags.

use netdrop_common::{
    event::{
        TUPLE_ADDRESSES, TUPLE_ICMP, TUPLE_LATER_FRAGMENT, TUPLE_NO_PORTS, TUPLE_NO_TRANSPORT,
        TUPLE_NOT_NETWORK, TUPLE_PORTS, TUPLE_TCP, Tuple,
    },
    facts::{Facts, Network, TcpClass, Transport},
};

use crate::{
    offsets::Raw,
    scratch::Scratch,
    skb::{Buffer, MAC_UNSET},
};

/// Ethertypes (include/uapi/linux/if_ether.h).
pub(crate) const ETH_IPV4: u16 = 0x0800;
pub(crate) const ETH_ARP: u16 = 0x0806;
pub(crate) const ETH_IPV6: u16 = 0x86dd;
const ETH_8021Q: u16 = 0x8100;
const ETH_8021AD: u16 = 0x88a8;
const ETHERNET_LEN: u32 = 14;
const VLAN_LEN: u32 = 4;

/// IP protocol numbers (IANA).
mod ip {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMP6: u8 = 58;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const SCTP: u8 = 132;
    pub(super) const UDP_LITE: u8 = 136;
}

/// The longest header that is read at once: IPv6.
pub(crate) const MAX_HEADER: usize = 40;

/// Headers looked at behind the IPv6 header, the transport's among them: RFC 8200 knows six kinds of
/// extensions, destination options twice.
const MAX_EXTENSIONS: usize = 8;

/// The packet's headers and where they were found.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    /// What was read.
    pub(crate) tuple: Tuple,
    /// Offset of the network header from `head`; 0 when there is none.
    pub(crate) l3: u32,
    /// Offset of the transport header from `head`; 0 when it was not reached.
    pub(crate) l4: u32,
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETH_8021Q || ethertype == ETH_8021AD
}

/// Finds the network header. Layers set `network_header` at different times, so it is believed only
/// when set; before that the MAC header leads to it, and for a locally made packet `data` is it.
#[inline(always)]
fn locate(buffer: &Buffer) -> (u32, u16) {
    let mut ethertype = buffer.protocol;
    let mut l3 = u32::from(buffer.network);
    if l3 == 0 || l3 >= buffer.tail {
        if buffer.mac == MAC_UNSET {
            // No layer has touched it. Only a protocol says that there is a packet: sockets that are no
            // network's (AF_UNIX, netlink) put any bytes here.
            l3 = if ethertype == 0 { 0 } else { buffer.data };
        } else {
            let mac = u32::from(buffer.mac);
            l3 = mac + ETHERNET_LEN;
            if let Some(bytes) = read::<[u8; 2]>(buffer, mac + ETHERNET_LEN - 2) {
                ethertype = u16::from_be_bytes(bytes);
            }
        }
    }
    // A tag that was put in on transmit stands between the MAC header and the network header.
    if is_vlan(ethertype)
        && buffer.mac != MAC_UNSET
        && l3 >= u32::from(buffer.mac) + ETHERNET_LEN + VLAN_LEN
        && let Some(bytes) = read::<[u8; 2]>(buffer, l3 - 2)
    {
        ethertype = u16::from_be_bytes(bytes);
    }
    // One that is still to be taken off: __netif_receive_skb_core sets the network header on it.
    let mut tags = 0;
    while tags < 2 && is_vlan(ethertype) {
        let Some(bytes) = read::<[u8; 2]>(buffer, l3 + 2) else { break };
        ethertype = u16::from_be_bytes(bytes);
        l3 += VLAN_LEN;
        tags += 1;
    }
    (l3, ethertype)
}

/// Reads a value that must lie inside the linear part.
#[inline(always)]
fn read<T: Copy>(buffer: &Buffer, offset: u32) -> Option<T> {
    if offset.wrapping_add(size_of::<T>() as u32) > buffer.tail {
        return None;
    }
    buffer.head.offset(u64::from(offset)).read()
}

/// Reads a header that must lie inside the linear part to where there is room for it.
#[inline(always)]
fn header<const N: usize>(buffer: &Buffer, offset: u32, to: &mut [u8; MAX_HEADER]) -> bool {
    const { assert!(N <= MAX_HEADER) };
    if offset.wrapping_add(N as u32) > buffer.tail {
        return false;
    }
    // SAFETY: `to` takes `MAX_HEADER` bytes, and `N` is at most that.
    unsafe { buffer.head.offset(u64::from(offset)).copy_exactly::<N>(to.as_mut_ptr()) }
}

/// Reads the headers of an skb; `local` when it belongs to a socket that is no network's.
#[inline(always)]
pub(crate) fn parse(scratch: &mut Scratch, local: bool) {
    let (l3, ethertype) = locate(&scratch.buffer);
    scratch.outer = Headers { tuple: EMPTY, l3, l4: 0 };
    if local {
        scratch.outer.l3 = 0;
        scratch.outer.tuple.have = TUPLE_NOT_NETWORK;
        return;
    }
    if l3 == 0 {
        return;
    }
    network(&scratch.buffer, &mut scratch.outer, &mut scratch.bytes, ethertype);
    if scratch.outer.tuple.ethertype == 0 {
        scratch.outer.l3 = 0;
    }
}

/// Reads the packet that an ICMP error quotes and says whether this is one.
#[inline(always)]
pub(crate) fn parse_quoted(scratch: &mut Scratch) -> bool {
    /// ICMP header; the quoted packet follows it (RFC 792, RFC 4443).
    const ICMP_LEN: u32 = 8;
    if !is_icmp_error(&scratch.outer.tuple) || scratch.outer.l4 == 0 {
        return false;
    }
    scratch.quoted = Headers { tuple: EMPTY, l3: scratch.outer.l4 + ICMP_LEN, l4: 0 };
    let ethertype = scratch.outer.tuple.ethertype;
    network(&scratch.buffer, &mut scratch.quoted, &mut scratch.bytes, ethertype);
    true
}

/// Whether the packet quotes another: destination unreachable, quench, redirect, time exceeded,
/// parameter problem; for ICMPv6 every type below 128.
#[inline(always)]
fn is_icmp_error(tuple: &Tuple) -> bool {
    if tuple.have & TUPLE_ICMP == 0 {
        return false;
    }
    if tuple.proto == ip::ICMP6 {
        tuple.icmp_type < 128
    } else {
        matches!(tuple.icmp_type, 3 | 4 | 5 | 11 | 12)
    }
}

/// Nothing is known.
pub(crate) const EMPTY: Tuple = Tuple {
    saddr: [0; 16],
    daddr: [0; 16],
    ethertype: 0,
    sport: 0,
    dport: 0,
    proto: 0,
    tcp_flags: 0,
    icmp_type: 0,
    icmp_code: 0,
    ttl: 0,
    have: 0,
};

/// Reads the network header at `headers.l3`. The version nibble must confirm an ethertype of IP, and
/// stands in for one that no layer has set yet. A function of its own, for its own stack frame.
#[inline(never)]
fn network(buffer: &Buffer, headers: &mut Headers, bytes: &mut [u8; MAX_HEADER], ethertype: u16) {
    if ethertype == ETH_ARP {
        arp(buffer, headers, bytes);
        return;
    }
    if ethertype != 0 && ethertype != ETH_IPV4 && ethertype != ETH_IPV6 {
        headers.tuple.ethertype = ethertype;
        return;
    }
    match read::<u8>(buffer, headers.l3).map(|first| first >> 4) {
        Some(4) if ethertype != ETH_IPV6 => ipv4(buffer, headers, bytes),
        Some(6) if ethertype != ETH_IPV4 => ipv6(buffer, headers, bytes),
        // Not readable, or garbage: the ethertype is all there is to know.
        _ => headers.tuple.ethertype = ethertype,
    }
}

#[inline(always)]
fn arp(buffer: &Buffer, headers: &mut Headers, bytes: &mut [u8; MAX_HEADER]) {
    /// Ethernet and IPv4 (RFC 826): htype, ptype, hlen, plen.
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let tuple = &mut headers.tuple;
    tuple.ethertype = ETH_ARP;
    tuple.have = TUPLE_NO_PORTS;
    if !header::<28>(buffer, headers.l3, bytes) {
        return;
    }
    let mut index = 0;
    while index < ETHERNET_IPV4.len() {
        if bytes[index] != ETHERNET_IPV4[index] {
            return;
        }
        index += 1;
    }
    let mut index = 0;
    while index < 4 {
        tuple.saddr[index] = bytes[14 + index];
        tuple.daddr[index] = bytes[24 + index];
        index += 1;
    }
    tuple.have |= TUPLE_ADDRESSES;
}

#[inline(always)]
fn ipv4(buffer: &Buffer, headers: &mut Headers, bytes: &mut [u8; MAX_HEADER]) {
    let tuple = &mut headers.tuple;
    tuple.ethertype = ETH_IPV4;
    if !header::<20>(buffer, headers.l3, bytes) {
        return;
    }
    let mut index = 0;
    while index < 4 {
        tuple.saddr[index] = bytes[12 + index];
        tuple.daddr[index] = bytes[16 + index];
        index += 1;
    }
    tuple.ttl = bytes[8];
    tuple.proto = bytes[9];
    tuple.have = TUPLE_ADDRESSES;
    let header_len = u32::from(bytes[0] & 0x0f) * 4;
    if header_len < 20 {
        return;
    }
    if u16::from_be_bytes([bytes[6] & 0x1f, bytes[7]]) != 0 {
        later_fragment(tuple);
        return;
    }
    headers.l4 = headers.l3 + header_len;
    transport(buffer, headers);
}

#[inline(always)]
fn ipv6(buffer: &Buffer, headers: &mut Headers, bytes: &mut [u8; MAX_HEADER]) {
    let tuple = &mut headers.tuple;
    tuple.ethertype = ETH_IPV6;
    if !header::<40>(buffer, headers.l3, bytes) {
        return;
    }
    let mut index = 0;
    while index < 16 {
        tuple.saddr[index] = bytes[8 + index];
        tuple.daddr[index] = bytes[24 + index];
        index += 1;
    }
    tuple.ttl = bytes[7];
    tuple.have = TUPLE_ADDRESSES;
    let mut next = bytes[6];
    let mut offset = headers.l3 + 40;
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS {
        match next {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION | ip::FRAGMENT | ip::AUTHENTICATION => {
                let Some(bytes) = read::<[u8; 4]>(buffer, offset) else {
                    tuple.have |= TUPLE_NO_TRANSPORT;
                    return;
                };
                let units = u32::from(bytes[1]);
                offset += match next {
                    ip::FRAGMENT => 8,
                    ip::AUTHENTICATION => (units + 2) * 4,
                    _ => (units + 1) * 8,
                };
                let later = next == ip::FRAGMENT && u16::from_be_bytes([bytes[2], bytes[3] & 0xf8]) != 0;
                next = bytes[0];
                if later {
                    tuple.proto = next;
                    later_fragment(tuple);
                    return;
                }
            }
            _ => break,
        }
        extensions += 1;
    }
    if extensions == MAX_EXTENSIONS {
        tuple.have |= TUPLE_NO_TRANSPORT;
        return;
    }
    tuple.proto = next;
    headers.l4 = offset;
    transport(buffer, headers);
}

/// Ports of a protocol that has them are in the first fragment only.
#[inline(always)]
fn later_fragment(tuple: &mut Tuple) {
    tuple.have |= TUPLE_LATER_FRAGMENT;
    if !has_ports(tuple.proto) && !is_icmp(tuple.proto) {
        tuple.have |= TUPLE_NO_PORTS;
    }
}

/// ICMP has no ports, but may quote a packet that has: whether it does stands in its type.
#[inline(always)]
fn is_icmp(proto: u8) -> bool {
    proto == ip::ICMP || proto == ip::ICMP6
}

#[inline(always)]
fn has_ports(proto: u8) -> bool {
    matches!(proto, ip::TCP | ip::UDP | ip::DCCP | ip::SCTP | ip::UDP_LITE)
}

#[inline(always)]
fn transport(buffer: &Buffer, headers: &mut Headers) {
    let tuple = &mut headers.tuple;
    if has_ports(tuple.proto) {
        let Some([a, b, c, d]) = read::<[u8; 4]>(buffer, headers.l4) else { return };
        tuple.sport = u16::from_be_bytes([a, b]);
        tuple.dport = u16::from_be_bytes([c, d]);
        tuple.have |= TUPLE_PORTS;
        if tuple.proto == ip::TCP
            && let Some(flags) = read::<u8>(buffer, headers.l4 + 13)
        {
            tuple.tcp_flags = flags;
            tuple.have |= TUPLE_TCP;
        }
        return;
    }
    if is_icmp(tuple.proto) {
        let Some([kind, code]) = read::<[u8; 2]>(buffer, headers.l4) else { return };
        tuple.icmp_type = kind;
        tuple.icmp_code = code;
        tuple.have |= TUPLE_ICMP;
    }
    tuple.have |= TUPLE_NO_PORTS;
}

/// The facts of a packet that cause rules may ask for.
#[inline(always)]
pub(crate) fn packet_facts(scratch: &mut Scratch, packet_type: u8) -> Facts {
    let tuple = &scratch.outer.tuple;
    let network = match tuple.ethertype {
        0 => Network::Unknown,
        ETH_IPV4 => Network::Ipv4,
        ETH_IPV6 => Network::Ipv6,
        ETH_ARP => Network::Arp,
        _ => Network::Other,
    };
    let facts = scratch.forget_facts(Facts::default().with_network(network).with_packet_type(packet_type));
    let tuple = &scratch.outer.tuple;
    let ip = tuple.have & TUPLE_ADDRESSES != 0 && tuple.ethertype != ETH_ARP;
    let transport = if !ip {
        Transport::Unknown
    } else if tuple.have & TUPLE_LATER_FRAGMENT != 0 {
        Transport::Fragment
    } else if tuple.have & TUPLE_NO_TRANSPORT != 0 {
        Transport::Unknown
    } else {
        match tuple.proto {
            ip::TCP => Transport::Tcp,
            ip::UDP => Transport::Udp,
            ip::ICMP => Transport::Icmp,
            ip::ICMP6 => Transport::Icmp6,
            _ => Transport::Other,
        }
    };
    let facts = scratch.forget_facts(facts.with_transport(transport).with_last_hop(ip && tuple.ttl <= 1));
    let tuple = &scratch.outer.tuple;
    let class =
        if tuple.have & TUPLE_TCP != 0 { TcpClass::from_flags(tuple.tcp_flags) } else { TcpClass::None };
    scratch.forget_facts(facts.with_tcp_class(class))
}

/// Bytes worth showing: from the Ethernet header where there is one, else from the network header.
#[derive(Clone, Copy)]
pub(crate) struct Capture {
    /// First byte.
    pub(crate) from: Raw,
    /// Bytes up to the end of the linear part.
    pub(crate) available: u32,
    /// Bytes before the network header, if an Ethernet header is there.
    pub(crate) ethernet: Option<u16>,
}

/// Chooses the bytes to show.
#[inline(always)]
pub(crate) fn capture(buffer: &Buffer, l3: u32) -> Option<Capture> {
    /// Ethernet with up to two VLAN tags.
    const MAX_MAC: u32 = ETHERNET_LEN + 2 * VLAN_LEN;
    let mac = u32::from(buffer.mac);
    let header = l3.wrapping_sub(mac);
    let ethernet = buffer.mac != MAC_UNSET && l3 >= mac && (ETHERNET_LEN..=MAX_MAC).contains(&header);
    let start = if ethernet { mac } else { l3 };
    if l3 == 0 || start >= buffer.tail {
        return None;
    }
    Some(Capture {
        from: buffer.head.offset(u64::from(start)),
        available: buffer.tail - start,
        ethernet: ethernet.then_some(header as u16),
    })
}
