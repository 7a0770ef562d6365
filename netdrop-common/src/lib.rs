//! The contract between netdrop's kernel side and its userspace.
//!
//! Everything here is plain data with a fixed layout: integers and byte arrays, explicit padding, no
//! enums with data, no references. Both sides compile the same definitions, and the `const` asserts
//! beside each type refuse a layout that would differ between them.
#![no_std]

pub mod cell;
pub mod codes;
pub mod event;
pub mod facts;
pub mod fields;
pub mod filter;
pub mod gather;
pub mod harm;
pub mod key;
pub mod refusal;
pub mod witness;
