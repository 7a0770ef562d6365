//! netdrop.

pub mod kernel;
