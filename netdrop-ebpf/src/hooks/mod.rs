//! The hooks, a file per probe point.

pub(crate) mod announce;
pub(crate) mod kfree_skb;
