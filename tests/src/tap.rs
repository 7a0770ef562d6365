//! Tap devices: what they send goes to the test, as to a virtual machine.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::netns::Netns;

/// A tap device. It goes in `Drop`.
pub struct Tap(File);

/// Flags of a device and of a queue (include/uapi/linux/if_tun.h).
const TAP: libc::c_short = 0x0002;
const NO_HEADER: libc::c_short = 0x1000;
const MANY_QUEUES: libc::c_short = 0x0100;
const DETACH_QUEUE: libc::c_short = 0x0400;

impl Netns {
    /// A tap device with one queue that holds `packets`, set up.
    #[track_caller]
    pub fn tap(&self, device: &str, packets: u32) -> Tap {
        let tap = self.enter(|| {
            let file = File::options().read(true).write(true).open("/dev/net/tun")?;
            let tap = Tap(file);
            tap.control(libc::TUNSETIFF, device, TAP | NO_HEADER | MANY_QUEUES)?;
            Ok::<_, io::Error>(tap)
        });
        let tap = tap.unwrap_or_else(|error| panic!("tap device {device}: {error}"));
        self.run(&format!("ip link set {device} txqueuelen {packets} up"));
        tap
    }
}

impl Tap {
    /// Takes the only queue away; the device stays as it is.
    #[track_caller]
    pub fn detach(&self) {
        self.control(libc::TUNSETQUEUE, "", DETACH_QUEUE)
            .unwrap_or_else(|error| panic!("detach the queue of a tap device: {error}"));
    }

    /// Makes one ioctl that takes a name and flags.
    fn control(&self, request: libc::Ioctl, name: &str, flags: libc::c_short) -> io::Result<()> {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let argument = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
        // SAFETY: the pointer is to a live ifreq, which these requests take.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw const argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
