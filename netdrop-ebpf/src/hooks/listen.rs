//! SYNs that a listener gives up in `tcp_conn_request()` (net/ipv4/tcp_input.c). The kernel consumes them, so
//! `skb:kfree_skb` does not see them. What tells is the listener's counters: between entry and return of the function
//! where it can be hooked, else between one consumed SYN and the next.

use aya_ebpf::{
    EbpfContext, Global,
    programs::{ProbeContext, RetProbeContext},
};
use netdrop_common::{
    codes::{ListenDrop, tcp},
    facts::Gather,
    fields::ABSENT,
    filter::TextRange,
    key::{ProbePoint, REASON_ABSENT},
    witness::Cell,
};

use super::{
    calls::{self, Call},
    observe::{self, Occasion},
};
use crate::{
    filter,
    offsets::{
        Access, CONNECTION_HALF_OPEN, NET_MAX_SYN_BACKLOG, NET_SYNCOOKIES, Probed, Raw, SKB_HEAD,
        SKB_NETWORK_HEADER, SKB_PROTOCOL, SKB_TRANSPORT_HEADER,
    },
    rodata::element,
    scratch::{self, Scratch},
    skb::{self, NetnsId, Skb, Socket},
    witness::look_at_listen,
};

/// `tcp_rcv_state_process()`, which consumes a SYN whatever becomes of it; empty where its address is not known.
#[unsafe(no_mangle)]
static SYN_CONSUMER: Global<[TextRange; 1]> = Global::new([TextRange { start: 0, end: 0 }]);

/// First byte of `tcp_conn_request()`, 0 where it is not known: the location of these drops.
#[unsafe(no_mangle)]
static TCP_CONN_REQUEST: Global<u64> = Global::new(0);

/// `consume_skb(skb, location)`, without the location before 6.3.
#[inline(always)]
pub(crate) fn consumed<A: Access, C: EbpfContext>(ctx: &C, skb: *const u8, location: Option<u64>) {
    if let Some(location) = location {
        let consumer: TextRange = element(&SYN_CONSUMER, 0);
        if consumer.end != 0 && !filter::within(location, consumer) {
            return;
        }
    }
    let Some(skb) = Skb::<A>::new(skb) else { return };
    if !is_syn(skb) {
        return;
    }
    let Some((scratch, level)) = scratch::enter() else { return };
    let place = skb::place(skb, None);
    scratch.witness.begin(place.netns);
    look_at_listen(&mut scratch.witness);
    judge(scratch, place.netns.address, 0, true);
    given_up::<A, C>(ctx, scratch, skb, None);
    scratch::leave(level);
}

/// Whether the skb is a SYN, its headers as TCP has set them.
#[inline(always)]
fn is_syn<A: Access>(skb: Skb<A>) -> bool {
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    const TCP: u8 = 6;
    let protocol = match u16::from_be(skb.load(&SKB_PROTOCOL)) {
        IPV4 => 9,
        IPV6 => 6,
        _ => return false,
    };
    let head = Raw(skb.load(&SKB_HEAD));
    let network = u64::from(skb.load::<u16>(&SKB_NETWORK_HEADER));
    if head.offset(network + protocol).read::<u8>() != Some(TCP) {
        return false;
    }
    let transport = u64::from(skb.load::<u16>(&SKB_TRANSPORT_HEADER));
    let flags = head.offset(transport + 13).read::<u8>().unwrap_or(0);
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)` begins: what moved until now is not this SYN's.
#[inline(always)]
pub(crate) fn entered<A: Access>(sk: *const u8) {
    let Some(sk) = Socket::<A>::new(sk) else { return };
    let Some((scratch, level)) = scratch::enter() else { return };
    scratch.witness.begin(skb::socket_netns(sk));
    look_at_listen(&mut scratch.witness);
    scratch::leave(level);
}

/// `tcp_conn_request()` returns, on the same CPU: SYNs are processed in softirq, or with softirqs off.
#[inline(always)]
pub(crate) fn returned<A: Access, C: EbpfContext>(ctx: &C, sk: *const u8, skb: *const u8) {
    let (Some(sk), Some(skb)) = (Socket::<A>::new(sk), Skb::<A>::new(skb)) else { return };
    let Some((scratch, level)) = scratch::enter() else { return };
    let netns = skb::socket_netns(sk);
    scratch.witness.begin(netns);
    look_at_listen(&mut scratch.witness);
    judge(scratch, netns.address, sk.address(), true);
    scratch.witness.cell = netdrop_common::witness::NO_CELL;
    given_up(ctx, scratch, skb, Some(sk));
    scratch::leave(level);
}

/// [`entered`] by kprobe.
#[inline(always)]
pub(crate) fn probe_entered(ctx: &ProbeContext) {
    let (Some(other), Some(skb)) = (ctx.arg::<u64>(2), ctx.arg::<u64>(3)) else { return };
    calls::enter(ctx, Call { skb, other, more: 0 });
    entered::<Probed>(other as *const u8);
}

/// [`returned`] by kretprobe.
#[inline(always)]
pub(crate) fn probe_returned(ctx: &RetProbeContext) {
    if let Some(call) = calls::leave(ctx) {
        returned::<Probed, _>(ctx, call.other as *const u8, call.skb as *const u8);
    }
}

/// What the counters say of the packet at hand; goes to `witness.listen`. `listener` is the address of the socket or 0,
/// `syn` whether the packet opens a connection.
#[inline(never)]
pub(crate) fn judge(scratch: &mut Scratch, net: u64, listener: u64, syn: bool) {
    let witness = &mut scratch.witness;
    if !witness.compared() {
        return;
    }
    let overflows = witness.moved(Cell::ListenOverflows);
    let drops = witness.moved(Cell::ListenDrops);
    let full = witness.moved(Cell::ReqQFullDrop);
    let code = if overflows == 0 && drops == 0 && full == 0 {
        ListenDrop::Quiet
    } else if overflows == 1 && drops == 1 && full == 0 {
        witness.testify(Cell::ListenOverflows);
        ListenDrop::AcceptQueue
    } else if overflows == 0 && drops == 1 && full == 1 {
        witness.testify(Cell::ReqQFullDrop);
        ListenDrop::SynQueue
    } else if overflows == 0 && drops == 1 && full == 0 {
        witness.testify(Cell::ListenDrops);
        if syn && backlog_is_short(Raw(net), Raw(listener)) {
            ListenDrop::SynBacklog
        } else {
            ListenDrop::Other
        }
    } else {
        witness.testify(Cell::ListenDrops);
        ListenDrop::Several
    };
    witness.listen = code as u8;
}

/// Whether a SYN is refused for want of `tcp_max_syn_backlog`: without cookies, the last quarter of it is for peers
/// that are known. Without the listener only the first half can be told.
#[inline(always)]
fn backlog_is_short(net: Raw, listener: Raw) -> bool {
    if NET_SYNCOOKIES.load() == ABSENT || net.load::<u8>(&NET_SYNCOOKIES) != Some(0) {
        return false;
    }
    if listener.0 == 0 || CONNECTION_HALF_OPEN.load() == ABSENT || NET_MAX_SYN_BACKLOG.load() == ABSENT {
        return true;
    }
    let max = net.load::<i32>(&NET_MAX_SYN_BACKLOG).unwrap_or(0);
    let half_open = listener.load::<i32>(&CONNECTION_HALF_OPEN).unwrap_or(0);
    max.wrapping_sub(half_open) < max >> 2
}

/// Counts the SYN when the listener gave it up.
#[inline(always)]
fn given_up<A: Access, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    skb: Skb<A>,
    listener: Option<Socket<A>>,
) {
    if scratch.witness.listen <= ListenDrop::Quiet as u8 {
        return;
    }
    let occasion = Occasion {
        probe: ProbePoint::TcpConnRequest,
        location: TCP_CONN_REQUEST.load(),
        reason: REASON_ABSENT,
        gather: Gather::PACKET.union(Gather::LISTENER),
    };
    observe::observe(ctx, scratch, skb, listener, occasion);
}

/// Looks at the counters of this namespace's listeners for the segment at hand, no SYN.
#[inline(always)]
pub(crate) fn look(scratch: &mut Scratch, netns: NetnsId) {
    look_at_listen(&mut scratch.witness);
    judge(scratch, netns.address, 0, false);
}
