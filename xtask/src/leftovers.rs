//! What the scenarios left behind: namespaces, interfaces, processes, rules and sysctls that were not so before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{command, privilege::Privilege};

/// A variable in the environment of every process that the scenarios start, directly or not.
pub(crate) const MARK: &str = "NETDROP_TESTS_RUN";

/// Start of the name of every namespace that the scenarios make; the process id follows.
const NETNS_PREFIX: &str = "ndt-";

/// How long the kernel may take to remove what was let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rule listings of the host's namespace, without their packet counters. A program that is not there, or
/// a kernel without that kind of rules, has none.
const RULE_LISTINGS: [&[&str]; 5] = [
    &["nft", "--stateless", "list", "ruleset"],
    &["iptables-legacy-save"],
    &["ip6tables-legacy-save"],
    &["tc", "qdisc", "show"],
    &["ip", "rule", "show"],
];

/// The directories of `/proc/sys` that a scenario could have a reason to write to.
const SYSCTL_DIRS: [&str; 5] = ["net/core", "net/ipv4", "net/ipv6", "net/netfilter", "net/unix"];

/// More of them, in directories that are full of unrelated things.
const SYSCTLS: [&str; 5] = [
    "kernel/bpf_stats_enabled",
    "kernel/kptr_restrict",
    "kernel/perf_event_paranoid",
    "kernel/printk",
    "kernel/unprivileged_bpf_disabled",
];

/// Sysctls that the kernel changes by itself.
const CHANGING_SYSCTLS: [&str; 3] =
    ["nf_conntrack_count", "tcp_available_congestion_control", "tcp_allowed_congestion_control"];

/// The machine's state, as far as scenarios could change it.
pub(crate) struct Snapshot {
    netns: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    rules: BTreeMap<String, BTreeSet<String>>,
    sysctls: BTreeMap<String, String>,
}

impl Snapshot {
    /// The state now.
    pub(crate) fn take(privilege: Privilege) -> Self {
        let rules = RULE_LISTINGS.iter().map(|listing| {
            let mut list = privilege.command(listing[0], &[], &[]);
            let text = command::output(list.args(&listing[1..])).unwrap_or_default();
            (listing.join(" "), rules(&text))
        });
        Self {
            netns: scenario_netns(),
            interfaces: names("/sys/class/net"),
            rules: rules.collect(),
            sysctls: sysctls(),
        }
    }

    /// One line for everything that is in `self` and was not so `before`.
    fn since(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let netns = self.netns.difference(&before.netns);
        // Another run of the scenarios may be under way.
        found.extend(
            netns.filter(|name| !owner_is_alive(name)).map(|name| format!("network namespace {name}")),
        );
        found.extend(self.interfaces.difference(&before.interfaces).map(|name| format!("interface {name}")));

        let none = BTreeSet::new();
        for (listing, now) in &self.rules {
            let then = before.rules.get(listing).unwrap_or(&none);
            found.extend(now.difference(then).map(|rule| format!("`{listing}` has got: {rule}")));
            found.extend(then.difference(now).map(|rule| format!("`{listing}` has lost: {rule}")));
        }
        for (name, now) in &self.sysctls {
            match before.sysctls.get(name) {
                Some(then) if then != now => found.push(format!("sysctl {name} was `{then}`, is `{now}`")),
                _ => {}
            }
        }
        found
    }
}

/// Removes the namespaces of runs that were interrupted before they could do it.
pub(crate) fn remove_stale(privilege: Privilege) -> Result<()> {
    for name in scenario_netns().iter().filter(|name| !owner_is_alive(name)) {
        let mut delete = privilege.command("ip", &[], &[]);
        command::step("left by an interrupted run", delete.args(["netns", "delete", name]))?;
    }
    Ok(())
}

/// One line for everything that is not as it was `before`, and for every process with this `mark`.
pub(crate) fn find(before: &Snapshot, mark: &str, privilege: Privilege) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut found = Snapshot::take(privilege).since(before);
        found.extend(processes(mark, privilege));
        if found.is_empty() || Instant::now() > end {
            return found;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Processes that inherited the mark, whatever they are called and wherever they moved.
fn processes(mark: &str, privilege: Privilege) -> Vec<String> {
    let mut grep = privilege.command("sh", &[], &[]);
    // The environment of root's processes is for root alone. grep fails when it finds nothing.
    grep.args(["-c", "grep -lszxF -- \"$0\" /proc/[0-9]*/environ || true", &format!("{MARK}={mark}")]);
    let found = match command::output(&mut grep) {
        Ok(found) => found,
        Err(error) => return vec![format!("cannot look for processes: {error:#}")],
    };
    let pids = found.lines().filter_map(|line| line.strip_prefix("/proc/")?.strip_suffix("/environ"));
    pids.map(|pid| format!("process {pid} ({})", command_line(pid))).collect()
}

fn command_line(pid: &str) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

/// Whether the process is alive whose id is in the name of its namespace.
fn owner_is_alive(netns: &str) -> bool {
    let pid: String = netns.chars().skip(NETNS_PREFIX.len()).take_while(char::is_ascii_digit).collect();
    !pid.is_empty() && Path::new("/proc").join(pid).exists()
}

fn scenario_netns() -> BTreeSet<String> {
    names("/run/netns").into_iter().filter(|name| name.starts_with(NETNS_PREFIX)).collect()
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The lines of a listing that are rules: without comments, and without the counters of iptables' chains.
fn rules(listing: &str) -> BTreeSet<String> {
    let lines = listing.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let without_counters = |line: &str| match line.strip_prefix(':').and_then(|chain| chain.split_once(" ["))
    {
        Some((chain, _counters)) => chain.to_owned(),
        None => line.to_owned(),
    };
    lines.map(without_counters).collect()
}

fn sysctls() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut paths: Vec<_> =
        SYSCTL_DIRS.iter().chain(&SYSCTLS).map(|path| Path::new("/proc/sys").join(path)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix("/proc/sys").unwrap_or(&path).to_string_lossy().replace('/', ".");
            if !CHANGING_SYSCTLS.iter().any(|changing| name.ends_with(changing)) {
                found.insert(name, value.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(netns: &str, rule: &str, sysctl: &str) -> Snapshot {
        Snapshot {
            netns: [netns.to_owned()].into(),
            interfaces: ["lo".to_owned()].into(),
            rules: [("iptables-legacy-save".to_owned(), rules(rule))].into(),
            sysctls: [("net.core.rmem_max".to_owned(), sysctl.to_owned())].into(),
        }
    }

    #[test]
    fn counters_and_comments_are_no_change() {
        let before = snapshot("ndt-1-a", "# at ten\n:INPUT ACCEPT [0:0]\n", "212992");
        let after = snapshot("ndt-1-a", "# at eleven\n:INPUT ACCEPT [31:2200]\n", "212992");
        assert_eq!(after.since(&before), Vec::<String>::new());
    }

    #[test]
    fn everything_new_is_told() {
        let before = snapshot("ndt-1-a", ":INPUT ACCEPT [0:0]", "212992");
        let after = snapshot("ndt-4194305-b", ":INPUT DROP [0:0]", "4096");
        assert_eq!(
            after.since(&before),
            [
                "network namespace ndt-4194305-b",
                "`iptables-legacy-save` has got: INPUT DROP",
                "`iptables-legacy-save` has lost: INPUT ACCEPT",
                "sysctl net.core.rmem_max was `212992`, is `4096`",
            ]
        );
    }

    #[test]
    fn a_namespace_of_a_running_test_is_not_left_behind() {
        assert!(owner_is_alive(&format!("ndt-{}-0-udp-a", std::process::id())));
        // Above the largest process id there can be.
        assert!(!owner_is_alive("ndt-4194305-0-udp-a"));
        assert!(!owner_is_alive("ndt-a"));
    }

    #[test]
    fn a_marked_process_is_found_until_it_ends() {
        let mark = format!("unit-{}", std::process::id());
        let mut child =
            std::process::Command::new("sleep").arg("600").env(MARK, &mark).spawn().expect("sleep runs");
        let found = processes(&mark, Privilege::Root);
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        assert_eq!(found, [format!("process {} (sleep 600)", child.id())]);
        assert_eq!(processes(&mark, Privilege::Root), Vec::<String>::new());
    }
}
