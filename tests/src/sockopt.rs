//! Options of sockets for which there is no safe call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option to a value of a plain type, as `setsockopt` takes it.
#[track_caller]
pub fn set<T: Copy>(socket: &impl AsFd, level: i32, option: i32, value: T) {
    let set = try_set(socket, level, option, value);
    set.unwrap_or_else(|error| panic!("option {option} of level {level}: {error}"));
}

/// The same, where the kernel may not know the option.
pub fn try_set<T: Copy>(socket: &impl AsFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live value, and `len` is its size.
    let answer = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), len)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a filter that refuses every packet (SO_ATTACH_FILTER).
#[track_caller]
pub fn refuse_everything(socket: &impl AsFd) {
    // BPF_RET | BPF_K: take 0 bytes of the packet.
    let mut code = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut code };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program);
}

/// Packets that the kernel dropped for a socket, as `d` in `ss -m` says.
#[track_caller]
pub fn drops(socket: &impl AsFd) -> u64 {
    // SK_MEMINFO_DROPS is the last of these (include/uapi/linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut values = [0u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the pointers are to live values, and `len` is the size of the first.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(answer, 0, "SO_MEMINFO: {}", io::Error::last_os_error());
    assert_eq!(len as usize, size_of_val(&values), "SO_MEMINFO has no drops");
    values[DROPS].into()
}
