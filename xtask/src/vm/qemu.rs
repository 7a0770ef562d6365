//! A virtual machine: qemu's command line, the frames it sends, and whether its two witnesses agree.

use std::{
    fs::{self, File},
    io::BufReader,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use netdrop_guest::{frame::Frame, plan};

use super::debian::Debian;
use crate::{
    command::{self, Owned},
    interrupt::Interrupt,
    privilege::find_program,
};

/// How often an interrupt is looked for.
const PAUSE: Duration = Duration::from_millis(100);

/// Lines of the console that an error shows.
const SHOWN: usize = 40;

/// What the kernel is told. `panic=-1`: a panic ends the machine at once. No mitigations, no cleared memory, no
/// audit, no randomness to wait for, no timer to calibrate, no grace period to sit out: what matters in
/// emulation is time.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0 audit=0 nokaslr \
     random.trust_cpu=on tsc=reliable no_timer_check rcupdate.rcu_expedited=1";

/// Who runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where the processor itself provides it, else TCG.
    Auto,
    /// The processor, by /dev/kvm.
    Kvm,
    /// qemu's own emulation.
    Tcg,
}

impl Accel {
    /// `Auto` resolved. A /dev/kvm alone proves nothing: of a hypervisor without hardware behind it
    /// (kvm_pvm), Debian's kernels make a machine that does not boot.
    pub(crate) fn resolve(self) -> Self {
        let usable = || {
            let open = File::options().read(true).write(true).open("/dev/kvm").is_ok();
            open && ["kvm_intel", "kvm_amd"]
                .iter()
                .any(|module| Path::new("/sys/module").join(module).exists())
        };
        match self {
            Self::Auto if usable() => Self::Kvm,
            Self::Auto => Self::Tcg,
            chosen => chosen,
        }
    }

    /// What a report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // A plain processor: for `max` the kernel picks instructions that are fast in silicon and slow in
            // emulation, such as `rep movsb`; the same work then costs a third more.
            _ => ["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
        }
    }
}

/// A machine to start.
pub(crate) struct Machine<'a> {
    /// Where qemu is, if not in PATH.
    pub(crate) debian: &'a Debian,
    /// Who runs it.
    pub(crate) accel: Accel,
    /// Processors.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// Kernel image.
    pub(crate) image: PathBuf,
    /// First file system.
    pub(crate) initrd: PathBuf,
    /// Where the kernel's console is kept.
    pub(crate) console: PathBuf,
    /// After this long the machine is killed.
    pub(crate) timeout: Duration,
}

impl Machine<'_> {
    /// Runs the machine to its end, giving every frame to `take`; returns the exit code of its plan.
    pub(crate) fn run(&self, interrupt: &Interrupt, mut take: impl FnMut(Frame) -> Result<()>) -> Result<u8> {
        let (mut qemu, frames) = self.start()?;
        let end = Instant::now() + self.timeout;
        let mut exit = None;
        loop {
            if interrupt.is_set() {
                bail!("interrupted");
            }
            if Instant::now() > end {
                let after = self.timeout.as_secs();
                return Err(self.failure(&format!("killed after {after} s; `--timeout` gives more time")));
            }
            match frames.recv_timeout(PAUSE) {
                Ok(Ok(Frame::Exit(code))) => exit = Some(code),
                Ok(Ok(frame)) => take(frame)?,
                Ok(Err(error)) => {
                    let error = error.context("the guest sends what is no message");
                    return Err(error.context(self.failure("it cannot be followed")));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = qemu.0.wait().context("cannot wait for qemu")?;
        let code = witnessed(exit, status).map_err(|what| self.failure(&what))?;
        // Kept where something is to be found in them.
        let _ = fs::remove_file(&self.console);
        let _ = fs::remove_file(self.stderr());
        Ok(code)
    }

    fn start(&self) -> Result<(Owned, Receiver<Result<Frame>>)> {
        let mut qemu = self.command()?;
        let stderr = File::create(self.stderr()).context("cannot keep what qemu says")?;
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        // SAFETY: the closure makes one system call, which is safe between fork and exec.
        unsafe {
            // An xtask that is killed takes its machines with it.
            qemu.pre_exec(|| {
                let kill = Some(rustix::process::Signal::KILL);
                Ok(rustix::process::set_parent_process_death_signal(kill)?)
            });
        }
        let child = qemu.spawn().with_context(|| format!("cannot start `{}`", command::shown(&qemu)))?;
        let mut qemu = Owned(child);
        let stdout = qemu.0.stdout.take().context("a piped stdout is missing")?;
        Ok((qemu, read_frames(stdout)))
    }

    fn command(&self) -> Result<Command> {
        const QEMU: &str = "qemu-system-x86_64";
        let mut qemu = match find_program(QEMU) {
            Some(qemu) => Command::new(qemu),
            None => {
                let mut qemu = self.debian.program(QEMU)?;
                qemu.env("QEMU_MODULE_DIR", self.debian.path("usr/lib/x86_64-linux-gnu/qemu"));
                for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                    qemu.arg("-L").arg(self.debian.path(firmware));
                }
                qemu
            }
        };
        qemu.args(["-machine", "q35"]).args(self.accel.arguments());
        qemu.arg("-smp").arg(self.cpus.to_string()).arg("-m").arg(self.memory.to_string());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // The first serial port is the console, the second one carries frames.
        qemu.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        qemu.arg("-device").arg(format!("isa-debug-exit,iobase={:#x},iosize=1", plan::EXIT_PORT));
        qemu.arg("-kernel").arg(&self.image).arg("-initrd").arg(&self.initrd);
        qemu.args(["-append", KERNEL_ARGUMENTS]);
        Ok(qemu)
    }

    fn stderr(&self) -> PathBuf {
        self.console.with_added_extension("qemu")
    }

    /// What happened, with the end of what kernel and qemu said.
    fn failure(&self, what: &str) -> anyhow::Error {
        let said = |path: &Path| {
            let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(SHOWN)..].iter().map(|line| format!("\n    {line}")).collect()
        };
        let (console, qemu): (String, String) = (said(&self.console), said(&self.stderr()));
        anyhow!("the virtual machine failed: {what}\n  end of {}:{console}{qemu}", self.console.display())
    }
}

/// The exit code, when the guest's last message and qemu's status say the same.
fn witnessed(exit: Option<u8>, status: ExitStatus) -> Result<u8, String> {
    match (exit, status.code()) {
        (Some(code), Some(status)) if plan::qemu_status(code) == status => Ok(code),
        (Some(code), _) => Err(format!("the guest says exit code {code}, but qemu ended with {status}")),
        (None, _) if status.signal().is_some() => Err(format!("qemu was killed: {status}")),
        // A panic does that: qemu's status is 0.
        (None, _) => Err(format!("the guest ended before its plan (qemu: {status})")),
    }
}

/// Reads frames on a thread, until the stream ends or makes no sense.
fn read_frames(stdout: ChildStdout) -> Receiver<Result<Frame>> {
    let (send, frames) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        while let Some(frame) = Frame::read(&mut stdout).map_err(Into::into).transpose() {
            let last = frame.is_err();
            if send.send(frame).is_err() || last {
                return;
            }
        }
    });
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_must_agree() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(witnessed(Some(0), ended(3)), Ok(0));
        assert_eq!(witnessed(Some(101), ended(plan::qemu_status(101))), Ok(101));
        assert!(witnessed(Some(0), ended(0)).is_err(), "it ended by itself");
        assert!(witnessed(Some(0), ended(plan::qemu_status(1))).is_err());
        assert!(witnessed(None, ended(0)).is_err(), "a panic");
        assert!(witnessed(None, ended(3)).is_err());
        assert!(witnessed(Some(0), ExitStatus::from_raw(9)).is_err(), "killed");
    }
}
