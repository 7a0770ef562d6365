//! Reads the rules of a namespace with the host's own tools. They only list: tables that are not there are not asked for,
//! because asking would make the kernel load modules and make the tables.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::model::Ruleset;
use super::{legacy, nft};

/// Where tools are looked for: not where the environment says.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];

/// Longest run of a tool.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Most that a tool may print: a kube-proxy of 10,000 services prints a few MiB.
const SIZE_LIMIT: usize = 32 << 20;

/// Why rules were not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The namespace.
    #[error("cannot enter the network namespace: {0}; CAP_SYS_ADMIN is needed for it")]
    Enter(#[source] io::Error),
    /// A tool could not be run.
    #[error("cannot run {}: {source}", tool.display())]
    Run {
        /// Its path.
        tool: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{} failed: {said}", tool.display())]
    Failed {
        /// Its path.
        tool: PathBuf,
        /// The first line of what it said.
        said: String,
    },
    /// A tool took too long or printed too much.
    #[error("{} took longer than {} s or printed more than {} MiB", tool.display(), TIME_LIMIT.as_secs(), SIZE_LIMIT >> 20)]
    Limit {
        /// Its path.
        tool: PathBuf,
    },
    /// No tool for rules that are there.
    #[error("{} is not installed", _0.program())]
    NoTool(Source),
}

/// A tool that lists rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// nftables, with what iptables-nft made.
    Nft,
    /// iptables-legacy.
    Iptables,
    /// ip6tables-legacy.
    Ip6tables,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nft, Self::Iptables, Self::Ip6tables];

    /// Its usual name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables-legacy-save",
            Self::Ip6tables => "ip6tables-legacy-save",
        }
    }

    /// What its rules are called.
    #[must_use]
    pub const fn rules(self) -> &'static str {
        match self {
            Self::Nft => "rules of nftables and iptables-nft",
            Self::Iptables => "rules of iptables-legacy",
            Self::Ip6tables => "rules of ip6tables-legacy",
        }
    }

    /// The package that has it on most distributions.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::Iptables | Self::Ip6tables => {
                "iptables (or iptables-legacy, where that is a package of its own)"
            }
        }
    }

    /// Programs that do it, with the arguments that make them: distributions differ in what has a name of its own. Not
    /// `iptables-save`, which may be that of nftables.
    fn programs(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Nft => &[("nft", &["-a", "list", "ruleset"])],
            Self::Iptables => &[
                ("iptables-legacy-save", &["-c"]),
                ("xtables-legacy-multi", &["iptables-save", "-c"]),
                ("xtables-multi", &["iptables-save", "-c"]),
            ],
            Self::Ip6tables => &[
                ("ip6tables-legacy-save", &["-c"]),
                ("xtables-legacy-multi", &["ip6tables-save", "-c"]),
                ("xtables-multi", &["ip6tables-save", "-c"]),
            ],
        }
    }

    /// The first of them that this host has.
    #[must_use]
    pub fn find(self) -> Option<(PathBuf, &'static [&'static str])> {
        self.programs().iter().find_map(|(program, arguments)| {
            let paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(program));
            paths.filter(|path| path.is_file()).map(|path| (path, *arguments)).next()
        })
    }

    /// Whether this thread's namespace has such rules, or may have them.
    fn is_there(self, nftables: bool) -> bool {
        // Tables that are there, one a line (net/netfilter/x_tables.c, xt_table_seq_show()).
        let lists = |name: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{name}"))
                .is_ok_and(|text| !text.trim().is_empty())
        };
        match self {
            Self::Nft => nftables || in_kernel(),
            Self::Iptables => lists("ip_tables_names"),
            Self::Ip6tables => lists("ip6_tables_names"),
        }
    }
}

/// Whether nftables is loaded as a module: the first question to one that is not would load it.
fn in_kernel() -> bool {
    Path::new("/sys/module/nf_tables").exists()
}

/// Each source, with the tool of this host, if any.
#[must_use]
pub fn sources() -> Vec<(Source, Option<PathBuf>)> {
    Source::ALL.into_iter().map(|source| (source, source.find().map(|(path, _)| path))).collect()
}

/// What was read of a namespace.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) ruleset: Ruleset,
    /// Sources that could not be read.
    pub(super) errors: Vec<ReadError>,
}

/// Reads the rules of a namespace, on a thread that is there for nothing else: it stays in the namespace. `nftables`: the
/// kernel is known to have it.
pub(super) fn read(netns: OwnedFd, nftables: bool) -> Result<Reading, ReadError> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| ReadError::Enter(error.into()))?;
    drop(netns);
    let mut reading = Reading::default();
    for source in Source::ALL {
        if !source.is_there(nftables) {
            continue;
        }
        let Some((tool, arguments)) = source.find() else {
            reading.errors.push(ReadError::NoTool(source));
            continue;
        };
        match run(&tool, arguments) {
            Ok((text, said)) => reading.ruleset.extend(match source {
                Source::Nft => nft::parse(&text, &said),
                Source::Iptables => legacy::parse(&text, "ip"),
                Source::Ip6tables => legacy::parse(&text, "ip6"),
            }),
            Err(error) => reading.errors.push(error),
        }
    }
    reading.ruleset.link();
    Ok(reading)
}

/// A child that does not outlive its use.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a tool prints to standard output and error, without a shell and without our environment.
fn run(tool: &Path, arguments: &[&str]) -> Result<(String, String), ReadError> {
    let failed = |source| ReadError::Run { tool: tool.to_owned(), source };
    let mut command = Command::new(tool);
    command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut child = Killed(child);
    let (Some(out), Some(said)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(failed(io::Error::other("no pipe to it")));
    };
    let texts = drain([out.into(), said.into()]).map_err(failed)?;
    let Some([out, said]) = texts else { return Err(ReadError::Limit { tool: tool.to_owned() }) };
    let status = child.0.wait().map_err(failed)?;
    if status.success() {
        return Ok((out, said));
    }
    let said =
        said.lines().find(|line| !line.starts_with('#')).unwrap_or_default().chars().take(200).collect();
    Err(ReadError::Failed { tool: tool.to_owned(), said })
}

/// Reads pipes to their ends; nothing when that takes too long or gives too much.
fn drain(pipes: [OwnedFd; 2]) -> io::Result<Option<[String; 2]>> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut texts = [Vec::new(), Vec::new()];
    let mut open = [true, true];
    let mut piece = vec![0; 64 << 10];
    while open != [false, false] {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let waiting: Vec<usize> = (0..2).filter(|pipe| open[*pipe]).collect();
        let mut polled: Vec<PollFd<'_>> =
            waiting.iter().map(|pipe| PollFd::new(&pipes[*pipe], PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        for (pipe, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let len = rustix::io::read(&pipes[pipe], &mut piece[..])?;
            open[pipe] = len > 0;
            texts[pipe].extend_from_slice(&piece[..len]);
            if texts[pipe].len() > SIZE_LIMIT {
                return Ok(None);
            }
        }
    }
    Ok(Some(texts.map(|text| String::from_utf8_lossy(&text).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_run_without_our_environment() {
        let (out, said) = run(Path::new("/usr/bin/env"), &[]).unwrap();
        assert_eq!((out.as_str(), said.as_str()), ("LC_ALL=C\n", ""));
    }

    #[test]
    fn a_tool_that_fails_says_why() {
        let error = run(Path::new("/bin/ls"), &["/no/such/file"]).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        assert!(run(Path::new("/no/such/tool"), &[]).is_err());
    }
}
