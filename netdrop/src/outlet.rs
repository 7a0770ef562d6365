//! Standard output as a live run needs it: a reader that stops reading must not keep signals from being
//! heard, and one that has gone is no error.

use std::io;

use bytes::BytesMut;
use rustix::fs::FileType;
use tokio::io::{AsyncWriteExt as _, Interest, Stdout, unix::AsyncFd};

use crate::signals::Signals;

/// Standard output.
pub struct Outlet {
    stdout: Stdout,
    pipe: Option<AsyncFd<io::Stdout>>,
    /// What is to be written next.
    pub buffer: BytesMut,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is out.
    All,
    /// A second signal came while the reader kept us waiting: the rest is given up.
    Abandoned,
    /// Nobody reads any more.
    Closed,
}

impl Outlet {
    /// Opens standard output. Needs a running tokio reactor.
    #[must_use]
    pub fn new() -> Self {
        Self { stdout: tokio::io::stdout(), pipe: watched_pipe(), buffer: BytesMut::new() }
    }

    /// Writes the buffer out, however long the reader takes. A first signal is noted and the write goes on,
    /// so that no line is cut; a second one gives up.
    ///
    /// # Errors
    ///
    /// When writing fails for another reason than a closed pipe.
    pub async fn flush(&mut self, signals: &mut Signals) -> io::Result<Written> {
        if self.buffer.is_empty() {
            return Ok(Written::All);
        }
        let bytes = self.buffer.split();
        let stdout = &mut self.stdout;
        let write = async {
            stdout.write_all(&bytes).await?;
            stdout.flush().await
        };
        tokio::pin!(write);
        let result = loop {
            tokio::select! {
                result = &mut write => break result,
                () = signals.next() => {
                    if signals.caught() > 1 {
                        return Ok(Written::Abandoned);
                    }
                }
            }
        };
        match result {
            Ok(()) => Ok(Written::All),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
            Err(error) => Err(error),
        }
    }

    /// Waits until nobody reads any more; for ever where standard output is no pipe.
    pub async fn closed(&self) {
        match &self.pipe {
            Some(pipe) => {
                let _any_state_means_closed = pipe.ready(Interest::ERROR).await;
            }
            None => std::future::pending().await,
        }
    }
}

impl Default for Outlet {
    fn default() -> Self {
        Self::new()
    }
}

/// Standard output, watched for its reader's end, if it is a pipe.
fn watched_pipe() -> Option<AsyncFd<io::Stdout>> {
    let stdout = io::stdout();
    let stat = rustix::fs::fstat(&stdout).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return None;
    }
    // SAFETY: `Stdout` stands for descriptor 1, which stays open and the same for the whole program.
    unsafe { AsyncFd::register_with_interest(stdout, Interest::ERROR) }.ok()
}
