//! The programs of one probe point: loaded, attached, detached.

use std::{io, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint,
        fentry::FEntryLinkId, fexit::FExitLinkId, kprobe::KProbeLinkId, raw_trace_point::RawTracePointLinkId,
        tp_btf::BtfTracePointLinkId, trace_point::TracePointLinkId,
    },
};

use super::{
    fdinfo,
    probe::{Probe, ProbeReport, Rung, Target, Way},
    tracer::LoadError,
};
use crate::{
    kernel::{Kernel, tracefs},
    say::chain,
};

/// The loaded programs of a rung and, while they are attached, their links.
pub(super) struct Hook {
    probe: &'static Probe,
    parts: Vec<Part>,
}

struct Part {
    program: String,
    target: Target,
    /// Of the functions of a kprobe, those that there are.
    functions: Vec<&'static str>,
    links: Vec<Link>,
}

/// Why a rung cannot be used.
#[derive(Debug, thiserror::Error)]
enum WayError {
    /// There is nothing to hook.
    #[error("no function {} to hook: its module is not loaded, or the compiler has made it part of another",
        .0.join(" or "))]
    NoFunction(&'static [&'static str]),
    /// The ends of system calls cannot be hooked.
    #[error("{0}")]
    SyscallExit(String),
    /// The kernel refuses.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

enum Link {
    TpBtf(BtfTracePointLinkId),
    RawTp(RawTracePointLinkId),
    Fentry(FEntryLinkId),
    Fexit(FExitLinkId),
    Kprobe(KProbeLinkId),
    SyscallExit(TracePointLinkId),
}

/// Why typed programs are left out on old kernels, see [`Kernel::survives_typed_faults`].
const UNSAFE: &str =
    "not used before 6.11: on older kernels a pointer that is none may be fatal in such a program";

/// What hooks are made of and by.
pub(super) struct Loader<'a> {
    pub(super) btf: &'a Btf,
    pub(super) kernel: &'a Kernel,
    /// The rungs to use; empty for the best that loads.
    pub(super) only: &'a [Rung],
    /// Whether `skb:consume_skb` may be hooked.
    pub(super) consume: bool,
}

impl Hook {
    /// Loads the best rung that the kernel takes and notes in the report how that went. Nothing when none loaded, or
    /// the one that did needs no program. All but the probe point that counts are attached at once: kprobes load
    /// where they cannot be attached, and then the next rung has its turn.
    ///
    /// # Errors
    ///
    /// When none loaded and nothing can be traced without it.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        loader: &Loader<'_>,
        probe: &'static Probe,
        report: &mut ProbeReport,
    ) -> Result<Option<Self>, LoadError> {
        let ways = probe.ways(loader.kernel, loader.only, loader.consume);
        if ways.is_empty() {
            report.errors.push(format!("this kernel has no tracepoint {}", probe.name));
        }
        let mut last = None;
        for way in ways {
            // Unless asked for by name: of a witness, the other kind of program does as well.
            let asked_for = way.rung != Rung::Witness && loader.only.contains(&way.rung);
            if way.is_typed() && !loader.kernel.survives_typed_faults() && !asked_for {
                report.errors.push(format!("{}: {UNSAFE}", way.rung.as_str()));
                continue;
            }
            match Self::try_way(ebpf, loader, probe, &way) {
                Ok((hook, instructions)) => {
                    report.rung = Some(way.rung);
                    report.price = Some(way.price).filter(|price| !price.is_empty());
                    report.programs = hook.parts.iter().map(|part| part.program.clone()).collect();
                    report.instructions = instructions;
                    return Ok((!hook.parts.is_empty()).then_some(hook));
                }
                Err(error) => {
                    report.errors.push(format!("{}: {}", way.rung.as_str(), brief(&error)));
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if probe.required() => {
                Err(LoadError::of(&format!("load the program for {}", probe.name), error))
            }
            _ => Ok(None),
        }
    }

    /// Loads all programs of a rung, or none.
    fn try_way(
        ebpf: &mut Ebpf,
        loader: &Loader<'_>,
        probe: &'static Probe,
        way: &Way,
    ) -> Result<(Self, Option<u32>), WayError> {
        let mut hook = Self { probe, parts: Vec::new() };
        let mut instructions = None;
        for (program, target) in &way.parts {
            let functions = match target {
                Target::Kprobe(functions) => present(functions, loader.kernel),
                _ => Vec::new(),
            };
            if let Target::Kprobe(functions_wanted) = target
                && functions.is_empty()
            {
                hook.unload(ebpf);
                return Err(WayError::NoFunction(functions_wanted));
            }
            if let Target::SyscallExit(_) = target
                && let Some(why) = no_syscall_exits(loader.kernel)
            {
                hook.unload(ebpf);
                return Err(WayError::SyscallExit(why));
            }
            let loaded = load(ebpf, program, *target, loader.btf);
            hook.parts.push(Part { program: program.clone(), target: *target, functions, links: Vec::new() });
            match loaded {
                Ok(Some(size)) => instructions = Some(instructions.unwrap_or(0) + size),
                Ok(None) => {}
                Err(error) => {
                    hook.unload(ebpf);
                    return Err(error.into());
                }
            }
        }
        if !probe.required()
            && let Err(error) = hook.try_attach(ebpf)
        {
            hook.unload(ebpf);
            return Err(error.into());
        }
        Ok((hook, instructions))
    }

    /// The kernel's name of its probe point.
    pub(super) const fn name(&self) -> &'static str {
        self.probe.name
    }

    /// Whether nothing can be traced without it.
    pub(super) const fn required(&self) -> bool {
        self.probe.required()
    }

    /// Attaches it.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        self.try_attach(ebpf).map_err(|error| LoadError::of(&format!("attach to {}", self.probe.name), error))
    }

    fn try_attach(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        // The return first: an entry whose return is not seen would be remembered for nothing.
        for Part { program: name, target, functions, links } in self.parts.iter_mut().rev() {
            match (program(ebpf, name)?, *target) {
                (Program::BtfTracePoint(program), Target::TpBtf(_)) => {
                    links.push(Link::TpBtf(program.attach()?));
                }
                (Program::RawTracePoint(program), Target::RawTp(name)) => {
                    links.push(Link::RawTp(program.attach(name)?));
                }
                (Program::FEntry(program), Target::Fentry(_)) => links.push(Link::Fentry(program.attach()?)),
                (Program::FExit(program), Target::Fexit(_)) => links.push(Link::Fexit(program.attach()?)),
                (Program::KProbe(program), Target::Kprobe(_)) => {
                    for function in functions {
                        links.push(Link::Kprobe(program.attach(*function, 0)?));
                    }
                }
                (Program::TracePoint(program), Target::SyscallExit(name)) => {
                    let attached = tracefs::within(|| program.attach("syscalls", name));
                    let refused = |error| ProgramError::IOError(io::Error::other(error));
                    links.push(Link::SyscallExit(attached.map_err(refused)??));
                }
                _ => return Err(ProgramError::UnexpectedProgramType),
            }
        }
        Ok(())
    }

    /// Detaches it: from here on it does not run.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        self.try_detach(ebpf)
            .map_err(|error| LoadError::of(&format!("detach from {}", self.probe.name), error))
    }

    fn try_detach(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        for part in &mut self.parts {
            for link in std::mem::take(&mut part.links) {
                let program = program(ebpf, &part.program)?;
                match link {
                    Link::TpBtf(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link),
                    Link::RawTp(link) => <&mut RawTracePoint>::try_from(program)?.detach(link),
                    Link::Fentry(link) => <&mut FEntry>::try_from(program)?.detach(link),
                    Link::Fexit(link) => <&mut FExit>::try_from(program)?.detach(link),
                    Link::Kprobe(link) => <&mut KProbe>::try_from(program)?.detach(link),
                    Link::SyscallExit(link) => <&mut TracePoint>::try_from(program)?.detach(link),
                }?;
            }
        }
        Ok(())
    }

    /// Gives up what was loaded of a rung that does not work.
    fn unload(&mut self, ebpf: &mut Ebpf) {
        let _gone_anyway = self.try_detach(ebpf);
        for part in &self.parts {
            let _not_loaded = match program(ebpf, &part.program) {
                Ok(Program::BtfTracePoint(program)) => program.unload(),
                Ok(Program::RawTracePoint(program)) => program.unload(),
                Ok(Program::FEntry(program)) => program.unload(),
                Ok(Program::FExit(program)) => program.unload(),
                Ok(Program::KProbe(program)) => program.unload(),
                Ok(Program::TracePoint(program)) => program.unload(),
                _ => Ok(()),
            };
        }
    }

    /// Runs the kernel skipped so far, see `recursion_misses`.
    pub(super) fn missed(&self, ebpf: &Ebpf) -> Result<u64, LoadError> {
        let mut missed = 0;
        for part in &self.parts {
            let fd = match ebpf.program(&part.program) {
                Some(Program::BtfTracePoint(program)) => program.fd(),
                Some(Program::RawTracePoint(program)) => program.fd(),
                _ => continue,
            };
            let fd = fd.map_err(|error| LoadError::of("find the program's descriptor", error))?;
            let misses = fdinfo::recursion_misses(fd.as_fd())
                .map_err(|source| LoadError::Io { action: "read the program's figures", source })?;
            missed += misses.unwrap_or(0);
        }
        Ok(missed)
    }
}

/// Those of `functions` that the kernel or one of its modules has; all of them where its symbols cannot be read.
fn present(functions: &[&'static str], kernel: &Kernel) -> Vec<&'static str> {
    let is_there =
        |function: &str| kernel.symbols.as_ref().map_or(true, |symbols| !symbols.ranges(function).is_empty());
    functions.iter().copied().filter(|function| is_there(function)).collect()
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)
}

/// Why the ends of system calls cannot be hooked; nothing where they can.
fn no_syscall_exits(kernel: &Kernel) -> Option<String> {
    if !kernel.calls.has_registers {
        return Some(
            "this kernel does not show programs what a system call was given (bpf_task_pt_regs, 5.15)"
                .to_owned(),
        );
    }
    kernel.calls.exit_result.as_ref().err().map(ToString::to_string)
}

/// Loads a program and returns its size in instructions, where the kernel says.
fn load(ebpf: &mut Ebpf, name: &str, target: Target, btf: &Btf) -> Result<Option<u32>, ProgramError> {
    let info = match (program(ebpf, name)?, target) {
        (Program::BtfTracePoint(program), Target::TpBtf(tracepoint)) => {
            program.load(tracepoint, btf)?;
            program.info()
        }
        (Program::RawTracePoint(program), Target::RawTp(_)) => {
            program.load()?;
            program.info()
        }
        (Program::FEntry(program), Target::Fentry(function)) => {
            program.load(function, btf)?;
            program.info()
        }
        (Program::FExit(program), Target::Fexit(function)) => {
            program.load(function, btf)?;
            program.info()
        }
        (Program::KProbe(program), Target::Kprobe(_)) => {
            program.load()?;
            program.info()
        }
        (Program::TracePoint(program), Target::SyscallExit(_)) => {
            program.load()?;
            program.info()
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Ok(info.ok().and_then(|info| info.size_translated()).map(|bytes| bytes / 8))
}

/// Why a program did not load, in a line: of the verifier's whole account, its objection.
fn brief(error: &WayError) -> String {
    let WayError::Program(ProgramError::LoadError { io_error, verifier_log }) = error else {
        return chain(error);
    };
    let log = verifier_log.to_string();
    /// Lines in which the verifier sums up.
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    let objection = log.lines().rev().find(|line| {
        let line = line.trim();
        !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure))
    });
    objection.map_or_else(|| io_error.to_string(), |objection| format!("{io_error}: {}", objection.trim()))
}
