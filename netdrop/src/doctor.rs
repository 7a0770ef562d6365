//! What this kernel and these privileges allow: found by trying, never by version or configuration.

use std::path::Path;

use serde::Serialize;

use crate::{
    bpf::{
        LogLevel, MIN_BUFFER_BYTES, ProbeReport, Rung, Settings, Tracer, counter_memory,
        missed_by_running_programs,
    },
    cause::Catalogue,
    filter::Filter,
    judge::gather_table,
    kernel::{
        BLIND_IN_INIT, Kernel, KernelError, KfreeSkbArguments,
        btf::KernelBtf,
        capabilities::{Capabilities, Lockdown, in_initial_user_namespace},
    },
    rules::{Source, sources},
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There, and used.
    Ok,
    /// Missing or reduced; netdrop works without it.
    Limited,
    /// Missing, and nothing can be traced without it.
    Missing,
}

/// One thing netdrop needs or can use.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What its absence costs.
    pub costs: Option<String>,
    /// How to get it.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), costs: None, remedy: None }
    }

    fn limited(name: &'static str, found: impl Into<String>, costs: impl Into<String>, remedy: &str) -> Self {
        Self {
            name,
            state: State::Limited,
            found: found.into(),
            costs: Some(costs.into()),
            remedy: Some(remedy.to_owned()),
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Missing,
            found: found.into(),
            costs: Some("no drop can be observed".to_owned()),
            remedy: Some(remedy.into()),
        }
    }
}

/// A probe point and how it is observed.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The kernel's name of it.
    pub point: &'static str,
    /// The rung that is used; nothing when there is none.
    pub rung: Option<&'static str>,
    /// The programs for this kernel's arguments; none for a rung that needs none.
    pub programs: Vec<String>,
    /// What the rung costs.
    pub price: Option<&'static str>,
    /// Instructions after the verifier removed what this run does not need.
    pub instructions: Option<u32>,
    /// Why better rungs, or all of them, did not load.
    pub error: Option<String>,
    /// What is seen through it.
    pub shows: &'static str,
    /// What is not known without it; nothing where netdrop cannot do without.
    pub costs: Option<&'static str>,
}

impl From<&ProbeReport> for Probe {
    fn from(report: &ProbeReport) -> Self {
        Self {
            point: report.name,
            rung: report.rung.map(Rung::as_str),
            programs: report.programs.clone(),
            price: report.price,
            instructions: report.instructions,
            error: (!report.errors.is_empty()).then(|| report.errors.join("; ")),
            shows: report.shows,
            costs: report.costs,
        }
    }
}

/// The whole examination.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Kernel release.
    pub kernel: String,
    /// Architecture.
    pub machine: String,
    /// Whether `netdrop trace` works.
    pub usable: bool,
    /// Probe points.
    pub probes: Vec<Probe>,
    /// Everything else.
    pub checks: Vec<Check>,
}

/// Examines kernel and privileges, and loads and attaches each probe point for a moment: the best rung, or those of
/// `rungs`; `consume` as in [`Settings`]. Needs a running tokio reactor.
#[must_use]
pub fn examine(
    catalogue: &Catalogue,
    rungs: Vec<Rung>,
    consume: bool,
    explain: impl Fn(&KernelError) -> String,
) -> Report {
    let uname = rustix::system::uname();
    let mut checks = privileges();
    let mut probes = Vec::new();
    match Kernel::inspect() {
        Ok(kernel) => {
            checks.extend(kernel_checks(&kernel));
            probes = try_probes(&kernel, catalogue, rungs, consume);
        }
        Err(error) => {
            checks.push(Check::missing("kernel types (BTF)", error.to_string(), explain(&error)));
            probes.push(Probe::from(&ProbeReport::unobserved(error.to_string())));
        }
    }
    Report {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        usable: probes.first().is_some_and(|probe| probe.rung.is_some()),
        probes,
        checks,
    }
}

fn try_probes(kernel: &Kernel, catalogue: &Catalogue, rungs: Vec<Rung>, consume: bool) -> Vec<Probe> {
    let settings = Settings {
        filter: Filter::default(),
        gather: gather_table(catalogue, kernel),
        events: true,
        stack: false,
        buffer_bytes: MIN_BUFFER_BYTES,
        max_keys: None,
        rungs,
        consume,
        refusals: true,
        harm: true,
    };
    match Tracer::start(&settings, LogLevel::Off, kernel) {
        Ok(tracer) => tracer.reports().iter().map(Probe::from).collect(),
        Err(error) => vec![Probe::from(&ProbeReport::unobserved(error.to_string()))],
    }
}

fn privileges() -> Vec<Check> {
    let mut checks = Vec::new();
    match Capabilities::load(Path::new("/proc")) {
        Ok(capabilities) => {
            let lacking = capabilities.lacking();
            if lacking.is_empty() {
                checks.push(Check::ok("capabilities", "all that netdrop can use"));
            }
            for lacking in lacking {
                let found = format!("no {}", lacking.capability);
                let remedy = format!(
                    "run as root, or in a container with --cap-add {}",
                    &lacking.capability.name()[4..]
                );
                checks.push(if lacking.required {
                    Check::missing("capabilities", found, remedy)
                } else {
                    Check::limited("capabilities", found, lacking.costs, &remedy)
                });
            }
        }
        Err(error) => checks.push(Check::limited(
            "capabilities",
            format!("not known: {error}"),
            "what is missing is seen only when something is refused",
            "mount /proc",
        )),
    }
    if in_initial_user_namespace(Path::new("/proc")) == Some(false) {
        checks.push(Check::missing(
            "user namespace",
            "this is not the machine's own: the kernel does not count capabilities held here",
            "run netdrop on the host, or in a container that is not rootless",
        ));
    }
    checks.push(match Lockdown::load(Path::new(Lockdown::PATH)) {
        Some(Lockdown::Confidentiality) => Check::missing(
            "lockdown",
            "confidentiality: programs may not read kernel memory",
            "boot with lockdown=integrity, or without Secure Boot where the distribution ties them",
        ),
        Some(mode) => Check::ok("lockdown", mode.name()),
        None => Check::ok("lockdown", "not shown (no securityfs, or a kernel without lockdown)"),
    });
    checks
}

/// Tools that list firewall rules.
fn rule_checks() -> Vec<Check> {
    const NAME: &str = "firewall rules";
    let missing = |source: Source| {
        Check::limited(
            NAME,
            format!("no {}", source.program()),
            format!("drops by {} name family and hook, not table, chain and rule", source.rules()),
            &format!("install {}", source.package()),
        )
    };
    let (there, lacking): (Vec<_>, Vec<_>) = sources().into_iter().partition(|(_, tool)| tool.is_some());
    let found: Vec<String> =
        there.into_iter().filter_map(|(_, tool)| Some(tool?.display().to_string())).collect();
    let mut checks = Vec::new();
    if !found.is_empty() {
        checks.push(Check::ok(NAME, format!("listed by {}", found.join(", "))));
    }
    checks.extend(lacking.into_iter().map(|(source, _)| missing(source)));
    checks
}

fn kernel_checks(kernel: &Kernel) -> Vec<Check> {
    let mut checks = vec![Check::ok("kernel types (BTF)", KernelBtf::VMLINUX)];
    for missing in &kernel.layout.missing {
        checks.push(Check::limited(
            "kernel types (BTF)",
            missing,
            "one fact is not shown",
            "a newer kernel, or the module loaded before netdrop starts",
        ));
    }
    checks.push(match kernel.kfree_skb {
        KfreeSkbArguments::Location => Check::limited(
            "drop reasons",
            "none: skb:kfree_skb tells only where",
            "causes are concluded from the function that dropped, some stay unknown; --reason cannot be used",
            "Linux 5.17 or later",
        ),
        _ => {
            let count = kernel.reasons.iter().count();
            Check::ok("drop reasons", format!("{count} names in this kernel's types"))
        }
    });
    checks.push(if kernel.kfree_skb == KfreeSkbArguments::Socket {
        Check::ok("receiving socket", "told by skb:kfree_skb")
    } else {
        Check::limited(
            "receiving socket",
            "not told by skb:kfree_skb",
            "no socket buffer figures, and drops deep in TCP may lack their namespace",
            "Linux 6.11 or later",
        )
    });
    checks.push(match &kernel.symbols {
        Ok(symbols) => Check::ok("kernel symbols", format!("{} functions", symbols.count())),
        Err(error) => Check::limited(
            "kernel symbols",
            // What follows the colon is for those who meet the error without this table.
            error.to_string().split(':').next().unwrap_or_default(),
            "causes that need a function stay unknown, --location cannot be used",
            "sysctl kernel.kptr_restrict=1 and CAP_SYSLOG",
        ),
    });
    if kernel.blind_in_init {
        checks.push(Check::limited(
            "completeness",
            BLIND_IN_INIT,
            "few drops, most on a machine whose process 1 is busy",
            "a kernel without this patch",
        ));
    }
    let missed = missed_by_running_programs();
    if missed > 0 {
        checks.push(Check::limited(
            "missed drops",
            format!("{missed}, by the netdrop programs that run now"),
            "the kernel skips a tracing program that interrupts itself on one CPU: these drops are counted, without \
             a cause",
            "fewer drops at once; runs say their own number in the summary",
        ));
    }
    checks.extend(rule_checks());
    let (keys, bytes) = counter_memory();
    checks.push(Check::ok(
        "counters",
        format!("{keys} keys, {:.1} MiB of kernel memory", bytes as f64 / 1_048_576.0),
    ));
    checks
}
