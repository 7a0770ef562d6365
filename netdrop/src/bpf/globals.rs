//! Settings of a run as rodata: what the kernel side is told before it is loaded.

use aya::EbpfLoader;
use ipnet::IpNet;
use netdrop_common::{
    event::IFNAME_LEN,
    facts::GATHER_TABLE,
    fields::ABSENT,
    filter::{
        Cidr, MAX_LOCATIONS, MAX_PORT_RANGES, MAX_REASONS, NETFILTER_TEXTS, PortRange, TextRange, reason_mode,
    },
};

use super::{
    pod::{Network, Ports, Text},
    probe::Rung,
};
use crate::{
    filter::{Family, Filter, ReasonFilter},
    kernel::{Kernel, layout::Layout},
    packet::Protocol,
};

/// The smallest ring: one page.
pub const MIN_BUFFER_BYTES: u32 = 4096;

/// What a run asks of the kernel side.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Conditions judged in the kernel; causes are not among them.
    pub filter: Filter,
    /// Groups of facts and of evidence to gather, by core reason.
    pub gather: [u16; GATHER_TABLE],
    /// Whether to stream events, or only to count.
    pub events: bool,
    /// Whether each event carries the kernel stack.
    pub stack: bool,
    /// Size of the ring in bytes; rounded up to a power of two of whole pages.
    pub buffer_bytes: u32,
    /// Keys of the counter map; nothing for as many as this machine's CPUs allow.
    pub max_keys: Option<u32>,
    /// The rungs to use, for probe points that have one of them; empty for the best that loads.
    pub rungs: Vec<Rung>,
    /// Whether hooks may be used that run for each packet (`skb:consume_skb`, `__kfree_skb()`), where nothing cheaper loads.
    pub consume: bool,
    /// Whether refused calls are looked for.
    pub refusals: bool,
    /// Whether to look for what drops cost TCP.
    pub harm: bool,
}

impl Settings {
    /// Whether counters are looked at.
    pub(super) fn witness(&self) -> bool {
        !self.rungs.contains(&Rung::Inference) && !self.rungs.contains(&Rung::Empty)
    }

    /// Whether function hooks are tried at all.
    pub(super) fn function_hooks(&self) -> bool {
        let other = [Rung::Witness, Rung::Inference, Rung::Empty];
        self.rungs.contains(&Rung::Kprobe) || !self.rungs.iter().any(|rung| other.contains(rung))
    }
}

/// System calls as the kernel side numbers them, see `netdrop_common::refusal::Call`.
const CALLS: [libc::c_long; 6] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
];

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;

/// Values of all globals; the loader borrows them until it has loaded.
pub(super) struct Globals {
    emit_events: u8,
    emit_stack: u8,
    harm: u8,
    netfilter: [Text; NETFILTER_TEXTS],
    tcp_receive: [Text; 3],
    witness: u8,
    verdict_hooks: u8,
    table_hooks: u8,
    xt_table_argument: u8,
    nft_do_chain: [Text; 1],
    queue_hooks: u8,
    qdisc_drop_reason: u32,
    syn_consumer: [Text; 1],
    tcp_conn_request: u64,
    task_registers: u8,
    exit_result: u16,
    call_numbers: [i32; 6],
    wake_bytes: u32,
    gather: [u16; GATHER_TABLE],
    offsets: Vec<(&'static str, u16)>,
    packet_type_shift: u8,
    reason_mode: u8,
    reasons: [u32; MAX_REASONS],
    reason_count: u8,
    locations: [Text; MAX_LOCATIONS],
    location_count: u8,
    netns_inode: u32,
    netns_cookie: u64,
    ifname: [u64; IFNAME_LEN / 8],
    ethertype: u16,
    proto_on: u8,
    proto: u8,
    port_counts: [u8; 3],
    ports: [Ports; 3 * MAX_PORT_RANGES],
    host_families: [u16; 3],
    hosts: [Network; 3],
}

impl Globals {
    pub(super) fn new(settings: &Settings, kernel: &Kernel) -> Self {
        let layout = &kernel.layout;
        let filter = &settings.filter;
        let (reason_mode, reasons) = match &filter.reasons {
            None => (reason_mode::OFF, &[][..]),
            Some(ReasonFilter::Include(reasons)) => (reason_mode::INCLUDE, &reasons[..]),
            Some(ReasonFilter::Exclude(reasons)) => (reason_mode::EXCLUDE, &reasons[..]),
        };
        let family = match filter.family {
            None => 0,
            Some(Family::Ip) => ETHERTYPE_IPV4,
            Some(Family::Ip6) => ETHERTYPE_IPV6,
        };
        let (ethertype, proto_on, proto) = match filter.protocol {
            None => (family, 0, 0),
            Some(Protocol::Ip(number)) => (family, 1, number),
            // ARP is a family of its own: with another family asked for as well, nothing can match.
            Some(Protocol::Arp) if family == 0 => (ETHERTYPE_ARP, 0, 0),
            Some(Protocol::Arp) => (ETHERTYPE_ARP, 1, u8::MAX),
        };
        let mut globals = Self {
            emit_events: settings.events.into(),
            emit_stack: settings.stack.into(),
            harm: settings.harm.into(),
            netfilter: ["nf_hook_slow", "nf_reinject", "nfqnl_reinject"]
                .map(|name| Text(text_of(kernel, name))),
            tcp_receive: ["tcp_data_queue", "tcp_prune_ofo_queue", "tcp_validate_incoming"]
                .map(|name| Text(text_of(kernel, name))),
            witness: settings.witness().into(),
            verdict_hooks: (settings.function_hooks() && kernel.has_kprobes).into(),
            table_hooks: (settings.function_hooks() && settings.consume && kernel.has_kprobes).into(),
            xt_table_argument: kernel.xt_table_argument.unwrap_or_default(),
            nft_do_chain: [Text(text_of(kernel, "nft_do_chain"))],
            queue_hooks: (settings.function_hooks() && settings.consume && kernel.has_kprobes).into(),
            qdisc_drop_reason: if kernel.has_qdisc_drop {
                kernel.reasons.find("QDISC_DROP").unwrap_or(0)
            } else {
                0
            },
            syn_consumer: [Text(text_of(kernel, "tcp_rcv_state_process"))],
            tcp_conn_request: text_of(kernel, "tcp_conn_request").start,
            task_registers: kernel.calls.has_registers.into(),
            exit_result: *kernel.calls.exit_result.as_ref().unwrap_or(&ABSENT),
            call_numbers: CALLS.map(|number| i32::try_from(number).unwrap_or(-1)),
            wake_bytes: settings.buffer_bytes / 4,
            gather: settings.gather,
            offsets: layout.offsets.clone(),
            packet_type_shift: layout.packet_type_shift,
            reason_mode,
            reasons: [0; MAX_REASONS],
            reason_count: 0,
            locations: [Text(TextRange::default()); MAX_LOCATIONS],
            location_count: 0,
            netns_inode: filter.netns.map_or(0, |netns| netns.inode),
            netns_cookie: filter.netns.map_or(0, |netns| netns.cookie),
            ifname: filter.interface.as_deref().map_or([0; 2], ifname),
            ethertype,
            proto_on,
            proto,
            port_counts: [0; 3],
            ports: [Ports(PortRange::default()); 3 * MAX_PORT_RANGES],
            host_families: [0; 3],
            hosts: [Network(Cidr::default()); 3],
        };
        globals.reason_count = fill(&mut globals.reasons, reasons.iter().copied());
        globals.location_count = fill(&mut globals.locations, filter.locations.iter().copied().map(Text));
        for (end, ranges) in filter.ports.iter().enumerate() {
            let slots = &mut globals.ports[end * MAX_PORT_RANGES..][..MAX_PORT_RANGES];
            globals.port_counts[end] = fill(slots, ranges.iter().copied().map(Ports));
        }
        for (end, host) in filter.hosts.iter().enumerate() {
            if let Some(host) = host {
                (globals.host_families[end], globals.hosts[end]) = cidr(*host);
            }
        }
        globals
    }

    /// Hands every global to the loader. All must exist: a name that the kernel side does not have is a
    /// defect, and loading says so.
    pub(super) fn apply<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global("EMIT_EVENTS", &self.emit_events, true)
            .override_global("EMIT_STACK", &self.emit_stack, true)
            .override_global("HARM", &self.harm, true)
            .override_global("NETFILTER_TEXT", &self.netfilter[..], true)
            .override_global("TCP_RECEIVE", &self.tcp_receive[..], true)
            .override_global("WITNESS", &self.witness, true)
            .override_global("VERDICT_HOOKS", &self.verdict_hooks, true)
            .override_global("TABLE_HOOKS", &self.table_hooks, true)
            .override_global("XT_TABLE_ARGUMENT", &self.xt_table_argument, true)
            .override_global("NFT_DO_CHAIN", &self.nft_do_chain[..], true)
            .override_global("QUEUE_HOOKS", &self.queue_hooks, true)
            .override_global("QDISC_DROP_REASON", &self.qdisc_drop_reason, true)
            .override_global("SYN_CONSUMER", &self.syn_consumer[..], true)
            .override_global("TCP_CONN_REQUEST", &self.tcp_conn_request, true)
            .override_global("TASK_REGISTERS", &self.task_registers, true)
            .override_global("EXIT_RESULT", &self.exit_result, true)
            .override_global("CALL_NUMBERS", &self.call_numbers[..], true)
            .override_global("WAKE_BYTES", &self.wake_bytes, true)
            .override_global("GATHER", &self.gather[..], true)
            .override_global("FILTER_REASON_MODE", &self.reason_mode, true)
            .override_global("FILTER_REASONS", &self.reasons[..], true)
            .override_global("FILTER_REASON_COUNT", &self.reason_count, true)
            .override_global("FILTER_LOCATIONS", &self.locations[..], true)
            .override_global("FILTER_LOCATION_COUNT", &self.location_count, true)
            .override_global("FILTER_NETNS_INODE", &self.netns_inode, true)
            .override_global("FILTER_NETNS_COOKIE", &self.netns_cookie, true)
            .override_global("FILTER_IFNAME", &self.ifname[..], true)
            .override_global("FILTER_ETHERTYPE", &self.ethertype, true)
            .override_global("FILTER_PROTO_ON", &self.proto_on, true)
            .override_global("FILTER_PROTO", &self.proto, true)
            .override_global("FILTER_PORT_COUNTS", &self.port_counts[..], true)
            .override_global("FILTER_PORTS", &self.ports[..], true)
            .override_global("FILTER_HOST_FAMILIES", &self.host_families[..], true)
            .override_global("FILTER_HOSTS", &self.hosts[..], true)
            .override_global(Layout::PACKET_TYPE_SHIFT, &self.packet_type_shift, true);
        for (name, offset) in &self.offsets {
            loader.override_global(name, offset, true);
        }
    }
}

/// A function's code; nowhere when that is not known.
fn text_of(kernel: &Kernel, function: &str) -> TextRange {
    let ranges = kernel.symbols.as_ref().map(|symbols| symbols.ranges(function)).unwrap_or_default();
    ranges.first().map_or_else(TextRange::default, |(start, end)| TextRange { start: *start, end: *end })
}

/// Fills slots from the front and says how many; the command line has checked that all fit.
fn fill<T>(slots: &mut [T], values: impl Iterator<Item = T>) -> u8 {
    let mut count = 0;
    for (slot, value) in slots.iter_mut().zip(values) {
        *slot = value;
        count += 1;
    }
    count
}

fn ifname(name: &str) -> [u64; IFNAME_LEN / 8] {
    let mut bytes = [0; IFNAME_LEN];
    // The kernel's names are at most 15 bytes, the last stays 0.
    for (slot, byte) in bytes[..IFNAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    let (words, _) = bytes.as_chunks::<8>();
    [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
}

fn cidr(net: IpNet) -> (u16, Network) {
    fn words<const N: usize>(bytes: [u8; N]) -> [u32; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }
    match net {
        IpNet::V4(net) => (
            ETHERTYPE_IPV4,
            Network(Cidr { address: words(net.network().octets()), mask: words(net.netmask().octets()) }),
        ),
        IpNet::V6(net) => (
            ETHERTYPE_IPV6,
            Network(Cidr { address: words(net.network().octets()), mask: words(net.netmask().octets()) }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_padded_and_cut() {
        assert_eq!(ifname("eth0")[0].to_ne_bytes(), *b"eth0\0\0\0\0");
        assert_eq!(ifname("a23456789012345678")[1].to_ne_bytes(), *b"9012345\0");
    }

    #[test]
    fn networks_are_masked() {
        let (family, net) = cidr("10.1.2.3/8".parse().unwrap());
        assert_eq!(family, ETHERTYPE_IPV4);
        assert_eq!(net.0.address[0].to_ne_bytes(), [10, 0, 0, 0]);
        assert_eq!(net.0.mask[0].to_ne_bytes(), [255, 0, 0, 0]);
        assert_eq!(net.0.mask[1], 0);
        let (family, net) = cidr("fd00::1/128".parse().unwrap());
        assert_eq!(family, ETHERTYPE_IPV6);
        assert_eq!(net.0.address[3].to_ne_bytes(), [0, 0, 0, 1]);
        assert_eq!(net.0.mask, [u32::MAX; 4]);
    }
}
