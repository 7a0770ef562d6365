//! Working memory of one run, in a map instead of on the stack.
//!
//! Two limits of the verifier are the reason. A chain of calls has 512 bytes of stack: 6.12 refuses a
//! program that wants more, 6.18 gives it more. And older verifiers (5.10 and 6.1; no longer 6.12) tell
//! apart all constants on the stack and in registers of a program with functions, so that paths which
//! differ in one flag are walked to the end each: 20 times as many instructions. What a map holds is
//! forgotten at once, and such paths join.

use core::ptr::{read_volatile, write_volatile};

use netdrop_common::{
    facts::{Facts, Gather},
    key::DropKey,
};

use crate::{
    headers::{Headers, MAX_HEADER},
    hooks::{harm::Remembering, queues::Queue},
    maps::{DEPTH, SCRATCH},
    skb::{Buffer, Route},
    witness::Witness,
};

/// Runs that can interrupt each other on one CPU: task, softirq, hard interrupt, and one to spare. From
/// 6.1 on the kernel skips a run that would nest.
pub(crate) const LEVELS: u32 = 4;

/// What a run works on.
#[repr(C)]
pub(crate) struct Scratch {
    /// The buffer's layout.
    pub(crate) buffer: Buffer,
    /// Headers of the packet.
    pub(crate) outer: Headers,
    /// Headers of the packet that an ICMP error quotes.
    pub(crate) quoted: Headers,
    /// The header being read.
    pub(crate) bytes: [u8; MAX_HEADER],
    /// Where the drop is counted.
    pub(crate) key: DropKey,
    /// The packet's route.
    pub(crate) route: Route,
    /// What is to be read for the reason, a [`Gather`].
    pub(crate) gather: Gather,
    /// Packets in the skb.
    pub(crate) segments: u16,
    /// `skb->pkt_type`.
    pub(crate) packet_type: u8,
    /// [`KEY_OVERFLOWED`](netdrop_common::event::KEY_OVERFLOWED) or nothing.
    pub(crate) flags: u16,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub(crate) now: u64,
    /// What the counters say.
    pub(crate) witness: Witness,
    /// The skb's connection, or 0.
    pub(crate) connection: u64,
    /// The connection that was there before it, or 0.
    pub(crate) winner: u64,
    /// The qdisc that dropped the skb, where the reason has to do with one.
    pub(crate) queue: Queue,
    /// 1 when the skb was answered with a reset.
    pub(crate) answered: u64,
    /// The drop as it is remembered for its consequences.
    pub(crate) harm: Remembering,
    /// See [`Scratch::forget`].
    word: u64,
}

impl Scratch {
    /// Returns the value as one that the verifier knows nothing about.
    #[inline(always)]
    pub(crate) fn forget(&mut self, value: u64) -> u64 {
        // SAFETY: `word` is this run's alone. Volatile, so that store and load happen.
        unsafe {
            write_volatile(&raw mut self.word, value);
        }
        // SAFETY: as above.
        unsafe { read_volatile(&raw const self.word) }
    }

    /// [`Scratch::forget`] for facts.
    #[inline(always)]
    pub(crate) fn forget_facts(&mut self, facts: Facts) -> Facts {
        Facts(self.forget(facts.0))
    }
}

/// A run's level, to be given back.
pub(crate) struct Level {
    depth: *mut u32,
    level: u32,
}

/// Working memory for this run, which a run that interrupts it does not get. Not a function that takes a
/// closure: that would be a call, and calls share the stack.
#[inline(always)]
pub(crate) fn enter() -> Option<(&'static mut Scratch, Level)> {
    let depth = DEPTH.get_ptr_mut(0)?;
    // SAFETY: the lookup returned this CPU's value; whoever interrupts leaves it as it was.
    let level = unsafe { read_volatile(depth) };
    if level >= LEVELS {
        return None;
    }
    let scratch = SCRATCH.get_ptr_mut(level)?;
    // SAFETY: as above. Volatile, because an interrupt reads it.
    unsafe {
        write_volatile(depth, level + 1);
    }
    // SAFETY: the lookup returned a whole `Scratch`, and this level is this run's alone.
    Some((unsafe { &mut *scratch }, Level { depth, level }))
}

/// Gives the working memory back.
#[inline(always)]
pub(crate) fn leave(level: Level) {
    // SAFETY: the lookup returned this CPU's value.
    unsafe {
        write_volatile(level.depth, level.level);
    }
}
