//! Calls that the kernel refuses for want of a port: no packet is made, and no counter moves. All run in the context
//! of the process that called.
//!
//! Nothing here uses the working memory of a CPU: fexit programs may be preempted, and it is given back in order.

use aya_ebpf::programs::{ProbeContext, RetProbeContext, TracePointContext};
use netdrop_common::{
    event::{TUPLE_ADDRESSES, TUPLE_PORTS, Tuple},
    fields::ABSENT,
    refusal::{Call, RefusalKey, Refused},
};

use super::calls::{self, Call as Entry};
use crate::{
    headers::{EMPTY, ETH_IPV4, ETH_IPV6},
    offsets::{
        Field, INET_SOURCE_PORT, Raw, SOCK_ADDRESS, SOCK_ADDRESS6, SOCK_FAMILY, SOCK_NET, SOCK_PEER,
        SOCK_PEER_PORT, SOCK_PEER6, SOCK_PORT, SOCK_PROTOCOL, SOCK_STATE,
    },
    refuse::{count, settle},
    skb::NetnsId,
    task,
};

/// Byte offset of the result in a `syscalls:sys_exit_*` record.
#[unsafe(no_mangle)]
static EXIT_RESULT: Field = Field::new(ABSENT);

/// What was asked for, and under what it is counted.
pub(crate) struct Asked {
    pub(crate) tuple: Tuple,
    pub(crate) key: RefusalKey,
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Transport protocols (include/uapi/linux/in.h). A socket of MPTCP is refused for TCP's ports.
const TCP: u16 = 6;
const UDP: u16 = 17;
const UDPLITE: u16 = 136;
const MPTCP: u16 = 262;

/// include/net/tcp_states.h
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: u8 = 10;

/// `inet_sock_set_state(sk, old, new)`. A connection that is given up before it has a source port got none: refused or
/// interrupted later, it has one.
#[inline(always)]
pub(crate) fn state_changed(sk: u64, old: i32, new: i32) {
    if old != TCP_SYN_SENT || new != TCP_CLOSE || INET_SOURCE_PORT.load() == ABSENT {
        return;
    }
    let sk = Raw(sk);
    if sk.load::<u16>(&INET_SOURCE_PORT) != Some(0) {
        return;
    }
    let mut asked = begin(sk, Refused::NoFreePort, Call::Connect);
    ends(&mut asked.tuple, sk, true);
    finish(&mut asked, sk);
}

/// `get_port()` of a protocol returns: `snum` is the port that was asked for, or 0.
#[inline(always)]
pub(crate) fn port_refused(sk: u64, snum: u16, result: i32) {
    if result == 0 || sk == 0 {
        return;
    }
    let sk = Raw(sk);
    let what = if snum == 0 { Refused::NoFreePort } else { Refused::PortTaken };
    let tcp = matches!(protocol(sk), TCP | MPTCP);
    let call = if tcp && sk.load::<u8>(&SOCK_STATE) == Some(TCP_LISTEN) {
        Call::Listen
    } else if tcp || snum != 0 {
        Call::Bind
    } else {
        // Also a datagram socket that sends or connects gets its port here.
        task::call()
    };
    let mut asked = begin(sk, what, call);
    if matches!(call, Call::Bind | Call::Listen) {
        ends(&mut asked.tuple, sk, false);
        asked.tuple.sport = snum;
    } else {
        destination(&mut asked.tuple, call);
    }
    finish(&mut asked, sk);
}

/// [`port_refused`] by kprobe: entry.
#[inline(always)]
pub(crate) fn probe_entered(ctx: &ProbeContext) {
    let (Some(sk), Some(snum)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return };
    calls::enter(ctx, Entry { skb: sk, other: snum, more: 0 });
}

/// [`port_refused`] by kretprobe: return.
#[inline(always)]
pub(crate) fn probe_returned(ctx: &RetProbeContext) {
    if let Some(entry) = calls::leave(ctx) {
        port_refused(entry.skb, entry.other as u16, ctx.ret());
    }
}

/// `syscalls:sys_exit_bind`, `sys_exit_listen`, `sys_exit_connect`, `sys_exit_sendto`, `sys_exit_sendmsg`: whether the
/// call was refused for want of a port follows from its result and the socket. `tcp` says of which protocol.
#[inline(always)]
pub(crate) fn returned(ctx: &TracePointContext, call: Call, tcp: bool) {
    const EAGAIN: i64 = 11;
    const EADDRINUSE: i64 = 98;
    // SAFETY: the helper checks the address.
    let result = unsafe { ctx.read_at::<i64>(usize::from(EXIT_RESULT.load())) }.unwrap_or(0);
    let names_port = matches!(call, Call::Bind | Call::Listen);
    if result != if names_port { -EADDRINUSE } else { -EAGAIN } {
        return;
    }
    let Some(sk) = task::socket() else { return };
    let ours = if tcp { matches!(protocol(sk), TCP | MPTCP) } else { matches!(protocol(sk), UDP | UDPLITE) };
    if !ours || !is_inet(sk) {
        return;
    }
    let bound: u16 = sk.load(&SOCK_PORT).unwrap_or(0);
    // A datagram socket with a port had to wait for something else.
    if !names_port && bound != 0 {
        return;
    }
    let mut asked = begin(sk, Refused::NoFreePort, call);
    if matches!(call, Call::Bind) {
        task::sockaddr(&mut asked.tuple, task::second(), true);
    } else if matches!(call, Call::Listen) {
        ends(&mut asked.tuple, sk, false);
        asked.tuple.sport = bound;
    } else {
        destination(&mut asked.tuple, call);
    }
    if names_port && asked.tuple.have & TUPLE_PORTS == 0 {
        asked.key.what = Refused::Unknown as u8;
    } else if names_port && asked.tuple.sport != 0 {
        asked.key.what = Refused::PortTaken as u8;
    }
    finish(&mut asked, sk);
}

#[inline(always)]
fn protocol(sk: Raw) -> u16 {
    if SOCK_PROTOCOL.load() == ABSENT { 0 } else { sk.load(&SOCK_PROTOCOL).unwrap_or(0) }
}

#[inline(always)]
fn is_inet(sk: Raw) -> bool {
    matches!(sk.load::<u16>(&SOCK_FAMILY), Some(AF_INET | AF_INET6))
}

#[inline(always)]
fn begin(sk: Raw, what: Refused, call: Call) -> Asked {
    let protocol = match protocol(sk) {
        MPTCP => TCP,
        other => other,
    } as u8;
    let mut tuple = EMPTY;
    tuple.proto = protocol;
    tuple.ethertype = if sk.load::<u16>(&SOCK_FAMILY) == Some(AF_INET6) { ETH_IPV6 } else { ETH_IPV4 };
    let key =
        RefusalKey { netns_cookie: 0, netns_inode: 0, what: what as u8, call: call as u8, protocol, pad: 0 };
    Asked { tuple, key }
}

/// Where a datagram was to go.
#[inline(always)]
fn destination(tuple: &mut Tuple, call: Call) {
    let address = match call {
        Call::Connect => task::second(),
        Call::Sendto => task::fifth(),
        Call::Sendmsg => task::message_name(),
        _ => 0,
    };
    task::sockaddr(tuple, address, false);
}

/// Takes the socket's own address, and its peer where it has one.
#[inline(never)]
fn ends(tuple: &mut Tuple, sk: Raw, peer: bool) {
    let (from, to) = ((&raw mut tuple.saddr).cast::<u8>(), (&raw mut tuple.daddr).cast::<u8>());
    if tuple.ethertype == ETH_IPV4 {
        // SAFETY: the address takes more than these bytes.
        unsafe { sk.copy_member(&SOCK_ADDRESS, from.cast::<[u8; 4]>()) };
        if peer {
            // SAFETY: as above.
            unsafe { sk.copy_member(&SOCK_PEER, to.cast::<[u8; 4]>()) };
        }
    } else if SOCK_PEER6.load() != ABSENT && SOCK_ADDRESS6.load() != ABSENT {
        // SAFETY: the address is as long as the member.
        unsafe { sk.copy_member(&SOCK_ADDRESS6, from.cast::<[u8; 16]>()) };
        if peer {
            // SAFETY: as above.
            unsafe { sk.copy_member(&SOCK_PEER6, to.cast::<[u8; 16]>()) };
        }
    } else {
        return;
    }
    if peer {
        tuple.dport = u16::from_be(sk.load(&SOCK_PEER_PORT).unwrap_or(0));
    }
    tuple.have = TUPLE_ADDRESSES | TUPLE_PORTS;
}

/// Names the namespace, and counts.
#[inline(always)]
fn finish(asked: &mut Asked, sk: Raw) {
    settle(&mut asked.tuple);
    if let Some(netns) = sk.follow(&SOCK_NET).and_then(NetnsId::of_raw) {
        asked.key.netns_cookie = netns.cookie;
        asked.key.netns_inode = netns.inode;
    }
    count(asked);
}
