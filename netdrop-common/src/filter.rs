//! Filter settings the kernel side reads from rodata. A filter that is off is a constant 0, and the
//! verifier removes its code.

/// Numbers or ranges one `--port` can hold.
pub const MAX_PORT_RANGES: usize = 16;

/// Kernel text ranges one `--location` can hold: a function and its `.cold` or `.part` pieces.
pub const MAX_LOCATIONS: usize = 8;

/// Functions that run netfilter hooks: `nf_hook_slow()`, and those that go on with a packet of NFQUEUE.
pub const NETFILTER_TEXTS: usize = 3;

/// Reasons one `--reason` can hold.
pub const MAX_REASONS: usize = 16;

/// An inclusive range of ports, packed so that one 32-bit load reads both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortRange {
    /// Lowest port.
    pub low: u16,
    /// Highest port.
    pub high: u16,
}

/// A CIDR in network order; IPv4 uses the first word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cidr {
    /// Network address, bits outside the mask 0.
    pub address: [u32; 4],
    /// Mask.
    pub mask: [u32; 4],
}

/// A range of kernel text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TextRange {
    /// Address of the function's first byte.
    pub start: u64,
    /// Address after its last byte.
    pub end: u64,
}

/// How `--reason` is meant.
pub mod reason_mode {
    /// No such filter.
    pub const OFF: u8 = 0;
    /// Only the listed reasons.
    pub const INCLUDE: u8 = 1;
    /// All but the listed reasons.
    pub const EXCLUDE: u8 = 2;
}

/// [`Cidr`] and port filters: which end of the packet must match.
pub mod host {
    /// Source or destination.
    pub const EITHER: usize = 0;
    /// Source.
    pub const SOURCE: usize = 1;
    /// Destination.
    pub const DESTINATION: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 3;
}
