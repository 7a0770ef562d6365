//! netdrop.
pub mod cause;
pub mod cli;
