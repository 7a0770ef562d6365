//! The sender: a thread pinned to one CPU, on which its datagrams are also dropped.
//!
//! Loopback delivers in the softirq that ends each send, on the CPU and in the thread that sends. So the
//! thread's CPU time is the cost of sending, of dropping and of whoever watches the drop.

use std::{
    array,
    io::IoSlice,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    io::Errno,
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg},
    time::{ClockId, clock_gettime},
};

use super::cpus;
use crate::interrupt::Interrupt;

/// Datagrams handed over with one system call.
const BATCH: usize = 64;

/// How often the steady sender sends.
const TICK: Duration = Duration::from_millis(1);

/// A sender that was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Datagrams.
    pub(super) count: u64,
    /// CPU time of the thread.
    pub(super) cpu: Duration,
    /// From the first datagram to the last.
    pub(super) elapsed: Duration,
}

/// Sends `count` datagrams as fast as one thread can; fewer when interrupted.
pub(super) fn burst(socket: &UdpSocket, count: u64, interrupt: &Interrupt) -> Result<Sent> {
    pinned(|| {
        let mut left = count;
        measured(|| {
            while left > 0 && !interrupt.is_set() {
                left -= send(socket, left)?;
            }
            Ok(count - left)
        })
    })
}

/// Sends `rate` datagrams a second for as long as `lasting`, evenly.
pub(super) fn steady(
    socket: &UdpSocket,
    rate: u64,
    lasting: Duration,
    interrupt: &Interrupt,
) -> Result<Sent> {
    pinned(|| {
        measured(|| {
            let start = Instant::now();
            let mut sent = 0;
            loop {
                let elapsed = start.elapsed().min(lasting);
                let due = (rate as f64 * elapsed.as_secs_f64()) as u64;
                while sent < due {
                    sent += send(socket, due - sent)?;
                }
                if elapsed == lasting || interrupt.is_set() {
                    return Ok(sent);
                }
                thread::sleep(TICK);
            }
        })
    })
}

/// Runs `work`, which returns how many datagrams it sent, and takes the time.
fn measured(work: impl FnOnce() -> Result<u64>) -> Result<Sent> {
    let (start, cpu) = (Instant::now(), thread_cpu());
    let count = work()?;
    Ok(Sent { count, cpu: thread_cpu().saturating_sub(cpu), elapsed: start.elapsed() })
}

/// Hands over one batch, of `most` at most; returns how many datagrams the kernel took.
fn send(socket: &UdpSocket, most: u64) -> Result<u64> {
    let payload = [IoSlice::new(b"netdrop bench")];
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] = array::from_fn(|_| Default::default());
    let mut messages = controls.each_mut().map(|control| MMsgHdr::new(&payload, control));
    let batch = most.min(BATCH as u64) as usize;
    match sendmmsg(socket, &mut messages[..batch], SendFlags::empty()) {
        Ok(sent) => Ok(sent as u64),
        Err(Errno::INTR | Errno::NOBUFS) => Ok(0),
        Err(error) => Err(error).context("cannot send"),
    }
}

/// Runs `work` on a thread of its own, on the first CPU this process may use.
fn pinned<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let first = cpus::allowed()?[0];
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            cpus::pin(first)?;
            work()
        });
        sender.join().map_err(|_| anyhow!("the sender panicked"))?
    })
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A clock that starts at 0.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
