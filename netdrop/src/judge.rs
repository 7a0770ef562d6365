//! Counter key → cause: the classify step, once per key.

use std::{collections::HashMap, rc::Rc};

use netdrop_common::{
    facts::{Facts, GATHER_TABLE},
    key::{DropKey, ProbePoint},
};
use serde::Serialize;

use crate::{
    cause::{Catalogue, Class, Confidence, Drop},
    kernel::{Kernel, reasons::Reason},
};

/// The kernel function that dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Function name without compiler suffixes; nothing without symbols.
    pub symbol: Option<String>,
    /// Bytes into the function.
    pub offset: Option<u64>,
    /// Module; nothing for the kernel image.
    pub module: Option<String>,
    /// The return address itself.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
}

fn hexadecimal<S: serde::Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

impl Location {
    /// `symbol+0x1a [module]`, as the kernel prints it.
    #[must_use]
    pub fn with_offset(&self) -> String {
        let module = self.module.as_ref().map(|module| format!(" [{module}]")).unwrap_or_default();
        match (&self.symbol, self.offset) {
            (Some(symbol), Some(offset)) => format!("{symbol}+{offset:#x}{module}"),
            _ => format!("{:#x}", self.address),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(symbol) = &self.symbol else { return write!(f, "{:#x}", self.address) };
        f.write_str(symbol)?;
        match &self.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

/// All that follows from a counter key.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Cause id.
    pub cause: String,
    /// Its title.
    pub title: String,
    /// Class, after the rule's override.
    pub class: Class,
    /// Whether a hook saw the cause or rules concluded it.
    pub confidence: Confidence,
    /// What it was concluded from.
    pub why: String,
    /// Keys of the evidence that speaks for this cause.
    pub evidence: Vec<String>,
    /// The drop reason.
    pub reason: Reason,
    /// Where.
    pub location: Location,
}

impl Judged {
    /// Whether events of this cause carry this key of `evidence`.
    #[must_use]
    pub fn wants(&self, key: &str) -> bool {
        self.evidence.iter().any(|wanted| wanted == key)
    }
}

/// Judges keys, and remembers.
pub struct Judge<'k> {
    catalogue: &'k Catalogue,
    kernel: &'k Kernel,
    known: HashMap<DropKey, Rc<Judged>>,
}

impl<'k> Judge<'k> {
    /// A judge for drops of this kernel.
    #[must_use]
    pub fn new(catalogue: &'k Catalogue, kernel: &'k Kernel) -> Self {
        Self { catalogue, kernel, known: HashMap::new() }
    }

    /// What follows from a key. The namespace does not matter: keys that differ only in it share one verdict.
    pub fn judge(&mut self, key: &DropKey) -> Rc<Judged> {
        let place_free = DropKey { netns_cookie: 0, netns_inode: 0, ..*key };
        if let Some(judged) = self.known.get(&place_free) {
            return Rc::clone(judged);
        }
        let judged = Rc::new(self.classify(key));
        self.known.insert(place_free, Rc::clone(&judged));
        judged
    }

    fn classify(&self, key: &DropKey) -> Judged {
        let reason = self.kernel.reasons.get(key.reason);
        // Where a function as a whole is the place, the address is its first byte.
        let location = if key.probe == ProbePoint::TcpConnRequest as u32 {
            self.locate_at(key.location, 0)
        } else {
            self.locate(key.location)
        };
        let name = reason.qualified();
        let verdict = self.catalogue.classify(&Drop {
            reason: name.as_deref(),
            symbol: location.symbol.as_deref(),
            module: location.module.as_deref(),
            facts: Facts(key.facts),
        });
        Judged {
            cause: verdict.cause.id.clone(),
            title: verdict.cause.title.clone(),
            class: verdict.class,
            confidence: verdict.confidence,
            why: verdict.why,
            evidence: verdict.cause.evidence.clone(),
            reason,
            location,
        }
    }

    fn locate(&self, address: u64) -> Location {
        // A return address: after a call that ends a function it is the first byte of the next one.
        self.locate_at(address, 1)
    }

    /// The function `before` bytes before the address.
    fn locate_at(&self, address: u64, before: u64) -> Location {
        let inside = address.saturating_sub(before);
        match self.kernel.symbols.as_ref().ok().and_then(|symbols| symbols.resolve(inside)) {
            Some(symbol) => Location {
                symbol: Some(symbol.name.to_owned()),
                offset: Some(symbol.offset + before),
                module: symbol.module.map(str::to_owned),
                address,
            },
            None => Location { symbol: None, offset: None, module: None, address },
        }
    }

    /// Name of the kernel function that a return address leads back into.
    #[must_use]
    pub fn caller(&self, address: u64) -> Option<&'k str> {
        self.function(address.saturating_sub(1))
    }

    /// A kernel stack as people read it, from the function that dropped on.
    #[must_use]
    pub fn stack(&self, frames: &[u64], location: u64) -> Vec<String> {
        // What comes before is the call that frees the skb, and the tracing program itself.
        let start = frames.iter().position(|frame| *frame == location).unwrap_or(0);
        frames[start..].iter().map(|frame| self.locate(*frame).with_offset()).collect()
    }

    /// Name of the kernel function at an address.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<&'k str> {
        let symbols = self.kernel.symbols.as_ref().ok()?;
        symbols.resolve(address).map(|symbol| symbol.name)
    }
}

/// The gather table: for each core reason, the fact groups that the catalogue's rules ask for, and the
/// evidence that its causes can use.
#[must_use]
pub fn gather_table(catalogue: &Catalogue, kernel: &Kernel) -> [u16; GATHER_TABLE] {
    let mut table = [0; GATHER_TABLE];
    for (code, slot) in (0..).zip(table.iter_mut()) {
        let name = kernel.reasons.get(code).qualified();
        *slot = catalogue.gather(name.as_deref()).union(catalogue.evidence(name.as_deref())).0;
    }
    table
}
