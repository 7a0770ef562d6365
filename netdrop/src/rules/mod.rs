//! Which firewall rule dropped a packet: no hook tells it, so the namespace's rules are read and those are left out
//! that certainly did not.
//!
//! [`read`](mod@read) runs the host's own tools inside the namespace, [`nft`] and [`legacy`] understand what they print,
//! [`candidates`] follows the jumps from the hook, and [`Rulebook`] keeps readings for a while. Nothing here changes a
//! ruleset, nor makes a table or a module come into being.

mod candidates;
mod condition;
mod culprit;
mod legacy;
mod model;
mod nft;
mod owner;
mod read;
mod rulebook;
mod words;

#[cfg(test)]
mod properties;

pub use candidates::{Dropper, Observed, Place};
pub use culprit::{Candidate, Culprit};
pub use model::Tool;
pub use owner::owner;
pub use read::{Source, sources};
pub use rulebook::{Question, Rulebook};
