//! The contract between `cargo xtask vm` and the program that runs first in its guests: a plan goes in with
//! the initrd, frames come back over a serial port.

pub mod frame;
pub mod plan;
