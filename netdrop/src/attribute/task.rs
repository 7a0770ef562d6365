//! What a process does at this moment: the states of its threads, and where the one waits that is stuck most.

use std::fs;
use std::path::Path;

use super::untrusted;

/// Threads of a process that are looked at.
const THREADS: usize = 256;

/// Bytes of a thread's `stat`; its name is at most 15 of them.
const STAT_LIMIT: usize = 4096;

/// Bytes of `wchan`: the name of a kernel function (KSYM_NAME_LEN, include/linux/kallsyms.h).
const WCHAN_LIMIT: usize = 512;

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doing {
    /// Its state.
    pub(super) state: TaskState,
    /// The kernel function in which it waits; nothing where it does not, or where the kernel hides it.
    pub(super) wchan: Option<String>,
    /// The thread that this is about, where it is not the first.
    pub(super) thread: Option<u32>,
}

/// A task's state, the stuck ones first: who holds a socket and cannot run explains why it is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TaskState {
    /// Waits for a device or a file system, and for no signal.
    Uninterruptible,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Has ended; its parent has not asked for that.
    Zombie,
    /// Waits for something to do.
    Sleeping,
    /// A kernel thread that waits.
    Idle,
    /// Runs, or could.
    Running,
}

impl TaskState {
    /// By its letter (`man 5 proc_pid_stat`).
    const fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'D' => Self::Uninterruptible,
            b'T' => Self::Stopped,
            b't' => Self::Traced,
            b'Z' => Self::Zombie,
            b'S' => Self::Sleeping,
            b'I' => Self::Idle,
            b'R' => Self::Running,
            _ => return None,
        })
    }

    /// Letter and word.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Uninterruptible => "D uninterruptible",
            Self::Stopped => "T stopped",
            Self::Traced => "t traced",
            Self::Zombie => "Z zombie",
            Self::Sleeping => "S sleeping",
            Self::Idle => "I idle",
            Self::Running => "R running",
        }
    }
}

/// What the process does; nothing when it has ended or is closed to us.
pub(super) fn doing(proc_root: &Path, pid: u32) -> Option<Doing> {
    let tasks = proc_root.join(format!("{pid}/task"));
    let threads = fs::read_dir(&tasks).ok()?.flatten().take(THREADS);
    let states = threads.filter_map(|entry| {
        let thread: u32 = entry.file_name().to_str()?.parse().ok()?;
        let state = state(&untrusted::read(&tasks.join(format!("{thread}/stat")), STAT_LIMIT).ok()?)?;
        Some((state, thread))
    });
    let (state, thread) = stuck_most(pid, states)?;
    let wchan = untrusted::read(&tasks.join(format!("{thread}/wchan")), WCHAN_LIMIT).ok();
    Some(Doing {
        state,
        wchan: wchan.as_deref().and_then(function),
        thread: Some(thread).filter(|thread| *thread != pid),
    })
}

/// The thread that is stuck most; of several the first one. A first thread that has ended says nothing of a process
/// whose others go on.
fn stuck_most(pid: u32, states: impl Iterator<Item = (TaskState, u32)>) -> Option<(TaskState, u32)> {
    let mut states: Vec<_> = states.collect();
    if states.iter().any(|(state, _)| *state != TaskState::Zombie) {
        states.retain(|(state, _)| *state != TaskState::Zombie);
    }
    states.into_iter().min_by_key(|(state, thread)| (*state, *thread != pid, *thread))
}

/// The state in a `stat`: behind the name in parentheses, which may hold anything.
fn state(stat: &[u8]) -> Option<TaskState> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = stat[end + 1..].trim_ascii_start();
    TaskState::from_letter(*rest.first()?)
}

/// The function in a `wchan`, which is `0` for a task that waits nowhere or is not to be looked into.
fn function(wchan: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(wchan).ok()?.trim();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    (!name.is_empty() && name != "0" && name.bytes().all(is_name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn thread(tree: &Tree, pid: u32, thread: u32, letter: char, wchan: &str) {
        tree.file(&format!("proc/{pid}/task/{thread}/stat"), &format!("{thread} (a) D (b) {letter} 1 1 1 0"));
        tree.file(&format!("proc/{pid}/task/{thread}/wchan"), wchan);
    }

    #[test]
    fn the_thread_that_is_stuck_most_speaks_for_all() {
        let tree = Tree::new();
        thread(&tree, 10, 10, 'S', "ep_poll");
        thread(&tree, 10, 11, 'R', "0");
        let doing = |tree: &Tree| {
            let Doing { state, wchan, thread } = doing(&tree.proc_root(), 10).unwrap();
            (state.as_str(), wchan, thread)
        };
        assert_eq!(doing(&tree), ("S sleeping", Some("ep_poll".into()), None));
        thread(&tree, 10, 12, 'T', "do_signal_stop\n");
        assert_eq!(doing(&tree), ("T stopped", Some("do_signal_stop".into()), Some(12)));
        thread(&tree, 10, 13, 'D', "nfs_wait_bit_killable");
        thread(&tree, 10, 14, 'D', "0");
        assert_eq!(doing(&tree), ("D uninterruptible", Some("nfs_wait_bit_killable".into()), Some(13)));
        thread(&tree, 10, 10, 'D', "0");
        assert_eq!(doing(&tree), ("D uninterruptible", None, None));
    }

    #[test]
    fn a_first_thread_that_has_ended_is_not_the_process() {
        let tree = Tree::new();
        thread(&tree, 10, 10, 'Z', "0");
        assert_eq!(doing(&tree.proc_root(), 10).unwrap().state, TaskState::Zombie);
        thread(&tree, 10, 11, 'S', "0");
        assert_eq!(doing(&tree.proc_root(), 10).unwrap().thread, Some(11));
        assert_eq!(doing(&tree.proc_root(), 11), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(bytes: Vec<u8>) {
            let _ = (state(&bytes), function(&bytes));
        }
    }

    #[test]
    fn what_is_no_function_is_not_shown() {
        assert_eq!(function(b"rpc_wait_bit_killable.isra.0"), Some("rpc_wait_bit_killable.isra.0".into()));
        for text in [&b"0"[..], b"", b"a b", b"\x1b[31m", b"\xff"] {
            assert_eq!(function(text), None);
        }
    }
}
