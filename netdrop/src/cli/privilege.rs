//! Can this process trace here at all? If not, one paragraph that says what to do.

use std::path::Path;

use super::failure::Unsupported;
use crate::{
    bpf::LoadError,
    kernel::{
        BLIND_IN_INIT, Kernel, KernelError,
        btf::{BtfError, KernelBtf},
        capabilities::Capabilities,
    },
    say::say,
};

/// The command to type again, with privileges.
fn with_sudo() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("sudo netdrop {}", arguments.join(" "))
}

/// What is missing before anything is tried: capabilities first, because without them nothing else can be
/// judged.
pub(super) fn check() -> Result<(), Unsupported> {
    let Ok(capabilities) = Capabilities::load(Path::new("/proc")) else { return Ok(()) };
    let missing: Vec<&str> = capabilities
        .lacking()
        .into_iter()
        .filter(|lacking| lacking.required)
        .map(|lacking| lacking.capability.name())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Unsupported(format!(
        "tracing needs {} (before Linux 5.8: CAP_SYS_ADMIN), which this process lacks. Run it as root, `{}`, or in a \
         container with `--privileged` or `--cap-add BPF --cap-add PERFMON --cap-add SYSLOG --cap-add SYS_PTRACE`; \
         `netdrop explain` works without privileges.",
        missing.join(" and "),
        with_sudo()
    )))
}

/// Inspects the kernel, or says why it cannot be traced.
pub(super) fn kernel() -> anyhow::Result<Kernel> {
    check()?;
    let kernel = Kernel::inspect().map_err(|error| Unsupported(without_kernel(&error)))?;
    if kernel.blind_in_init {
        say(BLIND_IN_INIT);
    }
    if let Err(error) = &kernel.symbols {
        say(error);
    }
    Ok(kernel)
}

/// What to do about a kernel that netdrop cannot read.
pub(super) fn without_kernel(error: &KernelError) -> String {
    match error {
        KernelError::Btf(BtfError::Read { .. }) => format!(
            "{error}. netdrop reads the layout of kernel structures from there, and will not guess it: it needs a \
             kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it), and in a \
             container /sys from the host. Without it, `netstat -s` and `nstat -az` still show the kernel's own drop \
             counters."
        ),
        _ => format!(
            "{error}. netdrop {} does not know this kernel ({}); please report it with the output of `netdrop doctor`.",
            env!("CARGO_PKG_VERSION"),
            KernelBtf::VMLINUX
        ),
    }
}

/// What to do about a kernel that refuses the programs.
pub(super) fn refused(error: LoadError) -> anyhow::Error {
    if let LoadError::Refused { .. } = error {
        return Unsupported(format!(
            "{error}. The process has the capabilities, so something else forbids it: kernel lockdown in \
             confidentiality mode (cat /sys/kernel/security/lockdown), a container's seccomp profile (docker: \
             `--security-opt seccomp=unconfined` or `--privileged`), a security module, a user namespace, or before \
             Linux 5.11 the locked-memory limit (`ulimit -l unlimited`). `netdrop doctor` shows which."
        ))
        .into();
    }
    error.into()
}
