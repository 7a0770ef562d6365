//! netdrop
pub mod attribute;
pub mod bpf;
pub mod decode;
pub mod filter;
pub mod kernel;
