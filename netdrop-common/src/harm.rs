//! The ring record of what a drop cost: TCP had to send again, or a connection was reset.

use core::mem::{align_of, offset_of, size_of};

use crate::{cell, key::DropKey};

/// What TCP did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Harm {
    /// Sent a segment again (`tcp:tcp_retransmit_skb`).
    Retransmit = 0,
    /// Sent its answer to a SYN again (`tcp:tcp_retransmit_synack`).
    SynackRetransmit = 1,
    /// Sent a reset (`tcp:tcp_send_reset`).
    ResetSent = 2,
    /// Took a reset (`tcp:tcp_receive_reset`).
    ResetReceived = 3,
}

/// How many kinds there are.
pub const HARMS: u32 = 4;

impl Harm {
    /// Each once, by number.
    pub const ALL: [Self; HARMS as usize] =
        [Self::Retransmit, Self::SynackRetransmit, Self::ResetSent, Self::ResetReceived];

    /// The kind that a number stands for.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Retransmit),
            1 => Some(Self::SynackRetransmit),
            2 => Some(Self::ResetSent),
            3 => Some(Self::ResetReceived),
            _ => None,
        }
    }

    /// The cell that counts all of this kind, whether a drop was to blame or not.
    #[must_use]
    pub const fn seen(self) -> u32 {
        cell::HARM_SEEN + self as u32
    }

    /// The cell that counts those which followed a drop.
    #[must_use]
    pub const fn joined(self) -> u32 {
        cell::HARM_JOINED + self as u32
    }
}

/// Connections with drops that are remembered.
pub const HARM_CONNECTIONS: u32 = 8192;

/// How long a drop is to blame.
pub const HARM_WINDOW_NS: u64 = 10_000_000_000;

/// The ring record of one consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HarmEvent {
    /// The key that the drop was counted under.
    pub key: DropKey,
    /// `bpf_ktime_get_ns` of the consequence.
    pub time_ns: u64,
    /// Of the drop, as its own record has it.
    pub drop_time_ns: u64,
    /// `net->net_cookie` of the socket; 0 where unknown.
    pub netns_cookie: u64,
    /// Who sends, in network order; IPv4 in the first four bytes.
    pub saddr: [u8; 16],
    /// To whom.
    pub daddr: [u8; 16],
    /// `net->ns.inum` of the socket; 0 where unknown.
    pub netns_inode: u32,
    /// Source port, in host order.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// A [`Harm`] as a number.
    pub what: u8,
    /// State of the socket, 0 where there is none.
    pub state: u8,
    /// Explicit padding, always 0.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<HarmEvent>() == 112 && align_of::<HarmEvent>() == 8);
    assert!(offset_of!(HarmEvent, time_ns) == 40 && offset_of!(HarmEvent, saddr) == 64);
    assert!(offset_of!(HarmEvent, netns_inode) == 96 && offset_of!(HarmEvent, what) == 106);
};
