//! What this process may do: effective capabilities, user namespace, kernel lockdown.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// A capability that some part of netdrop needs. Numbers as in include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Read files without regard to their permissions.
    DacReadSearch = 2,
    /// Look into processes of other users.
    SysPtrace = 19,
    /// Stands for `Bpf` and `Perfmon`, and for all there was before 5.8.
    SysAdmin = 21,
    /// Raise resource limits.
    SysResource = 24,
    /// See kernel addresses.
    Syslog = 34,
    /// Load tracing programs and read kernel memory through them.
    Perfmon = 38,
    /// Use BPF.
    Bpf = 39,
}

impl Capability {
    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A capability this process has not, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The capability.
    pub capability: Capability,
    /// Whether nothing can be traced without it.
    pub required: bool,
    /// What is lost.
    pub costs: &'static str,
}

/// What each capability is good for, the required ones first.
const USES: [Lacking; 6] = [
    Lacking { capability: Capability::Bpf, required: true, costs: "no drop can be observed" },
    Lacking { capability: Capability::Perfmon, required: true, costs: "no drop can be observed" },
    Lacking {
        capability: Capability::Syslog,
        required: false,
        costs: "code locations stay raw addresses, and causes that need one are not named",
    },
    Lacking {
        capability: Capability::SysPtrace,
        required: false,
        costs: "namespaces of other users' processes are not seen, so their containers are not named",
    },
    Lacking {
        capability: Capability::DacReadSearch,
        required: false,
        costs: "Docker's state cannot be read by a user other than root, so containers have an id but no name",
    },
    Lacking {
        capability: Capability::SysResource,
        required: false,
        costs: "before kernel 5.11 the locked-memory limit cannot be raised, and loading may fail",
    },
];

/// The effective capabilities of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those of this process, from `self/status` below `proc_root`.
    pub fn load(proc_root: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(proc_root.join("self/status"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff line in /proc/self/status"))
    }

    /// Those that the `CapEff` line of a status file names.
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(mask.trim(), 16).ok().map(Self)
    }

    /// Whether `capability` is effective. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON; for CAP_SYSLOG
    /// it does not, where kernel addresses are concerned.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        let mask = match capability {
            Capability::Bpf | Capability::Perfmon => 1 << capability as u8 | 1 << Capability::SysAdmin as u8,
            _ => 1 << capability as u8,
        };
        self.0 & mask != 0
    }

    /// What is missing of all that netdrop can make use of, the required ones first.
    #[must_use]
    pub fn lacking(self) -> Vec<Lacking> {
        USES.into_iter().filter(|each| !self.has(each.capability)).collect()
    }
}

/// Whether this process is in the initial user namespace, `None` where that cannot be read. In any other
/// one, capabilities say nothing: the kernel asks for CAP_BPF and CAP_PERFMON in the initial one.
#[must_use]
pub fn in_initial_user_namespace(proc_root: &Path) -> Option<bool> {
    // PROC_USER_INIT_INO (include/linux/proc_ns.h) has had this value since 3.8.
    let link = fs::read_link(proc_root.join("self/ns/user")).ok()?;
    Some(link.as_os_str() == "user:[4026531837]")
}

/// How far the kernel is locked against its own administrator (`man 7 kernel_lockdown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// Against being modified: some kernels then refuse function hooks.
    Integrity,
    /// Against being read as well: BPF cannot read kernel memory.
    Confidentiality,
}

impl Lockdown {
    /// Where the kernel tells it, with securityfs mounted.
    pub const PATH: &str = "/sys/kernel/security/lockdown";

    /// The mode, or `None` where `path` is absent (no securityfs, or a kernel without lockdown),
    /// unreadable or not understood: not known.
    #[must_use]
    pub fn load(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    /// The mode in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        match rest.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The kernel's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(mask: &str) -> Capabilities {
        let text =
            format!("Name:\tcat\nCapInh:\t0000000000000000\nCapEff:\t{mask}\nCapBnd:\t000001fffeffffff\n");
        Capabilities::parse(&text).unwrap()
    }

    fn lacking(mask: &str) -> Vec<Capability> {
        status(mask).lacking().iter().map(|each| each.capability).collect()
    }

    #[test]
    fn root_lacks_what_its_mask_lacks() {
        assert_eq!(lacking("000001ffffffffff"), []);
        assert_eq!(lacking("000001fffeffffff"), [Capability::SysResource]);
    }

    #[test]
    fn a_plain_user_lacks_all_and_two_are_required() {
        let all = status("0000000000000000").lacking();
        assert_eq!(all.len(), USES.len());
        let required: Vec<_> =
            all.iter().filter(|each| each.required).map(|each| each.capability.name()).collect();
        assert_eq!(required, ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_alone() {
        let admin = status("0000000000200000");
        assert!(admin.has(Capability::Bpf) && admin.has(Capability::Perfmon));
        assert!(!admin.has(Capability::Syslog) && !admin.has(Capability::SysPtrace));
        // CAP_BPF and CAP_PERFMON without it, as a service would have them.
        let service = status("000000c000000000");
        assert!(service.has(Capability::Bpf) && service.has(Capability::Perfmon));
        assert!(!service.has(Capability::SysAdmin));
    }

    #[test]
    fn a_status_without_the_line_is_not_understood() {
        assert_eq!(Capabilities::parse("Name:\tx\n"), None);
        assert_eq!(Capabilities::parse("CapEff:\tnothing\n"), None);
    }

    #[test]
    fn lockdown_modes() {
        assert_eq!(Lockdown::parse("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(Lockdown::parse("none integrity [confidentiality]\n"), Some(Lockdown::Confidentiality));
        assert_eq!(Lockdown::parse("none integrity\n"), None);
        assert_eq!(Lockdown::parse(""), None);
        assert_eq!(Lockdown::load(Path::new("/nonexistent/lockdown")), None);
    }

    #[test]
    fn user_namespace_is_read_from_the_link() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(in_initial_user_namespace(scratch.path()), None);
        let directory = scratch.path().join("self/ns");
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("user:[4026531837]", directory.join("user")).unwrap();
        assert_eq!(in_initial_user_namespace(scratch.path()), Some(true));
        fs::remove_file(directory.join("user")).unwrap();
        std::os::unix::fs::symlink("user:[4026532837]", directory.join("user")).unwrap();
        assert_eq!(in_initial_user_namespace(scratch.path()), Some(false));
    }
}
