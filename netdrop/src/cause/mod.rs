//! Causes: what a drop means, and which drop means what.
//!
//! The catalogue is data: `netdrop/causes/*.toml`, one file per layer, compiled into the binary. Each
//! cause carries its text (what it means, how to confirm it, how to fix it) and its rules. A rule names
//! a drop reason, a kernel function and facts of the packet, each optional; of all rules that match a
//! drop, the most specific one names its cause. `netdrop/causes/README.md` says how to write one.
//!
//! The verdict is a pure function of the key a drop was counted under, so callers may cache it by key.

mod catalogue;
mod classify;
mod fact;
mod model;
mod parse;
mod rule;

pub use catalogue::Catalogue;
pub use classify::{Drop, Verdict};
pub(crate) use fact::socket_state;
pub use model::{Cause, Class, Confidence, Scope, Step};
pub use parse::CatalogueError;
pub(crate) use rule::unstated;
pub use rule::{Pattern, ReasonPattern, Rule};

#[cfg(test)]
mod tests;
