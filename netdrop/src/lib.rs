//! netdrop.

pub mod attribute;
pub mod kernel;
