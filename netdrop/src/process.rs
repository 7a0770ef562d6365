//! The process that an event is about.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::attribute::Container;

/// How it is known that a process is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEvidence {
    /// It holds the socket that the kernel named.
    Socket,
    /// It holds the socket that the kernel, asked just after, finds for the packet's addresses and ports.
    SockDiag,
    /// It made the system call that is about this.
    Call,
}

/// A process; serializes as the `process` object of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id, as netdrop sees it.
    pub pid: u32,
    /// Its name, `/proc/PID/comm`: it chooses that itself.
    pub comm: String,
    /// How it is known.
    pub evidence: ProcessEvidence,
    /// Processes that hold the socket, this one among them; nothing where none was looked for.
    pub owners: Option<u32>,
    /// What it does now, letter and word, `D uninterruptible`: of the thread that is stuck most. Nothing where the
    /// cause does not depend on it.
    pub state: Option<&'static str>,
    /// The kernel function that this thread waits in.
    pub wchan: Option<String>,
    /// The thread's id, where it is not the first one.
    pub thread: Option<u32>,
    /// The container that its cgroup names.
    #[serde(serialize_with = "shared")]
    pub container: Option<Arc<Container>>,
}

fn shared<S: Serializer>(container: &Option<Arc<Container>>, serializer: S) -> Result<S::Ok, S::Error> {
    container.as_deref().serialize(serializer)
}

impl Process {
    /// A process of which no more is known.
    #[must_use]
    pub const fn new(pid: u32, comm: String, evidence: ProcessEvidence) -> Self {
        Self { pid, comm, evidence, owners: None, state: None, wchan: None, thread: None, container: None }
    }
}
