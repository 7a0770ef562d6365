//! Can this process trace here at all? If not, one paragraph that says what to do.

use std::path::Path;

use super::failure::Unsupported;
use crate::{
    bpf::LoadError,
    kernel::{
        Kernel, KernelError,
        btf::{BtfError, KernelBtf},
        capabilities::Capabilities,
    },
    trace::TraceError,
};

/// The command to type again, with privileges.
fn with_sudo() -> String {
    let words: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    format!("sudo {}", words.join(" "))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=,@%+-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
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
    Ok(Kernel::inspect().map_err(|error| Unsupported(without_kernel(&error)))?)
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
pub(super) fn explained(error: TraceError) -> anyhow::Error {
    let TraceError::Load(error) = error else { return error.into() };
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

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("--port=80,443"), "--port=80,443");
        assert_eq!(quoted("!NO_SOCKET"), "'!NO_SOCKET'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
