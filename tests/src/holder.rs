//! Processes that hold a socket and do nothing with it: asleep, stopped, or where no signal wakes them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

use crate::wait;

/// The name of these processes.
const NAME: &str = "ndt-holder";

/// A process whose only open file is a socket; killed and reaped in `Drop`.
pub struct Holder {
    pid: Pid,
}

impl Holder {
    /// One that sleeps. The socket stays open here as well, until the scenario drops it.
    #[track_caller]
    pub fn sleeping(socket: &impl AsFd) -> Self {
        Self::start(socket, false).await_state('S')
    }

    /// One that is stopped.
    #[track_caller]
    pub fn stopped(socket: &impl AsFd) -> Self {
        let holder = Self::sleeping(socket);
        holder.signal(Signal::STOP);
        holder.await_state('T')
    }

    /// One that waits for a child of its own in vfork(), which is uninterruptible sleep.
    #[track_caller]
    pub fn uninterruptible(socket: &impl AsFd) -> Self {
        Self::start(socket, true).await_state('D')
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    #[track_caller]
    fn start(socket: &impl AsFd, vfork: bool) -> Self {
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: the child makes system calls and nothing else, as a copy of one thread of many must.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            hold(socket, vfork);
        }
        let pid = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0);
        Self { pid: pid.unwrap_or_else(|| panic!("fork: {}", io::Error::last_os_error())) }
    }

    /// Waits until it has no other file open and is in this state.
    #[track_caller]
    fn await_state(self, letter: char) -> Self {
        wait::until(&format!("{NAME} in state {letter}"), || {
            let stat = fs::read_to_string(self.file("stat")).unwrap_or_default();
            if stat.contains(&format!("({NAME}) {letter} ")) { Ok(()) } else { Err(stat) }
        });
        self
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {NAME}: {error}"));
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.id())
    }

    /// Requires that an event names it, how it is known, how many processes share the socket, and its state.
    #[track_caller]
    pub fn expect(&self, event: &Value, evidence: &str, owners: u32, state: &str) {
        let process = &event["process"];
        // `0` where it waits nowhere or the kernel hides it.
        let wchan = fs::read_to_string(self.file("wchan")).ok().filter(|name| name != "0");
        let expected = json!({"pid": self.id(), "comm": NAME, "evidence": evidence, "owners": owners,
            "state": state, "wchan": wchan, "thread": null, "container": null});
        assert_eq!(*process, expected, "{event}");
        for group in ["listen", "socket"] {
            let told = &event["evidence"][group];
            if !told.is_null() {
                assert_eq!(told["owner_state"], state, "{event}");
                assert_eq!(told["owner_wchan"], json!(wchan), "{event}");
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// What the child does, for ever.
fn hold(socket: i32, vfork: bool) -> ! {
    const NAME_Z: &std::ffi::CStr = c"ndt-holder";
    die_with_parent();
    call(libc::SYS_dup3, [socket.into(), 0, 0]);
    call(libc::SYS_close_range, [1, u32::MAX.into(), 0]);
    call(libc::SYS_prctl, [libc::PR_SET_NAME.into(), NAME_Z.as_ptr() as libc::c_long, 0]);
    // Without CLONE_VM: the child has memory of its own, and its parent waits all the same.
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    if vfork && call(libc::SYS_clone, [flags.into(), 0, 0]) == 0 {
        die_with_parent();
        call(libc::SYS_close_range, [0, u32::MAX.into(), 0]);
    }
    loop {
        // SAFETY: the call takes nothing.
        unsafe { libc::pause() };
    }
}

fn die_with_parent() {
    call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0]);
}

/// A system call of [`hold`].
fn call(number: libc::c_long, [first, second, third]: [libc::c_long; 3]) -> libc::c_long {
    // SAFETY: of what `hold` asks for, the kernel reads one name, which lives for ever, and writes nothing. The rest
    // of the arguments is 0, no address.
    unsafe { libc::syscall(number, first, second, third, 0, 0) }
}
