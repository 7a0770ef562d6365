//! One refusal, whichever hook saw it: filter, count, event.

use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use netdrop_common::{
    cell,
    event::Tuple,
    key::REASON_ABSENT,
    refusal::{COMM_LEN, RefusalCount, RefusalEvent},
};

use crate::{
    count::{BPF_NOEXIST, add, cell},
    emit,
    filter::{self, Verdict},
    headers::{ETH_IPV4, ETH_IPV6},
    hooks::refusal::Asked,
    maps::{EVENTS, REFUSALS},
    skb::NetnsId,
};

/// Addresses of IPv4 in the form of IPv6 (`::ffff:a.b.c.d`) become plain ones, so that filters meet them.
#[inline(never)]
pub(crate) fn settle(tuple: &mut Tuple) {
    if tuple.ethertype != ETH_IPV6 {
        return;
    }
    let (source, destination) = (is_mapped(&tuple.saddr), is_mapped(&tuple.daddr));
    let unset = |address: &[u8; 16]| first(address) | last(address) == 0;
    let one = source || destination;
    if one && (source || unset(&tuple.saddr)) && (destination || unset(&tuple.daddr)) {
        tuple.ethertype = ETH_IPV4;
        unmap(&mut tuple.saddr);
        unmap(&mut tuple.daddr);
    }
}

#[inline(always)]
fn word(address: &[u8; 16], at: usize) -> u32 {
    u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

#[inline(always)]
fn first(address: &[u8; 16]) -> u64 {
    u64::from(word(address, 0)) | u64::from(word(address, 4)) << 32
}

#[inline(always)]
fn last(address: &[u8; 16]) -> u64 {
    u64::from(word(address, 8)) | u64::from(word(address, 12)) << 32
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    first(address) == 0 && word(address, 8) == u32::from_be(0xffff)
}

#[inline(always)]
fn unmap(address: &mut [u8; 16]) {
    let v4 = [address[12], address[13], address[14], address[15]];
    *address = [0; 16];
    [address[0], address[1], address[2], address[3]] = v4;
}

/// Judges, counts and streams a refusal. A function of its own, for its own stack frame.
#[inline(never)]
pub(crate) fn count(asked: &Asked) {
    let key = &asked.key;
    let netns = NetnsId { cookie: key.netns_cookie, inode: key.netns_inode, address: 0 };
    // It has no reason and no place in the kernel, and is at no interface: who asks for one of these means drops.
    let mut verdict = filter::reason(REASON_ABSENT).and(filter::location(0)).and(filter::no_interface());
    verdict = verdict.and(filter::netns_is(netns));
    if filter::needs_packet() {
        verdict = verdict.and(filter::tuple(&asked.tuple));
    }
    match verdict {
        Verdict::Match => {}
        Verdict::Filtered => return cell(cell::REFUSALS_FILTERED),
        Verdict::Undecidable => return cell(cell::REFUSALS_UNDECIDABLE),
    }
    let counted = REFUSALS.get_ptr_mut(key).or_else(|| {
        // Another CPU may insert the same key first: whoever wins, the second look finds it.
        let _exists_or_full = REFUSALS.insert(key, RefusalCount { count: 0, lost: 0 }, BPF_NOEXIST);
        REFUSALS.get_ptr_mut(key)
    });
    match counted {
        // SAFETY: the lookup returned this pointer, so it points at a whole `RefusalCount`.
        Some(counted) => add(unsafe { &raw mut (*counted).count }, 1),
        None => cell(cell::REFUSALS_OVERFLOW),
    }
    if !emit::wanted() || emit(asked, counted.is_none()) {
        return;
    }
    cell(cell::REFUSALS_LOST);
    if let Some(counted) = counted {
        // SAFETY: as above.
        add(unsafe { &raw mut (*counted).lost }, 1);
    }
}

/// Writes the record of a refusal; says whether the ring had room.
#[inline(always)]
fn emit(asked: &Asked, overflowed: bool) -> bool {
    let Some(mut entry) = EVENTS.reserve::<RefusalEvent>(0) else { return false };
    // SAFETY: the record is ours until it is submitted, and any bytes are a valid `RefusalEvent`.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    event.key = asked.key;
    // SAFETY: the helper takes nothing and reads a clock.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.tuple = asked.tuple;
    // SAFETY: the helper takes nothing.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    event.pid = (ids >> 32) as u32;
    event.tid = ids as u32;
    event.comm = [0; COMM_LEN];
    // SAFETY: the helper writes `COMM_LEN` bytes, which is what `comm` takes.
    let _zeroed_on_error = unsafe { bpf_get_current_comm((&raw mut event.comm).cast(), COMM_LEN as u32) };
    event.overflowed = overflowed.into();
    let wakeup = emit::wakeup(event.time_ns);
    entry.submit(wakeup);
    true
}
