//! The end of a guest, and how the host hears of it.

use netdrop_guest::plan;

/// Ends the machine with `code` for qemu's status. Does not return.
pub(crate) fn off(code: u8) -> ! {
    rustix::fs::sync();
    leave(plan::exit_byte(code));
    // There is no such device: the host will say that this guest ended without a code.
    // SAFETY: the call ends the machine; file systems in memory have nothing to lose.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        std::thread::park();
    }
}

/// Writes to the device that makes qemu exit. Debian's kernels have no /dev/port.
#[cfg(target_arch = "x86_64")]
fn leave(byte: u8) {
    let port = libc::c_ulong::from(plan::EXIT_PORT);
    // SAFETY: grants this process one port, which nothing else uses.
    if unsafe { libc::ioperm(port, 1, 1) } != 0 {
        eprintln!("netdrop-guest: no access to I/O port {port:#x}: {}", std::io::Error::last_os_error());
        return;
    }
    // SAFETY: ioperm() granted the port; the instruction touches neither memory nor stack.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") plan::EXIT_PORT, in("al") byte, options(nomem, nostack));
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn leave(_byte: u8) {
    eprintln!("netdrop-guest: there is no exit device on this architecture");
}
