//! Priming the counter witness: each namespace's counters as they are at the start, so that already the first drop
//! in it can be named. The kernel's own list of namespaces is walked by a program of ours, run by hand
//! (BPF_PROG_TEST_RUN): also those that nobody can see from here are in it.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use netdrop_common::witness::Step;

use super::pod::Answer;
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
    cpus: Vec<u32>,
}

impl Witness {
    /// Loads what the walk needs.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, WitnessError> {
        program(ebpf)?.load()?;
        Ok(Self {
            answer: super::tracer::take_map(ebpf, "STEP")?,
            primed: super::tracer::take_map(ebpf, "PRIMED")?,
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
                found.push(address);
            }
            if step.next == 0 {
                break;
            }
            address = step.next;
        }
        for cpu in &self.cpus {
            for address in &found {
                self.step(ebpf, *address, Some(*cpu))?;
            }
        }
        Ok(found.len())
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
