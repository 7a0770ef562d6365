//! One file per probe point.

pub(crate) mod kfree_skb;
