//! Ring record bytes → [`Record`], checked.

use bytes::Buf;
use netdrop_common::{
    event::{
        CAPTURE_LEN, CHAIN_NAME_LEN, ConnTuple, Connection, DropEvent, HOOK_FRAMES, IFNAME_LEN, Listener,
        Neighbour, Qdisc, Ruling, STACK_FRAMES, Stacked, TABLE_NAME_LEN, Tracked, Tuple,
    },
    harm::HarmEvent,
    key::DropKey,
    refusal::{COMM_LEN, RefusalEvent, RefusalKey},
};

/// One record of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The drop.
    pub event: DropEvent,
    /// Return addresses of the kernel stack, innermost first; empty when it was not taken or could not be.
    pub stack: Vec<u64>,
    /// The packet's connection, and the one that was there first; nothing where connection tracking has no say.
    pub connections: Option<[Connection; 2]>,
    /// The table that dropped it, where a hook saw it.
    pub ruling: Option<Ruling>,
}

/// Why a record cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The kernel side and this program do not agree on the layout.
    #[error("a record of {0} bytes, which is no kind of record")]
    Length(usize),
    /// The record says it holds more packet bytes than fit.
    #[error("a record that claims {0} packet bytes")]
    Capture(u16),
}

/// Reads one record of a drop. Fields stand in declaration order without gaps, in the machine's byte order.
///
/// # Errors
///
/// When the length is wrong or a field contradicts it.
pub fn decode(mut record: &[u8]) -> Result<Record, DecodeError> {
    const PLAIN: usize = size_of::<DropEvent>();
    const HOOKED: usize = size_of::<Stacked<HOOK_FRAMES>>();
    const STACKED: usize = size_of::<Stacked<STACK_FRAMES>>();
    const TRACKED: usize = size_of::<Tracked<HOOK_FRAMES>>();
    const TRACKED_STACKED: usize = size_of::<Tracked<STACK_FRAMES>>();
    if !matches!(record.len(), PLAIN | HOOKED | STACKED | TRACKED | TRACKED_STACKED) {
        return Err(DecodeError::Length(record.len()));
    }
    let tracked = matches!(record.len(), TRACKED | TRACKED_STACKED);
    let buf = &mut record;
    let event = DropEvent {
        key: key(buf),
        time_ns: buf.get_u64_ne(),
        dst_input: buf.get_u64_ne(),
        tuple: tuple(buf),
        ifname: array::<IFNAME_LEN>(buf),
        ifindex: buf.get_u32_ne(),
        iif: buf.get_u32_ne(),
        l3_len: buf.get_u32_ne(),
        socket_used: buf.get_u32_ne(),
        socket_limit: buf.get_u32_ne(),
        socket_backlog: buf.get_u32_ne(),
        socket_send_limit: buf.get_u32_ne(),
        qdisc: qdisc(buf),
        neighbour: neighbour(buf),
        mtu: buf.get_u32_ne(),
        mtu_device: array::<IFNAME_LEN>(buf),
        memory_used: buf.get_u64_ne(),
        memory_limit: buf.get_u64_ne(),
        socket_inode: buf.get_u64_ne(),
        listener: listener(buf),
        segments: buf.get_u16_ne(),
        caplen: buf.get_u16_ne(),
        l3_offset: buf.get_u16_ne(),
        have: buf.get_u16_ne(),
        packet_type: buf.get_u8(),
        socket_state: buf.get_u8(),
        route_error: buf.get_u8(),
        announced: buf.get_u8(),
        announced_type: buf.get_u8(),
        announced_code: buf.get_u8(),
        witness_cell: buf.get_u8(),
        witness_delta: buf.get_u8(),
        bytes: array::<CAPTURE_LEN>(buf),
    };
    if usize::from(event.caplen) > CAPTURE_LEN {
        return Err(DecodeError::Capture(event.caplen));
    }
    let mut connections = None;
    if tracked {
        let (before, mut after) = buf.split_at(buf.len() - 2 * size_of::<Connection>());
        *buf = before;
        connections = Some([connection(&mut after), connection(&mut after)]);
    }
    let mut ruling = None;
    if !buf.is_empty() {
        let (before, mut after) = buf.split_at(buf.len() - size_of::<Ruling>());
        *buf = before;
        ruling = Some(self::ruling(&mut after)).filter(|ruling| ruling.by != 0);
    }
    Ok(Record { event, stack: stack(buf), connections, ruling })
}

fn ruling(buf: &mut &[u8]) -> Ruling {
    Ruling {
        table: array::<TABLE_NAME_LEN>(buf),
        chain: array::<CHAIN_NAME_LEN>(buf),
        by: buf.get_u16_ne(),
        hook: buf.get_u8(),
        family: buf.get_u8(),
        pad: buf.get_u32_ne(),
    }
}

/// Reads a record of a refused call; nothing when it is one of another kind.
#[must_use]
pub fn decode_refusal(mut record: &[u8]) -> Option<RefusalEvent> {
    if record.len() != size_of::<RefusalEvent>() {
        return None;
    }
    let buf = &mut record;
    Some(RefusalEvent {
        key: RefusalKey {
            netns_cookie: buf.get_u64_ne(),
            netns_inode: buf.get_u32_ne(),
            what: buf.get_u8(),
            call: buf.get_u8(),
            protocol: buf.get_u8(),
            pad: buf.get_u8(),
        },
        time_ns: buf.get_u64_ne(),
        tuple: tuple(buf),
        pid: buf.get_u32_ne(),
        tid: buf.get_u32_ne(),
        comm: array::<COMM_LEN>(buf),
        overflowed: buf.get_u32_ne(),
    })
}

/// Reads a record of what a drop cost; nothing when it is one of another kind.
#[must_use]
pub fn decode_harm(mut record: &[u8]) -> Option<HarmEvent> {
    if record.len() != size_of::<HarmEvent>() {
        return None;
    }
    let buf = &mut record;
    Some(HarmEvent {
        key: key(buf),
        time_ns: buf.get_u64_ne(),
        drop_time_ns: buf.get_u64_ne(),
        netns_cookie: buf.get_u64_ne(),
        saddr: array::<16>(buf),
        daddr: array::<16>(buf),
        netns_inode: buf.get_u32_ne(),
        sport: buf.get_u16_ne(),
        dport: buf.get_u16_ne(),
        family: buf.get_u16_ne(),
        what: buf.get_u8(),
        state: buf.get_u8(),
        pad: buf.get_u32_ne(),
    })
}

/// The frames behind the event, if there are any.
fn stack(buf: &mut &[u8]) -> Vec<u64> {
    if buf.is_empty() {
        return Vec::new();
    }
    // A negative number is an errno: there is no stack to show.
    let filled = usize::try_from(buf.get_i64_ne()).unwrap_or(0);
    let (frames, _) = buf[..filled.min(buf.len())].as_chunks::<8>();
    frames.iter().map(|frame| u64::from_ne_bytes(*frame)).take_while(|frame| *frame != 0).collect()
}

fn qdisc(buf: &mut &[u8]) -> Qdisc {
    Qdisc {
        kind: array::<16>(buf),
        handle: buf.get_u32_ne(),
        parent: buf.get_u32_ne(),
        limit: buf.get_u32_ne(),
        qlen: buf.get_u32_ne(),
    }
}

fn neighbour(buf: &mut &[u8]) -> Neighbour {
    Neighbour { entries: buf.get_u32_ne(), limit: buf.get_u32_ne(), queue_limit: buf.get_u32_ne() }
}

fn listener(buf: &mut &[u8]) -> Listener {
    Listener {
        address: array::<16>(buf),
        port: buf.get_u16_ne(),
        family: buf.get_u16_ne(),
        length: buf.get_u32_ne(),
        limit: buf.get_u32_ne(),
        half_open: buf.get_u32_ne(),
        somaxconn: buf.get_u32_ne(),
        max_syn_backlog: buf.get_u32_ne(),
    }
}

fn connection(buf: &mut &[u8]) -> Connection {
    Connection {
        original: conn_tuple(buf),
        reply: conn_tuple(buf),
        status: buf.get_u32_ne(),
        zone: buf.get_u16_ne(),
        have: buf.get_u16_ne(),
    }
}

fn conn_tuple(buf: &mut &[u8]) -> ConnTuple {
    ConnTuple {
        saddr: array::<16>(buf),
        daddr: array::<16>(buf),
        sport: buf.get_u16_ne(),
        dport: buf.get_u16_ne(),
        family: buf.get_u16_ne(),
        proto: buf.get_u8(),
        pad: buf.get_u8(),
    }
}

fn key(buf: &mut &[u8]) -> DropKey {
    DropKey {
        netns_cookie: buf.get_u64_ne(),
        location: buf.get_u64_ne(),
        facts: buf.get_u64_ne(),
        netns_inode: buf.get_u32_ne(),
        reason: buf.get_u32_ne(),
        probe: buf.get_u32_ne(),
        pad: buf.get_u32_ne(),
    }
}

fn tuple(buf: &mut &[u8]) -> Tuple {
    Tuple {
        saddr: array::<16>(buf),
        daddr: array::<16>(buf),
        ethertype: buf.get_u16_ne(),
        sport: buf.get_u16_ne(),
        dport: buf.get_u16_ne(),
        proto: buf.get_u8(),
        tcp_flags: buf.get_u8(),
        icmp_type: buf.get_u8(),
        icmp_code: buf.get_u8(),
        ttl: buf.get_u8(),
        have: buf.get_u8(),
    }
}

fn array<const N: usize>(buf: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    buf.copy_to_slice(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where `caplen` stands.
    const CAPLEN: std::ops::Range<usize> = 274..276;

    /// A record of `len` bytes in which every byte differs from its neighbours.
    fn record(len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        bytes[CAPLEN].copy_from_slice(&64u16.to_ne_bytes());
        bytes
    }

    #[test]
    fn every_field_is_where_the_layout_puts_it() {
        let bytes = record(size_of::<DropEvent>());
        let Record { event, stack, connections, ruling } = decode(&bytes).unwrap();
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(event.key.netns_cookie, u64_at(0));
        assert_eq!(event.time_ns, u64_at(40));
        assert_eq!(event.dst_input, u64_at(48));
        assert_eq!(event.tuple.saddr, bytes[56..72]);
        assert_eq!(event.ifname, bytes[100..116]);
        assert_eq!(event.qdisc.kind, bytes[144..160]);
        assert_eq!(event.qdisc.qlen, u32_at(172));
        assert_eq!(event.neighbour.queue_limit, u32_at(184));
        assert_eq!(event.mtu, u32_at(188));
        assert_eq!(event.memory_limit, u64_at(216));
        assert_eq!(event.socket_inode, u64_at(224));
        assert_eq!(event.caplen, 64);
        assert_eq!(event.listener.address, bytes[232..248]);
        assert_eq!(event.listener.max_syn_backlog, u32_at(268));
        assert_eq!(event.packet_type, bytes[280]);
        assert_eq!(event.announced_code, bytes[285]);
        assert_eq!(event.witness_delta, bytes[287]);
        assert_eq!(event.bytes, bytes[288..416]);
        assert!(stack.is_empty() && connections.is_none() && ruling.is_none());
    }

    #[test]
    fn refusals_are_told_by_their_length() {
        let bytes: Vec<u8> = (0..size_of::<RefusalEvent>()).map(|n| n as u8).collect();
        let event = decode_refusal(&bytes).unwrap();
        assert_eq!((event.key.what, event.key.call, event.key.protocol), (12, 13, 14));
        assert_eq!(event.tuple.saddr, bytes[24..40]);
        assert_eq!(event.pid, u32::from_ne_bytes([68, 69, 70, 71]));
        assert_eq!(event.comm, bytes[76..92]);
        assert_eq!(decode_refusal(&bytes[1..]), None);
        assert_eq!(decode_refusal(&record(size_of::<DropEvent>())), None);
        assert_eq!(decode(&bytes), Err(DecodeError::Length(bytes.len())));
    }

    #[test]
    fn stacks_end_where_the_kernel_says() {
        let mut bytes = record(size_of::<Stacked<HOOK_FRAMES>>());
        let base = size_of::<DropEvent>();
        for (filled, frames) in [(16i64, 2), (-14, 0), (i64::MAX, HOOK_FRAMES), (3, 0)] {
            bytes[base..base + 8].copy_from_slice(&filled.to_ne_bytes());
            assert_eq!(decode(&bytes).unwrap().stack.len(), frames, "{filled} bytes");
        }
        let mut bytes = record(size_of::<Stacked<STACK_FRAMES>>());
        bytes[base..base + 8].copy_from_slice(&i64::MAX.to_ne_bytes());
        assert_eq!(decode(&bytes).unwrap().stack.len(), STACK_FRAMES);
    }

    #[test]
    fn the_table_stands_behind_the_stack() {
        let mut bytes = record(size_of::<Stacked<HOOK_FRAMES>>());
        let at = bytes.len() - size_of::<Ruling>();
        let ruling = decode(&bytes).unwrap().ruling.unwrap();
        assert_eq!(ruling.table, bytes[at..at + 32]);
        assert_eq!(ruling.chain, bytes[at + 32..at + 96]);
        assert_eq!((ruling.hook, ruling.family), (bytes[at + 98], bytes[at + 99]));
        bytes[at + 96..at + 98].fill(0);
        assert_eq!(decode(&bytes).unwrap().ruling, None);
    }

    #[test]
    fn connections_stand_behind_the_stack() {
        let mut bytes = record(size_of::<Tracked<HOOK_FRAMES>>());
        let base = size_of::<DropEvent>();
        bytes[base..base + 8].copy_from_slice(&16i64.to_ne_bytes());
        let Record { stack, connections, .. } = decode(&bytes).unwrap();
        assert_eq!(stack.len(), 2);
        let [own, winner] = connections.unwrap();
        let own_at = size_of::<Stacked<HOOK_FRAMES>>();
        let winner_at = own_at + size_of::<Connection>();
        assert_eq!(own.original.saddr, bytes[own_at..own_at + 16]);
        assert_eq!(own.reply.proto, bytes[own_at + 40 + 38]);
        assert_eq!(winner.original.daddr, bytes[winner_at + 16..winner_at + 32]);
        assert_eq!(
            winner.have,
            u16::from_ne_bytes(bytes[winner_at + 86..winner_at + 88].try_into().unwrap())
        );
    }

    #[test]
    fn a_consequence_has_a_length_of_its_own() {
        let bytes: Vec<u8> = (0..size_of::<HarmEvent>() as u8).collect();
        let harm = decode_harm(&bytes).unwrap();
        assert_eq!(decode(&bytes), Err(DecodeError::Length(bytes.len())));
        assert_eq!(harm.time_ns, u64::from_ne_bytes(bytes[40..48].try_into().unwrap()));
        assert_eq!((harm.saddr[0], harm.daddr[15]), (64, 95));
        assert_eq!((harm.what, harm.state), (106, 107));
        assert_eq!(decode_harm(&bytes[1..]), None);
        assert_eq!(decode_harm(&record(size_of::<DropEvent>())), None);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let bytes = record(size_of::<DropEvent>());
        for len in [0, 1, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..len]), Err(DecodeError::Length(len)));
        }
        let mut bytes = bytes;
        bytes[CAPLEN].copy_from_slice(&129u16.to_ne_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Capture(129)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            let _ = decode(&bytes);
            let _ = decode_refusal(&bytes);
        }

        #[test]
        fn never_panics_on_whole_records(bytes in proptest::collection::vec(any::<u8>(), size_of::<Tracked<HOOK_FRAMES>>())) {
            let _ = decode(&bytes);
        }
    }
}
