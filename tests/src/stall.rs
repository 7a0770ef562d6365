//! Memory that holds up whoever touches it, so that a system call stops in the middle, with its locks held.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::{ptr, slice};

use crate::wait;

/// Bytes of a [`Page`]: one page on every machine whose pages are not larger.
const LEN: usize = 4096;

/// A page of memory that has never been touched.
pub struct Page(NonNull<u8>);

// SAFETY: the memory is only ever read, and belongs to no thread.
unsafe impl Sync for Page {}

impl Page {
    /// Maps a page.
    #[track_caller]
    pub fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of the program.
        let address = unsafe { libc::mmap(ptr::null_mut(), LEN, libc::PROT_READ, flags, -1, 0) };
        assert!(address != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self(NonNull::new(address.cast()).expect("a mapping is not at 0"))
    }

    /// The page's bytes. Whoever reads them waits as long as a [`Stall`] stands.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is as long as this, readable, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), LEN) }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), LEN) };
    }
}

/// Stalls the first read of a page until it is dropped.
pub struct Stall {
    faults: File,
}

/// `struct uffdio_api` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::Ioctl = libc::_IOWR::<Api>(0xaa, 0x3f);
const UFFDIO_REGISTER: libc::Ioctl = libc::_IOWR::<Register>(0xaa, 0);
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// Bytes of `struct uffd_msg`.
const MESSAGE: usize = 32;

impl Stall {
    /// Stalls reads of `page`; `None` on a kernel that has no userfaultfd.
    #[track_caller]
    pub fn new(page: &Page) -> Option<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "userfaultfd: {error}");
            return None;
        }
        // SAFETY: the kernel has just given this descriptor, and nobody else has it.
        let faults = unsafe { File::from_raw_fd(fd as i32) };
        ioctl(&faults, UFFDIO_API, &mut Api { api: UFFD_API, features: 0, ioctls: 0 });
        let start = page.0.as_ptr() as u64;
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        ioctl(&faults, UFFDIO_REGISTER, &mut Register { start, len: LEN as u64, mode, ioctls: 0 });
        Some(Self { faults })
    }

    /// Waits until somebody is held up.
    #[track_caller]
    pub fn await_reader(&self) {
        wait::until("somebody who reads the page", || {
            (&self.faults).read_exact(&mut [0; MESSAGE]).map_err(|error| error.to_string())
        });
    }
}

/// An ioctl that reads and writes a structure.
#[track_caller]
fn ioctl<T>(file: &File, request: libc::Ioctl, argument: &mut T) {
    // SAFETY: each request is made with a pointer to the live structure that belongs to it.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request, ptr::from_mut(argument)) };
    assert_eq!(answer, 0, "ioctl {request:#x} on a userfaultfd: {}", io::Error::last_os_error());
}
