//! Priming the counter witness: each namespace's counters as they are at the start, so that already the first drop
//! in it can be named. The kernel's own list of namespaces is walked by a program of ours, run by hand
//! (BPF_PROG_TEST_RUN): also those that nobody can see from here are in it.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use netdrop_common::witness::{Step, WITNESS_KEYS};

use super::pod::{Answer, Last, Seen};
use crate::say::chain;

/// The program that looks at one namespace on one CPU.
const PROGRAM: &str = "prime";

/// Namespaces after which the walk gives up: the list changes while it is walked, and must not lead in circles.
const MOST: usize = 1 << 16;

/// Why counters cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum WitnessError {
    /// The program does not load or run.
    #[error("cannot run the program that reads them: {}", chain(.0))]
    Program(#[from] ProgramError),
    /// A map is missing or unreadable.
    #[error("cannot read the answer: {0}")]
    Map(#[from] MapError),
    /// It ran, and found nothing.
    #[error(
        "this kernel's counters cannot be read (`struct net`, `struct bpf_array` or per-CPU memory is not as expected)"
    )]
    Unreadable,
    /// The system does not say how many CPUs there are.
    #[error("the number of CPUs is not known")]
    Cpus,
}

/// The walk, ready to be done.
pub(super) struct Witness {
    answer: Array<MapData, Answer>,
    primed: Array<MapData, u32>,
    remembered: HashMap<MapData, Seen, Last>,
    cpus: Vec<u32>,
}

impl Witness {
    /// Loads what the walk needs.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, WitnessError> {
        program(ebpf)?.load()?;
        Ok(Self {
            answer: super::tracer::take_map(ebpf, "STEP")?,
            primed: super::tracer::take_map(ebpf, "PRIMED")?,
            remembered: super::tracer::take_map(ebpf, "WITNESSED")?,
            cpus: aya::util::online_cpus().map_err(|_| WitnessError::Cpus)?,
        })
    }

    /// Notes the counters of all namespaces there are; from then on one that is not among them is new. Returns how
    /// many there were.
    pub(super) fn prime(&mut self, ebpf: &mut Ebpf) -> Result<usize, WitnessError> {
        let namespaces = self.walk(ebpf)?;
        self.primed.set(0, 1, 0)?;
        Ok(namespaces)
    }

    /// Looks at the counters of all namespaces on all CPUs, so that what moved without a drop is counted too.
    pub(super) fn walk(&self, ebpf: &mut Ebpf) -> Result<usize, WitnessError> {
        let namespaces = self.namespaces(ebpf)?;
        for cpu in &self.cpus {
            for step in &namespaces {
                self.step(ebpf, step.net, Some(*cpu))?;
            }
        }
        Ok(namespaces.len())
    }

    /// Forgets counters of namespaces that have ended, once half of the room for counters is taken.
    pub(super) fn tend(&mut self, ebpf: &mut Ebpf) -> Result<(), WitnessError> {
        let keys: Vec<Seen> = self.remembered.keys().collect::<Result<_, _>>()?;
        if keys.len() < WITNESS_KEYS as usize / 2 {
            return Ok(());
        }
        let alive: HashSet<(u64, u32)> =
            self.namespaces(ebpf)?.iter().map(|step| (step.key, step.inode)).collect();
        for key in keys.iter().filter(|Seen(key)| !alive.contains(&(key.net, key.inode))) {
            self.remembered.remove(key)?;
        }
        Ok(())
    }

    /// All namespaces in the kernel's list.
    fn namespaces(&self, ebpf: &mut Ebpf) -> Result<Vec<Step>, WitnessError> {
        let first = self.step(ebpf, 0, None)?;
        if first.net == 0 || first.readable == 0 {
            return Err(WitnessError::Unreadable);
        }
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        let mut address = first.net;
        while seen.insert(address) && seen.len() < MOST {
            let step = self.step(ebpf, address, None)?;
            // The head of the list is no namespace, but leads on to one.
            if step.net != 0 {
                found.push(step);
            }
            if step.next == 0 {
                break;
            }
            address = step.next;
        }
        Ok(found)
    }

    /// One run: on a CPU, or on whichever this is.
    fn step(&self, ebpf: &mut Ebpf, address: u64, cpu: Option<u32>) -> Result<Step, WitnessError> {
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = address;
        options.cpu = cpu;
        program(ebpf)?.test_run(options)?;
        let Answer(step) = self.answer.get(&0, 0)?;
        Ok(step)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, ProgramError> {
    ebpf.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()
}
