//! What a guest is to do, written by the host into its initrd.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the plan lies in the guest.
pub const PATH: &str = "/plan.json";

/// The directory that programs of this project lie in.
pub const PROGRAMS: &str = "/netdrop";

/// The serial port that carries frames; the kernel's console is the first one.
pub const PORT: &str = "/dev/ttyS1";

/// I/O port of qemu's `isa-debug-exit`: a byte `v` written to it ends qemu with status `2 v + 1`.
pub const EXIT_PORT: u16 = 0x501;

/// Everything that a guest does before it ends.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// Run one after the other, also after one has failed.
    pub steps: Vec<Step>,
}

/// One program to run as root.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables beside PATH and HOME.
    pub variables: BTreeMap<String, String>,
    /// Seconds after which the step is killed.
    pub timeout: u64,
}

/// The byte for [`EXIT_PORT`] that stands for an exit code. Seven bits of it reach qemu's status, so some codes
/// share one; success shares it with none. Never 0, because a qemu that ends for another reason has status
/// 0 or 1.
pub fn exit_byte(code: u8) -> u8 {
    if code == 0 { 1 } else { 2 + code % 126 }
}

/// The status that qemu ends with after the guest's exit code.
pub fn qemu_status(code: u8) -> i32 {
    i32::from(exit_byte(code)) << 1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_tells_exit_codes_apart() {
        assert_eq!(qemu_status(0), 3);
        assert_eq!(qemu_status(1), 7);
        assert_eq!(qemu_status(101), 207);
        for code in 1..=u8::MAX {
            assert_ne!(qemu_status(code), qemu_status(0), "{code}");
            assert!((3..=255).contains(&qemu_status(code)), "{code}");
        }
    }
}
