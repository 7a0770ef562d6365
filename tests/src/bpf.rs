//! BPF programs of a scenario's own: each counts the packets it sees and answers all of them alike.
//!
//! They are made from five instructions and loaded with bpf(2), so that no compiler or loader is needed.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::netns::Netns;
use crate::sockopt;

/// What a program judges (enum bpf_prog_type).
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// What a socket receives.
    SocketFilter = 1,
    /// What a device receives.
    Xdp = 6,
    /// What the sockets of a cgroup send or receive.
    CgroupSkb = 8,
}

/// Answers of an XDP program (enum xdp_action).
pub mod xdp {
    /// The program failed.
    pub const ABORTED: i32 = 0;
    /// Drop the packet.
    pub const DROP: i32 = 1;
    /// Send it to the device that the program chose.
    pub const REDIRECT: i32 = 4;
}

/// Where an XDP program runs (include/uapi/linux/if_link.h).
#[derive(Clone, Copy, Debug)]
pub enum XdpMode {
    /// On any device, once the packet is a socket buffer.
    Generic = 1 << 1,
    /// In the device's driver.
    Native = 1 << 2,
}

/// Which packets of a cgroup's sockets (enum bpf_attach_type).
#[derive(Clone, Copy, Debug)]
pub enum CgroupHook {
    /// Received.
    Ingress = 0,
    /// Sent.
    Egress = 1,
}

/// Commands of bpf(2) (enum bpf_cmd).
#[derive(Clone, Copy, Debug)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    ProgLoad = 5,
    LinkCreate = 28,
}

/// The attach type of XDP (enum bpf_attach_type).
const ATTACH_XDP: u32 = 37;

/// Lets this process lock as much memory as it wants: before 5.11 the limit applies to maps and programs.
fn lift_memory_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    // Refused without CAP_SYS_RESOURCE. Where the limit does apply, the map says so.
    let _ = setrlimit(Resource::Memlock, unlimited);
}

/// A loaded program and its counter.
pub struct Program {
    program: OwnedFd,
    packets: OwnedFd,
}

/// A program in its place. It is detached in `Drop`.
pub struct Link {
    _link: OwnedFd,
}

impl Program {
    /// Loads a program that counts each packet and returns `answer`.
    #[track_caller]
    pub fn load(kind: Kind, answer: i32) -> Self {
        lift_memory_limit();
        let packets = counter().unwrap_or_else(|error| panic!("BPF map: {error}"));
        let instructions = [
            // r1 = address of the counter, in two slots
            instruction(0x18, 1, 2, packets.as_raw_fd()),
            instruction(0, 0, 0, 0),
            // r2 = 1; *r1 += r2, atomically
            instruction(0xb7, 2, 0, 1),
            instruction(0xdb, 1, 2, 0),
            // return answer
            instruction(0xb7, 0, 0, answer),
            instruction(0x95, 0, 0, 0),
        ];
        const LICENCE: &CStr = c"Dual MIT/GPL";
        let load = ProgLoad {
            kind: kind as u32,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            licence: LICENCE.as_ptr() as u64,
        };
        let program = bpf_fd(Command::ProgLoad, &load)
            .unwrap_or_else(|error| panic!("load a {kind:?} program: {error}"));
        Self { program, packets }
    }

    /// Packets it has seen.
    #[track_caller]
    pub fn packets(&self) -> u64 {
        let (key, mut value) = (0u32, 0u64);
        let lookup = MapLookup {
            map: self.packets.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const key) as u64,
            value: (&raw mut value) as u64,
        };
        bpf(Command::MapLookup, &lookup).unwrap_or_else(|error| panic!("read a BPF map: {error}"));
        value
    }

    /// Attaches it to a device; `Err` where the driver cannot run XDP.
    pub fn attach_xdp(&self, netns: &Netns, device: &str, mode: XdpMode) -> io::Result<Link> {
        // The kernel looks for the device in the caller's namespace.
        netns.enter(|| {
            let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let target = name_to_index(any.as_fd(), device)?;
            self.attach(target, ATTACH_XDP, mode as u32)
        })
    }

    /// Attaches it to a cgroup, whose directory `cgroup` is.
    #[track_caller]
    pub fn attach_cgroup(&self, cgroup: BorrowedFd<'_>, hook: CgroupHook) -> Link {
        self.attach(cgroup.as_raw_fd() as u32, hook as u32, 0)
            .unwrap_or_else(|error| panic!("attach a program to a cgroup: {error}"))
    }

    /// Makes it the filter of a socket, for as long as that lives.
    #[track_caller]
    pub fn attach_socket(&self, socket: &impl AsFd) {
        sockopt::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, self.program.as_raw_fd());
    }

    fn attach(&self, target: u32, kind: u32, flags: u32) -> io::Result<Link> {
        let create = LinkCreate { program: self.program.as_raw_fd() as u32, target, kind, flags };
        Ok(Link { _link: bpf_fd(Command::LinkCreate, &create)? })
    }
}

/// An array of one 64-bit number.
fn counter() -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    bpf_fd(Command::MapCreate, &MapCreate { kind: ARRAY, key_size: 4, value_size: 8, entries: 1 })
}

/// One BPF instruction (struct bpf_insn) without an offset.
fn instruction(code: u8, to: u8, from: u8, value: i32) -> [u8; 8] {
    let value = value.to_ne_bytes();
    // Bit fields are laid out from the first bit: in the low half on little-endian machines.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    [code, registers, 0, 0, value[0], value[1], value[2], value[3]]
}

/// What bpf(2) takes for a command: the front of its member of `union bpf_attr`.
trait Attr {}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct MapLookup {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
}

impl Attr for MapCreate {}
impl Attr for MapLookup {}
impl Attr for ProgLoad {}
impl Attr for LinkCreate {}

/// Calls bpf(2).
fn bpf<A: Attr>(command: Command, attr: &A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the front of what the command takes, without padding, and of the length given; what
    // its addresses point to lives in the caller until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_ref(attr), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Calls bpf(2) for a command that makes a file descriptor.
fn bpf_fd<A: Attr>(command: Command, attr: &A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel made this descriptor in the call above, for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
