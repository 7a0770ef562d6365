//! netdrop.
pub mod cause;
