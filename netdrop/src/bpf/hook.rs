//! One program on one tracepoint: loaded, attached, detached.

use std::os::fd::AsFd as _;

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, Program, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLinkId,
        tp_btf::BtfTracePointLinkId,
    },
};

use super::{
    fdinfo,
    probe::{Probe, ProbeReport, Rung},
    tracer::LoadError,
};
use crate::{kernel::Kernel, say::chain};

/// A loaded program and, while it is attached, its link.
pub(super) struct Hook {
    probe: &'static Probe,
    program: String,
    link: Option<Link>,
}

enum Link {
    TpBtf(BtfTracePointLinkId),
    RawTp(RawTracePointLinkId),
}

impl Hook {
    /// Loads the best program for the probe point that the kernel takes, or the one for `rung` alone, and
    /// notes in the report how that went. Nothing when none loaded.
    ///
    /// # Errors
    ///
    /// When none loaded and nothing can be traced without it.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        btf: &Btf,
        kernel: &Kernel,
        probe: &'static Probe,
        rung: Option<Rung>,
        report: &mut ProbeReport,
    ) -> Result<Option<Self>, LoadError> {
        let only = rung.as_ref().map(std::slice::from_ref);
        let mut last = None;
        for rung in only.unwrap_or(Rung::LADDER) {
            let Some(program) = probe.program(kernel, *rung) else {
                report.errors.push(format!("this kernel has no tracepoint {}", probe.name));
                break;
            };
            match load(ebpf, &program, probe.tracepoint(), btf) {
                Ok(instructions) => {
                    report.rung = Some(*rung);
                    report.program = Some(program.clone());
                    report.instructions = instructions;
                    return Ok(Some(Self { probe, program, link: None }));
                }
                Err(error) => {
                    report.errors.push(format!("{}: {}", rung.as_str(), brief(&error)));
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
        let link = match program(ebpf, &self.program) {
            Ok(Program::BtfTracePoint(program)) => program.attach().map(Link::TpBtf),
            Ok(Program::RawTracePoint(program)) => program.attach(self.probe.tracepoint()).map(Link::RawTp),
            Ok(_) => Err(ProgramError::UnexpectedProgramType),
            Err(error) => Err(error),
        };
        let link = link.map_err(|error| LoadError::of(&format!("attach to {}", self.probe.name), error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Detaches it: from here on it does not run.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let detached = program(ebpf, &self.program).and_then(|program| match link {
            Link::TpBtf(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link),
            Link::RawTp(link) => <&mut RawTracePoint>::try_from(program)?.detach(link),
        });
        detached.map_err(|error| LoadError::of(&format!("detach from {}", self.probe.name), error))
    }

    /// Runs the kernel skipped so far, see `recursion_misses`.
    pub(super) fn missed(&self, ebpf: &Ebpf) -> Result<u64, LoadError> {
        let fd = match ebpf.program(&self.program) {
            Some(Program::BtfTracePoint(program)) => program.fd(),
            Some(Program::RawTracePoint(program)) => program.fd(),
            _ => return Ok(0),
        };
        let fd = fd.map_err(|error| LoadError::of("find the program's descriptor", error))?;
        let misses = fdinfo::recursion_misses(fd.as_fd())
            .map_err(|source| LoadError::Io { action: "read the program's figures", source })?;
        Ok(misses.unwrap_or(0))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)
}

/// Loads a program and returns its size in instructions, where the kernel says.
fn load(ebpf: &mut Ebpf, name: &str, tracepoint: &str, btf: &Btf) -> Result<Option<u32>, ProgramError> {
    let program = program(ebpf, name)?;
    match program {
        Program::BtfTracePoint(program) => program.load(tracepoint, btf)?,
        Program::RawTracePoint(program) => program.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(program.info().ok().and_then(|info| info.size_translated()).map(|bytes| bytes / 8))
}

/// Why a program did not load, in a line: of the verifier's whole account, its objection.
fn brief(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    let log = verifier_log.to_string();
    /// Lines in which the verifier sums up.
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    let objection = log.lines().rev().find(|line| {
        let line = line.trim();
        !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure))
    });
    objection.map_or_else(|| io_error.to_string(), |objection| format!("{io_error}: {}", objection.trim()))
}
