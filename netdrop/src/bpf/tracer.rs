//! Loading, attaching and stopping the kernel side.

use std::{error::Error, io};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapError, RingBuf},
    programs::ProgramError,
};
use aya_log::EbpfLogger;
use netdrop_common::{
    harm::{HARM_CONNECTIONS, Harm},
    key::{DropCount, DropKey, MAX_KEYS},
};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{
    counters::{CounterMaps, Counters},
    globals::{Globals, Settings},
    harm,
    hook::{Hook, Loader},
    log::{self, LogLevel, Stderr},
    probe::{Probe, ProbeReport, Rung},
    refusals,
    ring::EventRing,
    witness::Witness,
};
use crate::{harm::HarmTotals, kernel::Kernel, say::chain};

/// The kernel side, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netdrop.bpf.o"));

/// Why the kernel side does not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refuses eBPF to this process.
    #[error("the kernel refuses to {action}: {}", chain(source.as_ref()))]
    Refused {
        /// What was tried.
        action: String,
        /// EPERM or EACCES, as the system said it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The kernel could not take the programs.
    #[error("cannot {action}: {}", chain(source.as_ref()))]
    Unsupported {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A map is missing or unreadable.
    #[error("cannot read the kernel side's map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the system said.
        source: MapError,
    },
    /// The debug channel could not be opened.
    #[error("cannot open the kernel side's debug channel: {source}")]
    Log {
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The event ring cannot be watched or the program's figures cannot be read.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LoadError {
    pub(super) fn of(action: &str, error: impl Error + Send + Sync + 'static) -> Self {
        let action = action.to_owned();
        let refused = is_refusal(&error);
        let source = Box::new(error);
        if refused { Self::Refused { action, source } } else { Self::Unsupported { action, source } }
    }
}

/// Whether somewhere in the chain of sources the system says EPERM or EACCES.
fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        // A verifier that has something to say has looked at the program and does not take it, as EACCES.
        if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref::<ProgramError>()
            && !verifier_log.to_string().trim().is_empty()
        {
            return false;
        }
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        link = error.source();
    }
    false
}

/// Takes a map out of the loaded object as its type.
pub(super) fn take_map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, MapError>
where
    T: TryFrom<Map, Error = MapError>,
{
    ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?.try_into()
}

/// A running kernel side. Dropping it detaches everything.
pub struct Tracer {
    ebpf: Ebpf,
    /// The one that counts comes first.
    hooks: Vec<Hook>,
    ring: EventRing,
    counters: CounterMaps,
    logger: Option<EbpfLogger<Stderr>>,
    reports: Vec<ProbeReport>,
    witness: Option<Witness>,
    harm: bool,
}

/// Connections that the map of `--harm` has room for where it is not used.
const FEWEST_CONNECTIONS: u32 = 64;

/// The probe point of SYNs that a listener gives up.
const LISTENER: &str = "tcp_conn_request";

impl Tracer {
    /// Loads the kernel side with these settings and attaches it. Needs a running tokio reactor.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`] without the privileges, [`LoadError::Unsupported`] where the kernel cannot do it.
    ///
    /// # Minimum kernel version
    ///
    /// 5.8, for the ring buffer.
    pub fn start(settings: &Settings, level: LogLevel, kernel: &Kernel) -> Result<Self, LoadError> {
        // Before 5.11 maps count against RLIMIT_MEMLOCK; without CAP_SYS_RESOURCE it stays as it is.
        let _not_needed_on_new_kernels =
            setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });

        let globals = Globals::new(settings, kernel);
        let level_value = level as u8;
        let mut loader = EbpfLoader::new();
        // The loader has parsed the types for itself; we need them too, and one copy at a time is enough.
        loader.btf(None);
        let btf = Btf::from_sys_fs().map_err(|error| LoadError::of("read the kernel's types", error))?;
        globals.apply(&mut loader);
        let mut ebpf = loader
            .btf(Some(&btf))
            .override_global(aya_log::LEVEL, &level_value, true)
            .map_max_entries("EVENTS", settings.buffer_bytes)
            .map_max_entries("HARMED", if settings.harm { HARM_CONNECTIONS } else { FEWEST_CONNECTIONS })
            .map_max_entries("DROPS", settings.max_keys.unwrap_or_else(max_keys))
            .load(OBJECT)
            .map_err(|error| LoadError::of("create netdrop's maps", error))?;
        drop(loader);
        let logger = (level > LogLevel::Off).then(|| log::open(&mut ebpf)).transpose()?;
        let counters =
            CounterMaps::take(&mut ebpf).map_err(|source| LoadError::Map { map: "DROPS", source })?;
        let mut hooks = Vec::new();
        let mut reports = Vec::new();
        let loader = Loader { btf: &btf, kernel, only: &settings.rungs, consume: settings.consume };
        let of_harm: &'static [Probe] = if settings.harm { &harm::PROBES } else { &[] };
        let of_refusals: &'static [Probe] = if settings.refusals { &refusals::PROBES } else { &[] };
        for probe in Probe::ALL.iter().chain(of_refusals).chain(of_harm) {
            let no_use = probe.for_events && !settings.events
                || !probe.required() && settings.rungs.contains(&Rung::Empty)
                || probe.is_needless(kernel);
            if no_use {
                continue;
            }
            let mut report = ProbeReport::untried(probe);
            hooks.extend(Hook::load(&mut ebpf, &loader, probe, &mut report)?);
            reports.push(report);
        }
        // The kernel's types took 20 MB, and the ring is about to be mapped: not both at once.
        drop(btf);
        return_memory();
        let ring = take_map::<RingBuf<_>>(&mut ebpf, "EVENTS")
            .map_err(|source| LoadError::Map { map: "EVENTS", source })?;
        let ring = EventRing::new(ring)
            .map_err(|source| LoadError::Io { action: "watch the event ring", source })?;
        // Last the one that counts: what the others know of its first drop must be there by then.
        for hook in hooks.iter_mut().filter(|hook| hook.required()) {
            hook.attach(&mut ebpf)?;
        }
        let witness =
            if settings.witness() { Self::witness(&mut ebpf, &mut hooks, &mut reports) } else { None };
        Ok(Self { ebpf, hooks, ring, counters, logger, reports, witness, harm: settings.harm })
    }

    /// Primes the counter witness. Where that fails, rungs that rest on it are given up.
    fn witness(ebpf: &mut Ebpf, hooks: &mut Vec<Hook>, reports: &mut [ProbeReport]) -> Option<Witness> {
        let primed = Witness::load(ebpf).and_then(|mut witness| {
            witness.prime(ebpf)?;
            Ok(witness)
        });
        let error = match primed {
            Ok(witness) => return Some(witness),
            Err(error) => error.to_string(),
        };
        for report in reports {
            // Function hooks at a listener compare counters, too.
            let rests_on_counters = report.rung == Some(Rung::Witness) || report.name == LISTENER;
            if rests_on_counters {
                report.without_witness(&error);
            }
        }
        hooks.retain_mut(|hook| hook.name() != LISTENER || hook.detach(ebpf).is_err());
        None
    }

    /// How many clashes in conntrack the kernel resolved, in namespaces that the filter lets through; nothing where
    /// that cannot be told. `exact` takes a look at every namespace; else those are counted which a drop has shown.
    pub fn resolved_clashes(&mut self, exact: bool) -> Option<u64> {
        let witness = self.witness.as_ref()?;
        if exact {
            witness.walk(&mut self.ebpf).ok()?;
        }
        self.counters.resolved().ok()
    }

    /// Forgets the counters of namespaces that have ended, once many are remembered. To be called now and then.
    pub fn tend(&mut self) {
        if let Some(witness) = &mut self.witness {
            // Next time, then: a full map names fewer drops and no wrong one.
            let _later = witness.tend(&mut self.ebpf);
        }
    }

    /// How the probe points are observed.
    #[must_use]
    pub fn reports(&self) -> &[ProbeReport] {
        &self.reports
    }

    /// Waits until there may be records.
    ///
    /// # Errors
    ///
    /// When the ring cannot be watched any more.
    pub async fn wait(&mut self) -> Result<(), LoadError> {
        self.ring.wait().await.map_err(|source| LoadError::Io { action: "watch the event ring", source })
    }

    /// Hands up to `limit` records to `take`; returns how many there were.
    pub fn drain(&mut self, limit: usize, take: impl FnMut(&[u8])) -> usize {
        self.ring.drain(limit, take)
    }

    /// Writes what the debug channel holds.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Whether the debug channel is open.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.logger.is_some()
    }

    /// Detaches the hooks: from here on nothing is counted and no record is added.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn detach(&mut self) -> Result<(), LoadError> {
        self.hooks.iter_mut().try_for_each(|hook| hook.detach(&mut self.ebpf))
    }

    /// Reads all counters; exact once detached.
    ///
    /// # Errors
    ///
    /// When a map or the program's figures cannot be read.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        let counters = self.counters.read().map_err(|source| LoadError::Map { map: "DROPS", source })?;
        Ok(Counters { missed: self.missed()?, ..counters })
    }

    /// Events lost so far.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn lost(&self) -> Result<u64, LoadError> {
        self.counters.lost().map_err(|source| LoadError::Map { map: "CELLS", source })
    }

    /// What TCP did about lost packets; exact once detached. Nothing where that was not asked for.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn harm(&self) -> Result<Option<HarmTotals>, LoadError> {
        if !self.harm {
            return Ok(None);
        }
        let observed = Harm::ALL.map(|what| {
            let name = harm::PROBES[what as usize].name;
            self.reports.iter().any(|report| report.name == name && report.is_observed())
        });
        let (counts, lost) =
            self.counters.harm().map_err(|source| LoadError::Map { map: "CELLS", source })?;
        Ok(Some(HarmTotals::new(counts, observed, lost)))
    }

    /// Drops that the counting program was skipped for.
    fn missed(&self) -> Result<u64, LoadError> {
        self.hooks.first().map_or(Ok(0), |hook| hook.missed(&self.ebpf))
    }
}

/// Gives memory that was freed back to the system: loading needs a lot of it, running very little.
fn return_memory() {
    // Other C libraries give back what is freed as they go.
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time, it touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// CPUs up to which the counter map gets all its keys.
const FULL_KEYS_CPUS: u32 = 64;

/// Possible CPUs: each holds a value of every key.
fn cpus() -> u32 {
    aya::util::nr_cpus().map_or(FULL_KEYS_CPUS, |cpus| u32::try_from(cpus).unwrap_or(FULL_KEYS_CPUS)).max(1)
}

/// Keys of the counter map: each takes memory on every possible CPU, so a large machine gets fewer.
fn max_keys() -> u32 {
    /// Enough for the causes of a small machine's containers.
    const FEWEST: u32 = 512;
    let cpus = cpus();
    if cpus <= FULL_KEYS_CPUS { MAX_KEYS } else { (MAX_KEYS * FULL_KEYS_CPUS / cpus).max(FEWEST) }
}

/// Keys of the counter map and the kernel memory they take, in bytes.
#[must_use]
pub fn counter_memory() -> (u32, u64) {
    /// `struct htab_elem` before the key (kernel/bpf/hashtab.c), and the pointer to the per-CPU values.
    const OVERHEAD: u64 = 56;
    let keys = max_keys();
    let key = size_of::<DropKey>() as u64 + OVERHEAD;
    let values = size_of::<DropCount>() as u64 * u64::from(cpus());
    (keys, u64::from(keys) * (key + values))
}
