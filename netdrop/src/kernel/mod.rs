//! The running kernel: its symbols and what it allows this process.

pub mod capabilities;
pub mod symbols;
