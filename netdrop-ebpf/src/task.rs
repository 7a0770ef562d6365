//! The system call that the current task is in: its number, its socket, the addresses it was given.
//!
//! By `bpf_task_pt_regs()`, since 5.15; before, nothing is known of it.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs},
};
use netdrop_common::{
    event::{TUPLE_ADDRESSES, TUPLE_PORTS, Tuple},
    fields::ABSENT,
    refusal::Call,
};

use crate::{
    headers::{ETH_IPV4, ETH_IPV6},
    offsets::{
        CALL_FIFTH, CALL_FIRST, CALL_NUMBER, CALL_SECOND, FILE_PRIVATE, FILES_TABLE, Field, Raw, SOCKET_FILE,
        SOCKET_SOCK, TABLE_FILES, TABLE_LENGTH, TASK_FILES,
    },
    rodata::element,
};

/// 1 where the kernel has the helper.
#[unsafe(no_mangle)]
static TASK_REGISTERS: Global<u8> = Global::new(0);

/// Numbers of the calls that [`Call`] names, in its order from `Connect` on.
#[unsafe(no_mangle)]
static CALL_NUMBERS: Global<[i32; 6]> = Global::new([-1; 6]);

/// Bytes from the member to the argument, where the registers are an array.
#[cfg(bpf_target_arch = "x86_64")]
const SECOND: u64 = 0;
#[cfg(bpf_target_arch = "aarch64")]
const SECOND: u64 = 8;
#[cfg(bpf_target_arch = "x86_64")]
const FIFTH: u64 = 0;
#[cfg(bpf_target_arch = "aarch64")]
const FIFTH: u64 = 4 * 8;

/// The user's registers as they were at the call; address 0 where that is not known.
#[inline(always)]
fn registers() -> Raw {
    if TASK_REGISTERS.load() == 0 {
        return Raw(0);
    }
    // SAFETY: the helper takes nothing, and returns the current task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the task is the current one, as the helper wants.
    Raw(unsafe { bpf_task_pt_regs(task) } as u64)
}

#[inline(always)]
fn argument(member: &Field, further: u64) -> u64 {
    if TASK_REGISTERS.load() == 0 || member.load() == ABSENT {
        return 0;
    }
    registers().offset(u64::from(member.load()) + further).read().unwrap_or(0)
}

/// The second argument of the call.
#[inline(always)]
pub(crate) fn second() -> u64 {
    argument(&CALL_SECOND, SECOND)
}

/// The fifth argument of the call.
#[inline(always)]
pub(crate) fn fifth() -> u64 {
    argument(&CALL_FIFTH, FIFTH)
}

/// Which call it is.
#[inline(always)]
pub(crate) fn call() -> Call {
    if TASK_REGISTERS.load() == 0 || CALL_NUMBER.load() == ABSENT {
        return Call::Unknown;
    }
    let number: i32 = registers().load(&CALL_NUMBER).unwrap_or(-1);
    // No loop: each comparison is with a constant.
    if number == element(&CALL_NUMBERS, 0) {
        Call::Connect
    } else if number == element(&CALL_NUMBERS, 1) {
        Call::Bind
    } else if number == element(&CALL_NUMBERS, 2) {
        Call::Listen
    } else if number == element(&CALL_NUMBERS, 3) {
        Call::Sendto
    } else if number == element(&CALL_NUMBERS, 4) {
        Call::Sendmsg
    } else if number == element(&CALL_NUMBERS, 5) {
        Call::Sendmmsg
    } else {
        Call::Unknown
    }
}

/// The socket behind the descriptor that is the first argument of the call.
#[inline(always)]
pub(crate) fn socket() -> Option<Raw> {
    if TASK_REGISTERS.load() == 0 {
        return None;
    }
    let descriptor = argument(&CALL_FIRST, 0) & 0xffff_ffff;
    // SAFETY: the helper takes nothing, and returns the current task.
    let task = Raw(unsafe { bpf_get_current_task_btf() } as u64);
    let table = task.follow(&TASK_FILES)?.follow(&FILES_TABLE)?;
    if descriptor >= u64::from(table.load::<u32>(&TABLE_LENGTH)?) {
        return None;
    }
    let file: u64 = table.follow(&TABLE_FILES)?.offset(8 * descriptor).read()?;
    if file == 0 {
        return None;
    }
    let socket = Raw(file).follow(&FILE_PRIVATE)?;
    // What is private to a file is a socket when it points back.
    if socket.load::<u64>(&SOCKET_FILE) != Some(file) {
        return None;
    }
    socket.follow(&SOCKET_SOCK)
}

/// `msg_name` of the `struct msghdr` that is the second argument: its first member (include/linux/socket.h).
#[inline(always)]
pub(crate) fn message_name() -> u64 {
    read_user(second()).unwrap_or(0)
}

#[inline(always)]
fn read_user<V: Copy + Default>(address: u64) -> Option<V> {
    if address == 0 {
        return None;
    }
    let mut value = V::default();
    // SAFETY: `value` takes these bytes; the helper checks the source.
    let status = unsafe {
        bpf_probe_read_user(
            (&raw mut value).cast(),
            size_of::<V>() as u32,
            address as *const core::ffi::c_void,
        )
    };
    (status == 0).then_some(value)
}

/// Takes an end from a `struct sockaddr_in` or `sockaddr_in6` of the program's; the other end stays open.
#[inline(never)]
pub(crate) fn sockaddr(tuple: &mut Tuple, address: u64, source: bool) {
    const AF_INET6: u16 = 10;
    let Some([family, port]) = read_user::<[u16; 2]>(address) else { return };
    let to = if source { (&raw mut tuple.saddr).cast::<u8>() } else { (&raw mut tuple.daddr).cast::<u8>() };
    if family == AF_INET6 {
        tuple.ethertype = ETH_IPV6;
        let from = (address + 8) as *const core::ffi::c_void;
        // SAFETY: an address of a tuple takes 16 bytes; the helper checks the source.
        let _zeroed_on_fault = unsafe { bpf_probe_read_user(to.cast(), 16, from) };
    } else {
        tuple.ethertype = ETH_IPV4;
        let from = (address + 4) as *const core::ffi::c_void;
        // SAFETY: as above, for 4 bytes.
        let _zeroed_on_fault = unsafe { bpf_probe_read_user(to.cast(), 4, from) };
    }
    if source {
        tuple.sport = u16::from_be(port);
    } else {
        tuple.dport = u16::from_be(port);
    }
    tuple.have = TUPLE_ADDRESSES | TUPLE_PORTS;
}
