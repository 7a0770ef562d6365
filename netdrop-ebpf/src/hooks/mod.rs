//! The hooks, a file per probe point, and what they share.

pub(crate) mod announce;
pub(crate) mod calls;
pub(crate) mod conntrack;
pub(crate) mod harm;
pub(crate) mod kfree_skb;
pub(crate) mod listen;
pub(crate) mod observe;
pub(crate) mod prime;
pub(crate) mod queues;
pub(crate) mod refusal;
pub(crate) mod tables;
pub(crate) mod tcp_drop;
pub(crate) mod verdict;
