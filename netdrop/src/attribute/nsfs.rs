//! Asking an open namespace file what it is.

use std::ffi::c_void;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::ioctl::{self, Getter, Ioctl, IoctlOutput, Opcode};

use super::netns::NetnsId;

/// `NSFS_MAGIC` (include/uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Group of nsfs requests, `NSIO` (include/uapi/linux/nsfs.h).
const NSIO: u8 = 0xb7;

/// `NS_GET_NSTYPE`, since 4.11: the namespace's `CLONE_NEW*` flag.
const NS_GET_NSTYPE: Opcode = ioctl::opcode::none(NSIO, 3);

/// `NS_GET_ID`, since 6.18: for a network namespace, its cookie.
const NS_GET_ID: Opcode = ioctl::opcode::read::<u64>(NSIO, 13);

/// Identity of the network namespace that `path` names, a link of procfs or a mount. The file is open
/// only for as long as this takes: an open one keeps its namespace alive.
pub(super) fn identify(path: &Path) -> io::Result<NetnsId> {
    let namespace = network(path)?;
    Ok(NetnsId { inode: namespace.inode()?, cookie: namespace.cookie() })
}

/// Opens the network namespace that `path` names, if it has this inode.
pub(super) fn open(path: &Path, inode: u32) -> io::Result<OwnedFd> {
    let namespace = network(path)?;
    if namespace.inode()? == inode { Ok(namespace.0) } else { Err(other_file()) }
}

fn network(path: &Path) -> io::Result<Namespace> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let namespace = Namespace::from(openat(CWD, path, flags, Mode::empty())?)?;
    // A mount shows its own path where procfs shows `net:[…]`, so the descriptor must tell the kind.
    if namespace.kind()? == libc::CLONE_NEWNET { Ok(namespace) } else { Err(other_file()) }
}

pub(super) fn other_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace")
}

/// An open file that nsfs serves, so that nsfs requests mean what they say.
struct Namespace(OwnedFd);

impl Namespace {
    fn from(file: OwnedFd) -> io::Result<Self> {
        if fstatfs(&file)?.f_type as u64 == NSFS_MAGIC { Ok(Self(file)) } else { Err(other_file()) }
    }

    fn inode(&self) -> io::Result<u32> {
        u32::try_from(fstat(&self.0)?.st_ino).map_err(|_| other_file())
    }

    fn kind(&self) -> io::Result<i32> {
        // SAFETY: the file is one of nsfs, where this number is a request that touches no memory of ours.
        Ok(unsafe { ioctl::ioctl(self.0.as_fd(), Kind) }?)
    }

    /// 0 on kernels that do not tell it.
    fn cookie(&self) -> u64 {
        // SAFETY: NS_GET_ID writes one u64, the type given here.
        let request = unsafe { Getter::<NS_GET_ID, u64>::new() };
        // SAFETY: the file is one of nsfs, where this number means NS_GET_ID or, before 6.18, nothing.
        unsafe { ioctl::ioctl(self.0.as_fd(), request) }.unwrap_or(0)
    }
}

/// The `NS_GET_NSTYPE` request, which answers by its return value.
struct Kind;

// SAFETY: the request has no argument, mutates nothing, and its output is the return value itself.
unsafe impl Ioctl for Kind {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NS_GET_NSTYPE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_identified() {
        let own = identify(Path::new("/proc/self/ns/net")).unwrap();
        let link = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(link.to_str().unwrap(), format!("net:[{}]", own.inode));
        assert_eq!(own, identify(Path::new("/proc/thread-self/ns/net")).unwrap());
    }

    #[test]
    fn the_cookie_is_the_one_that_sockets_tell() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut cookie = 0u64;
        let mut length = size_of_val(&cookie) as libc::socklen_t;
        // SAFETY: SO_NETNS_COOKIE writes at most `length` bytes, the size of `cookie`.
        let answer = unsafe {
            libc::getsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::SOL_SOCKET,
                71, // SO_NETNS_COOKIE, since 5.14
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        let told = identify(Path::new("/proc/self/ns/net")).unwrap().cookie;
        // Kernels before 6.18 tell it to sockets alone, those before 5.14 to nobody.
        assert!(told == 0 || (answer == 0 && told == cookie), "{told} {cookie}");
        assert!(told != 0 || !kernel_is_at_least(6, 18));
    }

    fn kernel_is_at_least(major: u32, minor: u32) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }

    #[test]
    fn other_files_are_refused() {
        for other in ["/proc/self/ns/uts", "/proc/self/status", "/proc", "/dev/null", "/nonexistent"] {
            assert!(identify(Path::new(other)).is_err(), "{other}");
        }
    }
}
