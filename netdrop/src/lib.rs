//! netdrop.

pub mod attribute;
pub mod kernel;
pub mod packet;
