//! The kernel's tracing files (tracefs), also where they are not mounted: then a thread mounts them for itself, where
//! nobody else sees it, and its mount ends with the thread.

use std::{fs, io, path::Path, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where tracefs is mounted, as aya looks for it.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Ends of system calls that netdrop can observe, without `sys_exit_`.
const CALLS: [&str; 5] = ["bind", "listen", "connect", "sendto", "sendmsg"];

/// Why there are no tracing files.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// Not mounted, and not to be mounted.
    #[error(
        "tracefs is not mounted, and this process cannot mount it for itself: {0}; `mount -t tracefs tracefs \
         /sys/kernel/tracing` makes it available"
    )]
    Mount(#[source] io::Error),
    /// A file is missing or unreadable.
    #[error("cannot read the kernel's description of {event}: {source}")]
    Read {
        /// The tracepoint.
        event: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not say what netdrop needs.
    #[error("the kernel's description of {0} has no result that netdrop can read")]
    Format(String),
    /// The thread did not come to its end.
    #[error("the thread that reads tracefs did not run: {0}")]
    Thread(#[source] io::Error),
}

/// Runs `work` where tracefs is mounted.
///
/// # Errors
///
/// When it is not mounted, and this process may not mount it.
pub fn within<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TracefsError> {
    if PLACES.iter().any(|place| Path::new(place).join("events").is_dir()) {
        return Ok(work());
    }
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("tracefs".to_owned()).spawn_scoped(scope, || {
            mount_for_this_thread().map_err(TracefsError::Mount)?;
            Ok(work())
        });
        let joined = inside.map_err(TracefsError::Thread)?.join();
        joined.unwrap_or_else(|_| Err(TracefsError::Thread(io::Error::other("it panicked"))))
    })
}

fn mount_for_this_thread() -> io::Result<()> {
    // SAFETY: descriptors stay shared; what is no longer shared is mounts, root and working directory, which nobody
    // else expects this thread to have in common with them.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?;
    // Else the mount would show wherever the old mounts are shared with.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", PLACES[0], "tracefs", flags, None)?;
    Ok(())
}

/// Byte offset of the result in the records of `syscalls:sys_exit_*`, the same for all that netdrop observes.
///
/// # Errors
///
/// When the kernel does not say.
pub fn exit_result() -> Result<u16, TracefsError> {
    within(|| {
        let mut offset = None;
        for call in CALLS {
            let event = format!("sys_exit_{call}");
            let text =
                format(&event).map_err(|source| TracefsError::Read { event: event.clone(), source })?;
            let here = result_offset(&text).filter(|here| offset.is_none_or(|earlier| earlier == *here));
            offset = Some(here.ok_or(TracefsError::Format(event))?);
        }
        offset.ok_or_else(|| TracefsError::Format("sys_exit_*".to_owned()))
    })?
}

fn format(event: &str) -> io::Result<String> {
    let path = |place: &&str| Path::new(place).join("events/syscalls").join(event).join("format");
    let found = PLACES.iter().map(path).find(|path| path.exists());
    fs::read_to_string(found.ok_or(io::ErrorKind::NotFound)?)
}

/// The offset of `long ret` (`man 2 perf_event_open`, Documentation/trace/events.rst).
fn result_offset(format: &str) -> Option<u16> {
    let line = format.lines().find(|line| line.trim_start().starts_with("field:long ret;"))?;
    let number = |name: &str| line.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse().ok());
    (number("size:")? == 8).then(|| number("offset:")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: sys_exit_connect\nID: 2229\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n\nprint fmt: \"0x%lx\", REC->ret\n";

    #[test]
    fn the_result_is_where_the_format_puts_it() {
        assert_eq!(result_offset(FORMAT), Some(16));
        assert_eq!(result_offset(&FORMAT.replace("offset:16", "offset:24")), Some(24));
        assert_eq!(result_offset(&FORMAT.replace("size:8;", "size:4;")), None);
        assert_eq!(result_offset(&FORMAT.replace("long ret", "long id")), None);
        assert_eq!(result_offset(""), None);
    }

    #[test]
    fn nothing_stays_mounted() {
        let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let _may_lack_the_right = exit_result();
        assert_eq!(mounts(), before);
    }
}
