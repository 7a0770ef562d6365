//! Where output goes, as a live run needs it: a reader that stops reading must not keep signals from being
//! heard, and one that has gone is no error.

use std::{fmt, fs::File, io, path::PathBuf};

use bytes::BytesMut;
use rustix::fs::FileType;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, Interest, unix::AsyncFd};

use crate::signals::Signals;

/// Where output goes.
#[derive(Debug)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file open for writing, from its start: what it held is replaced.
    File(File, PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
            Self::File(_, path) => write!(f, "{}", path.display()),
        }
    }
}

/// A target while it is written to.
pub struct Outlet {
    name: String,
    writer: Box<dyn AsyncWrite + Unpin>,
    pipe: Option<AsyncFd<io::Stdout>>,
    file: Option<WrittenPart>,
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
    /// One of several outputs failed, and is given up.
    Failed,
}

impl Outlet {
    /// Standard output. Needs a running tokio reactor.
    #[must_use]
    pub fn stdout() -> Self {
        let name = Target::Stdout.to_string();
        Self { pipe: watched_pipe(), ..Self::with(name, tokio::io::stdout()) }
    }

    /// Opens a target. Needs a running tokio reactor.
    ///
    /// # Errors
    ///
    /// When what a file holds cannot be removed.
    pub fn open(target: Target) -> io::Result<Self> {
        let name = target.to_string();
        match target {
            Target::Stdout => Ok(Self::stdout()),
            Target::Stderr => Ok(Self::with(name, tokio::io::stderr())),
            Target::File(file, _) => {
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                let part = WrittenPart { file: file.try_clone()?, length: 0 };
                Ok(Self { file: Some(part), ..Self::with(name, tokio::fs::File::from_std(file)) })
            }
        }
    }

    fn with(name: String, writer: impl AsyncWrite + Unpin + 'static) -> Self {
        Self { name, writer: Box::new(writer), pipe: None, file: None, buffer: BytesMut::new() }
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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
        let writer = &mut self.writer;
        let write = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
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
        if let Some(part) = &mut self.file {
            part.wrote(bytes.len(), &result);
        }
        match result {
            Ok(()) => Ok(Written::All),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
            Err(error) => Err(error),
        }
    }

    /// Whether [`Outlet::closed`] can ever tell.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits until nobody reads any more; for ever where this is not standard output or no pipe.
    pub async fn closed(&self) {
        match &self.pipe {
            Some(pipe) => {
                let _any_state_means_closed = pipe.ready(Interest::ERROR).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// The part of a file that holds whole buffers. What a failed write left behind is cut off: half a packet at its
/// end would make the whole file look broken.
struct WrittenPart {
    file: File,
    length: u64,
}

impl WrittenPart {
    fn wrote(&mut self, length: usize, result: &io::Result<()>) {
        match result {
            Ok(()) => self.length += length as u64,
            // A device or pipe cannot be cut; the error that is under way says what is wrong.
            Err(_) => drop(self.file.set_len(self.length)),
        }
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
