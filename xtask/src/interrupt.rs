//! Ctrl-C and its relatives: noted, so that demo and bench can tidy up before they end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::{SIGHUP, SIGINT, SIGTERM};

/// Set by the handler, read by whoever waits; nothing else is published by it.
static SET: AtomicBool = AtomicBool::new(false);

/// From now on a signal is noted instead of ending the process. Child processes are not affected.
#[derive(Clone, Copy)]
pub(crate) struct Interrupt;

impl Interrupt {
    /// Takes over the signals that ask a program to end.
    pub(crate) fn catch() -> Self {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let handler: extern "C" fn(libc::c_int) = note;
            // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        Self
    }

    /// Whether a signal has come.
    pub(crate) fn is_set(&self) -> bool {
        SET.load(Ordering::Relaxed)
    }

    /// Waits for `pause`, or until a signal comes.
    pub(crate) fn wait(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.is_set() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

extern "C" fn note(_signal: libc::c_int) {
    SET.store(true, Ordering::Relaxed);
}
