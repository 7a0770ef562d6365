//! SIGINT and SIGTERM: the first ends a run with its summary, the second ends the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a run.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    caught: u32,
}

impl Signals {
    /// Takes over both signals.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            caught: 0,
        })
    }

    /// Waits for either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.caught += 1;
    }

    /// Signals so far.
    #[must_use]
    pub fn caught(&self) -> u32 {
        self.caught
    }
}
