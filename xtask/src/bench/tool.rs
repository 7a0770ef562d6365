//! The tools that are compared: how each is started, and what it says it saw.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    running::{Finished, Running},
    scene::Scene,
    site::Site,
};

/// Counts by reason, as bpftrace's users do.
const BPFTRACE_COUNT: &str = "tracepoint:skb:kfree_skb { @[args->reason] = count(); }";

/// Prints the packet's 5-tuple and the reason: one line, nothing else.
const BPFTRACE_TUPLE: &str = r#"
tracepoint:skb:kfree_skb {
    $skb = (struct sk_buff *)args->skbaddr;
    $ip = (struct iphdr *)($skb->head + $skb->network_header);
    $ports = (struct udphdr *)($skb->head + $skb->transport_header);
    $sport = $ports->source;
    $dport = $ports->dest;
    printf("%s:%d %s:%d %d %d\n",
        ntop($ip->saddr), ($sport >> 8) | (($sport << 8) & 0xff00),
        ntop($ip->daddr), ($dport >> 8) | (($dport << 8) & 0xff00),
        $ip->protocol, args->reason);
}"#;

/// bpftrace says "Attaching" before it does. Once a timer of its own fires, all probes are attached.
const BPFTRACE_READY: &str = r#"
interval:ms:200 /!@ready/ { @ready = 1; printf("ready\n"); }
END { clear(@ready); }"#;

/// Gives bpftrace the tracefs it needs, in a mount namespace of its own, where the machine has none.
const WITH_TRACEFS: &str = "test -d /sys/kernel/tracing/events || \
                            mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// How netdrop attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// The one that netdrop chooses.
    Best,
    /// The raw tracepoint.
    Raw,
    /// The one that netdrop chooses for freed packets, and nothing else: no counter is asked.
    NoWitness,
}

/// A tool and what it is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// netdrop's loader with a program that does nothing: the floor.
    Empty,
    /// `netdrop trace --summary-only`.
    Count(Rung),
    /// `netdrop trace --json`.
    Events(Rung),
    /// bpftrace, by reason.
    BpftraceCount,
    /// bpftrace, a line for each drop.
    BpftraceTuple,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) netdrop: PathBuf,
    pub(super) bpftrace: Option<PathBuf>,
}

/// What a tool says of a number of drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Counted or shown, whichever was asked for.
    pub(super) seen: u64,
    /// Lost, as the tool says itself.
    pub(super) lost: u64,
}

impl Tool {
    /// Those that are compared in a scene, in the order of the table.
    pub(super) const fn of(scene: Scene) -> &'static [Self] {
        match scene {
            Scene::Nft => &[
                Self::Empty,
                Self::Count(Rung::Best),
                Self::Count(Rung::Raw),
                Self::BpftraceCount,
                Self::Events(Rung::Best),
                Self::Events(Rung::Raw),
                Self::BpftraceTuple,
            ],
            Scene::Iptables => &[Self::Count(Rung::Best), Self::Count(Rung::NoWitness), Self::BpftraceCount],
        }
    }

    /// Its row's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty program",
            Self::Count(Rung::Best) => "netdrop trace --summary-only",
            Self::Count(Rung::Raw) => "netdrop trace --summary-only --rung raw_tp",
            Self::Count(Rung::NoWitness) => "netdrop trace --summary-only --rung tp_btf,inference",
            Self::Events(Rung::Best) => "netdrop trace --json",
            Self::Events(Rung::Raw) => "netdrop trace --json --rung raw_tp",
            Self::Events(Rung::NoWitness) => "netdrop trace --json --rung tp_btf,inference",
            Self::BpftraceCount => "bpftrace, count by reason",
            Self::BpftraceTuple => "bpftrace, 5-tuple and reason",
        }
    }

    /// Starts it and waits until it is attached; nothing when its program is not installed.
    pub(super) fn start(self, programs: &Programs) -> Result<Option<Running>> {
        let command = match self {
            Self::Empty => netdrop(&programs.netdrop, &["--rung", "empty", "--summary-only", "--json"]),
            Self::Count(rung) => netdrop(&programs.netdrop, &rung.args(&["--summary-only", "--json"])),
            Self::Events(rung) => netdrop(&programs.netdrop, &rung.args(&["--json"])),
            Self::BpftraceCount | Self::BpftraceTuple => {
                let Some(program) = &programs.bpftrace else { return Ok(None) };
                let script = if self == Self::BpftraceCount { BPFTRACE_COUNT } else { BPFTRACE_TUPLE };
                bpftrace(program, &format!("{script}{BPFTRACE_READY}"))
            }
        };
        let ready = if self.is_bpftrace() { "ready\n" } else { NETDROP_READY };
        Running::start(command, ready).map(Some)
    }

    fn is_bpftrace(self) -> bool {
        matches!(self, Self::BpftraceCount | Self::BpftraceTuple)
    }

    /// What it says it saw of the drops at `site`; nothing when it looks at none.
    pub(super) fn seen(self, finished: &Finished, site: &Site) -> Result<Option<Seen>> {
        match self {
            Self::Empty => Ok(None),
            Self::Count(_) => Summary::read(finished)?.counted(site.inode()).map(Some),
            Self::Events(_) => Summary::read(finished)?.shown(site.inode()).map(Some),
            Self::BpftraceCount => bpftrace_count(finished).map(Some),
            Self::BpftraceTuple => bpftrace_lines(finished).map(Some),
        }
    }
}

impl Rung {
    fn args<'a>(self, args: &[&'a str]) -> Vec<&'a str> {
        let rung: &[&str] = match self {
            Self::Best => &[],
            Self::Raw => &["--rung", "raw_tp"],
            Self::NoWitness => &["--rung", "tp_btf,inference"],
        };
        [args, rung].concat()
    }
}

/// The line on stderr that says that every hook is attached.
pub(super) const NETDROP_READY: &str = "netdrop: tracing";

/// `netdrop trace` with these arguments.
pub(super) fn netdrop(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("trace").args(args);
    command
}

/// bpftrace with this script.
fn bpftrace(program: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", WITH_TRACEFS, "sh"]).arg(program).args(["-e", script]);
    command
}

/// The last line of `netdrop trace --json`.
pub(super) struct Summary(Value);

impl Summary {
    pub(super) fn read(finished: &Finished) -> Result<Self> {
        let mut last = Vec::new();
        finished.stdout.for_each_line(|line| last = line.to_vec())?;
        let summary: Value = serde_json::from_slice(&last).context("netdrop's last line is no JSON")?;
        if summary["kind"] != "summary" {
            anyhow::bail!("netdrop ended without a summary: {}", finished.stderr.start()?);
        }
        Ok(Self(summary))
    }

    /// One of its sums.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        self.0[name].as_u64().with_context(|| format!("netdrop's summary has no `{name}`"))
    }

    /// What was counted in one namespace.
    fn counted(&self, inode: u64) -> Result<Seen> {
        let mut rows = self.0["netns"].as_array().into_iter().flatten();
        let row = rows.find(|row| row["inode"] == inode);
        let seen = row.and_then(|row| row["count"].as_u64());
        Ok(Seen { seen: seen.context("netdrop's summary does not know the namespace")?, lost: 0 })
    }

    /// What was shown and lost. Other namespaces hardly drop meanwhile.
    fn shown(&self, inode: u64) -> Result<Seen> {
        let counted = self.counted(inode)?.seen;
        Ok(Seen { seen: self.number("shown")?.min(counted), lost: self.number("lost")?.min(counted) })
    }
}

/// The largest row of a map, `@[6]: 200000`: the flood has one reason. What it says of losses is beside it.
fn bpftrace_count(finished: &Finished) -> Result<Seen> {
    let mut seen = Seen::default();
    finished.stdout.for_each_line(|line| {
        let count =
            std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("@[")?.split_once("]: "));
        if let Some((_, count)) = count {
            seen.seen = seen.seen.max(count.trim().parse().unwrap_or(0));
        }
    })?;
    seen.lost = bpftrace_lost(finished)?;
    Ok(seen)
}

/// Lines that show a datagram of the flood.
fn bpftrace_lines(finished: &Finished) -> Result<Seen> {
    let mut seen = Seen { seen: 0, lost: bpftrace_lost(finished)? };
    finished.stdout.for_each_line(|line| {
        seen.seen += u64::from(line.starts_with(b"127.0.0.1:"));
    })?;
    Ok(seen)
}

/// The sum of "Lost 123 events", on either output.
fn bpftrace_lost(finished: &Finished) -> Result<u64> {
    let mut lost = 0;
    for output in [&finished.stdout, &finished.stderr] {
        output.for_each_line(|line| {
            let words = line.strip_prefix(b"Lost ").and_then(|rest| rest.strip_suffix(b" events"));
            let number = words.and_then(|words| std::str::from_utf8(words).ok()?.parse::<u64>().ok());
            lost += number.unwrap_or(0);
        })?;
    }
    Ok(lost)
}
