//! Function hooks by kprobe and kretprobe: what is known at the entry is kept until the return.
//!
//! It is kept by the stack pointer at the entry. While a call runs, its place on the stack is its own: another CPU,
//! a softirq or a hard interrupt that comes between has another stack, or another place on this one. A process id
//! could not tell these apart, nor a CPU number where a kernel preempts.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::pt_regs,
    programs::{ProbeContext, RetProbeContext},
};

use crate::{maps::CALLS, offsets::Raw};

/// Arguments of a call that has not returned yet.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// The skb.
    pub(crate) skb: u64,
    /// The other argument of interest.
    pub(crate) other: u64,
    /// One more, or a time.
    pub(crate) more: u64,
}

/// Where the registers hold what is needed, by architecture.
#[cfg(bpf_target_arch = "x86_64")]
mod registers {
    use super::{Raw, pt_regs};

    /// `call` has pushed the return address, `ret` has popped it.
    pub(super) const POPPED: u64 = 8;

    pub(super) fn stack(regs: *const pt_regs) -> *const u64 {
        // SAFETY: the context is a whole `pt_regs`.
        unsafe { &raw const (*regs).rsp }
    }

    pub(super) fn return_address(_regs: *const pt_regs, stack: u64) -> u64 {
        Raw(stack).read().unwrap_or(0)
    }
}

/// Where the registers hold what is needed, by architecture.
#[cfg(bpf_target_arch = "aarch64")]
mod registers {
    use super::{pt_regs, read_volatile};

    /// The return address is in a register.
    pub(super) const POPPED: u64 = 0;

    pub(super) fn stack(regs: *const pt_regs) -> *const u64 {
        // SAFETY: the context is a whole `user_pt_regs`.
        unsafe { &raw const (*regs).sp }
    }

    pub(super) fn return_address(regs: *const pt_regs, _stack: u64) -> u64 {
        // SAFETY: as above; register 30 is the link register.
        unsafe { read_volatile(&raw const (*regs).regs[30]) }
    }
}

#[inline(always)]
fn stack(regs: *const pt_regs) -> u64 {
    // SAFETY: the address lies in the context. Volatile, so that the load keeps its width.
    unsafe { read_volatile(registers::stack(regs)) }
}

/// Keeps arguments until the call returns.
#[inline(always)]
pub(crate) fn enter(ctx: &ProbeContext, call: Call) {
    let _full = CALLS.insert(stack(ctx.regs), call, 0);
}

/// The arguments of the call that returns; nothing when its entry was not seen.
#[inline(always)]
pub(crate) fn leave(ctx: &RetProbeContext) -> Option<Call> {
    let entry = stack(ctx.regs).wrapping_sub(registers::POPPED);
    // SAFETY: the value is copied at once; no other call has this stack pointer.
    let call = unsafe { CALLS.get(entry) }.copied()?;
    let _gone = CALLS.remove(entry);
    Some(call)
}

/// Where the function that is entered was called from: the address it returns to.
#[inline(always)]
pub(crate) fn caller(ctx: &ProbeContext) -> u64 {
    registers::return_address(ctx.regs, stack(ctx.regs))
}
