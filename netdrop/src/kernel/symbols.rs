//! Names of kernel text addresses, from `/proc/kallsyms`.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Longest reach of a symbol in the kernel image. The largest functions are some 20 KB, several times
/// that with sanitizers; the holes between text sections are a megabyte and more.
const MAX_EXTENT_IMAGE: u64 = 256 << 10;

/// Longest reach of a symbol in a module or BPF image: nothing marks where the last function ends, and
/// what follows may belong to somebody else.
const MAX_EXTENT_MODULE: u64 = 32 << 10;

/// Suffixes that compilers append to the copies and pieces they make of a function. `.cold` and
/// `.localalias` come bare, the others with an argument.
const SUFFIXES: [&str; 9] =
    ["isra", "constprop", "part", "cold", "llvm", "lto_priv", "localalias", "clone", "__uniq"];

/// Names offered for a misspelt one.
const SUGGESTIONS: usize = 5;

/// Why there are no kernel symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// The file could not be opened or read.
    #[error(
        "cannot read kernel symbols from {}: {source}; code locations stay raw addresses (is /proc mounted here?)",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the read failed with.
        source: io::Error,
    },
    /// The kernel shows every address as 0 to this process.
    #[error(
        "the kernel hides symbol addresses from this process (kernel.kptr_restrict={}): code locations stay raw \
         addresses, causes that need a location are not named, --location cannot be used; {}",
        restrict.map_or_else(|| "?".to_owned(), |level| level.to_string()),
        restricted_advice(*restrict)
    )]
    Restricted {
        /// `kernel.kptr_restrict`, where it could be read.
        restrict: Option<u8>,
    },
    /// There are lines, but no text symbol among them, or no line at all.
    #[error(
        "kallsyms lists no function: code locations stay raw addresses (a kernel without CONFIG_KALLSYMS?)"
    )]
    Empty,
}

fn restricted_advice(restrict: Option<u8>) -> &'static str {
    // kallsyms_show_value() (kernel/ksyms_common.c): 2 hides from everybody, 1 and 0 show to CAP_SYSLOG.
    match restrict {
        Some(2..) => {
            "run `sysctl kernel.kptr_restrict=1` and run netdrop with CAP_SYSLOG, for example as root"
        }
        _ => "run netdrop with CAP_SYSLOG, for example as root",
    }
}

/// A kernel function that contains an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Name as in the source: compiler suffixes such as `.isra.0` or `.cold` are stripped.
    pub name: &'a str,
    /// Name as in the symbol table.
    pub raw_name: &'a str,
    /// Distance of the address from the symbol's start.
    pub offset: u64,
    /// Module that holds the function, `None` for the kernel image.
    pub module: Option<&'a str>,
}

/// Name and home of one symbol: a slice of the arena and an index of the module table.
#[derive(Clone, Copy)]
struct Entry {
    name: u32,
    length: u16,
    /// 0 is the kernel image, n is `modules[n - 1]`.
    module: u16,
}

/// The kernel's text symbols, sorted by address.
///
/// Data symbols are not needed, so a kernel without `CONFIG_KALLSYMS_ALL` serves as well. Nor are the
/// `__pfx_` symbols of padding before functions, which would double the table.
pub struct Symbols {
    addresses: Box<[u64]>,
    entries: Box<[Entry]>,
    names: Box<str>,
    modules: Box<[Box<str>]>,
    malformed: usize,
}

impl Symbols {
    /// Reads `kallsyms` below `proc_root`.
    pub fn load(proc_root: &Path) -> Result<Self, SymbolsError> {
        let path = proc_root.join("kallsyms");
        let file =
            File::open(&path).map_err(|source| SymbolsError::Unreadable { path: path.clone(), source })?;
        Self::parse(BufReader::with_capacity(64 << 10, file)).map_err(|error| match error {
            SymbolsError::Unreadable { source, .. } => SymbolsError::Unreadable { path, source },
            SymbolsError::Restricted { .. } => {
                let level = fs::read_to_string(proc_root.join("sys/kernel/kptr_restrict"));
                SymbolsError::Restricted { restrict: level.ok().and_then(|text| text.trim().parse().ok()) }
            }
            SymbolsError::Empty => SymbolsError::Empty,
        })
    }

    /// Reads symbols from kallsyms text.
    pub fn parse(mut text: impl BufRead) -> Result<Self, SymbolsError> {
        let unreadable = |source| SymbolsError::Unreadable { path: PathBuf::from("kallsyms"), source };
        let mut building = Building::default();
        let mut line = Vec::with_capacity(256);
        while text.read_until(b'\n', &mut line).map_err(unreadable)? > 0 {
            building.line(&line);
            line.clear();
        }
        building.finish()
    }

    /// How many symbols are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Lines that were not understood and are missing here; 0 on every kernel known.
    #[must_use]
    pub fn malformed(&self) -> usize {
        self.malformed
    }

    /// The function that contains `address`; `None` outside kernel text and in the holes of it.
    ///
    /// Of several names for one address, the first listed counts, as in the kernel's own messages.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self.addresses.partition_point(|start| *start <= address);
        let start = *self.addresses.get(after.checked_sub(1)?)?;
        let first = self.addresses[..after].partition_point(|other| *other < start);
        if address >= self.end(first) {
            return None;
        }
        let raw_name = self.raw_name(first);
        if is_section_marker(raw_name) {
            return None;
        }
        Some(Symbol {
            name: stripped(raw_name),
            raw_name,
            offset: address - start,
            module: self.module(self.entries[first].module),
        })
    }

    /// Start and end of every symbol whose stripped name is `name`, adjoining ones merged: a function has
    /// its `.cold` and `.part` pieces elsewhere, and unrelated static functions may share a name.
    /// `module:name` asks for one module's symbols.
    #[must_use]
    pub fn ranges(&self, name: &str) -> Vec<(u64, u64)> {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for index in self.named(name) {
            let (start, end) = (self.addresses[index], self.end(index));
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    }

    /// Where the function `name` (or `module:name`) begins; `None` when it is unknown or when several
    /// functions have that name.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<u64> {
        let entry_points = self.named(name).filter(|index| {
            // Pieces are not where a function is entered.
            let raw = self.raw_name(*index);
            !raw.contains(".cold") && !raw.contains(".part.")
        });
        let mut found = None;
        for index in entry_points {
            let address = self.addresses[index];
            match found {
                None => found = Some(address),
                Some(other) if other == address => {}
                Some(_) => return None,
            }
        }
        found
    }

    /// Known names that look like `wrong`, best first.
    #[must_use]
    pub fn suggest(&self, wrong: &str) -> Vec<String> {
        let wanted = wrong.rsplit_once(':').map_or(wrong, |(_, name)| name);
        let reach = (wanted.len() / 4).clamp(1, 4);
        let letters = letters(wanted);
        let mut near: Vec<(usize, &str)> = Vec::new();
        for index in 0..self.entries.len() {
            let name = stripped(self.raw_name(index));
            // One edit changes the length by at most one and the set of letters by at most two: this
            // rules out nearly every name before the quadratic comparison.
            let plausible = name.len().abs_diff(wanted.len()) <= reach
                && (self::letters(name) ^ letters).count_ones() as usize <= 2 * reach;
            let score = if plausible {
                strsim::osa_distance(name, wanted)
            } else if wanted.len() >= 3 && name.contains(wanted) {
                // Half a name: after those that are a typo away, the shortest completion first.
                reach + 1 + (name.len() - wanted.len()) * 2 + usize::from(!name.starts_with(wanted))
            } else {
                continue;
            };
            if plausible && score > reach {
                continue;
            }
            near.push((score, name));
        }
        near.sort_unstable();
        near.dedup();
        near.into_iter().take(SUGGESTIONS).map(|(_, name)| name.to_owned()).collect()
    }

    /// Indexes of the symbols whose stripped (or raw) name is `name`, in order of address.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let (module, name) = match name.split_once(':') {
            Some((module, name)) => (Some(module), name),
            None => (None, name),
        };
        (0..self.entries.len()).filter(move |index| {
            let raw = self.raw_name(*index);
            raw.starts_with(name)
                && (raw == name || stripped(raw) == name)
                && !is_section_marker(raw)
                && module.is_none_or(|module| self.module(self.entries[*index].module) == Some(module))
        })
    }

    /// Where the symbol ends: at the next one, or where nothing says that it reaches further.
    fn end(&self, index: usize) -> u64 {
        let start = self.addresses[index];
        let Entry { module, .. } = self.entries[index];
        let next = index + self.addresses[index..].partition_point(|other| *other == start);
        let limit = start.saturating_add(if module == 0 { MAX_EXTENT_IMAGE } else { MAX_EXTENT_MODULE });
        self.addresses.get(next).map_or(limit, |next| limit.min(*next))
    }

    fn raw_name(&self, index: usize) -> &str {
        let Entry { name, length, .. } = self.entries[index];
        let start = name as usize;
        &self.names[start..start + usize::from(length)]
    }

    fn module(&self, module: u16) -> Option<&str> {
        let index = usize::from(module).checked_sub(1)?;
        self.modules.get(index).map(|name| &**name)
    }
}

/// Symbols while they are read.
#[derive(Default)]
struct Building {
    symbols: Vec<(u64, Entry)>,
    names: String,
    modules: Vec<Box<str>>,
    hidden: usize,
    malformed: usize,
}

impl Building {
    /// Takes one line: `address type name`, and `[module]` after a tab.
    fn line(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        if self.symbol(line).is_none() {
            self.malformed += 1;
        }
    }

    /// `None` for a line that does not have the form.
    fn symbol(&mut self, line: &[u8]) -> Option<()> {
        let (address, rest) = word(line);
        let (kind, rest) = word(rest);
        let (name, rest) = word(rest);
        let address = hexadecimal(address)?;
        if kind.len() != 1 || name.is_empty() {
            return None;
        }
        if !matches!(kind, b"t" | b"T" | b"w" | b"W") || name.starts_with(b"__pfx_") {
            return Some(());
        }
        if address == 0 {
            self.hidden += 1;
            return Some(());
        }
        let name = str::from_utf8(name).ok()?;
        let module = match rest.trim_ascii() {
            b"" => 0,
            module => self.module(module.strip_prefix(b"[")?.strip_suffix(b"]")?)?,
        };
        let entry = Entry {
            name: u32::try_from(self.names.len()).ok()?,
            length: u16::try_from(name.len()).ok()?,
            module,
        };
        self.names.push_str(name);
        self.symbols.push((address, entry));
        Some(())
    }

    /// The number of a module; its symbols stand together, so the last one is tried first.
    fn module(&mut self, name: &[u8]) -> Option<u16> {
        let name = str::from_utf8(name).ok()?;
        let index = match self.modules.iter().rposition(|known| **known == *name) {
            Some(index) => index,
            None => {
                self.modules.push(name.into());
                self.modules.len() - 1
            }
        };
        u16::try_from(index + 1).ok()
    }

    fn finish(mut self) -> Result<Symbols, SymbolsError> {
        if self.symbols.is_empty() {
            return Err(match self.hidden {
                0 => SymbolsError::Empty,
                _ => SymbolsError::Restricted { restrict: None },
            });
        }
        // Stable, so that aliases keep the kernel's order; a marker only counts where nothing else is.
        let names = self.names;
        let marker = |entry: &Entry| {
            let start = entry.name as usize;
            is_section_marker(&names[start..start + usize::from(entry.length)])
        };
        self.symbols.sort_by_key(|(address, entry)| (*address, marker(entry)));
        Ok(Symbols {
            addresses: self.symbols.iter().map(|(address, _)| *address).collect(),
            entries: self.symbols.iter().map(|(_, entry)| *entry).collect(),
            names: names.into_boxed_str(),
            modules: self.modules.into_boxed_slice(),
            malformed: self.malformed,
        })
    }
}

/// The first word of a line, and what follows the blank after it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(blank) => (&line[..blank], &line[blank + 1..]),
        None => (line, &[]),
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// The function's name in the source: `tcp_drop` for `tcp_drop.isra.0.cold`.
fn stripped(raw: &str) -> &str {
    let mut name = raw;
    while let Some((rest, last)) = name.rsplit_once('.') {
        let shorter = if SUFFIXES.contains(&last) {
            rest
        } else {
            // `.isra.0`, `.llvm.1234567890`, `.__uniq.99`: the argument first, then its word.
            let Some((rest, word)) = rest.rsplit_once('.') else { break };
            if !last.bytes().all(|byte| byte.is_ascii_digit()) || !SUFFIXES.contains(&word) {
                break;
            }
            rest
        };
        if shorter.is_empty() {
            break;
        }
        name = shorter;
    }
    name
}

/// Whether the symbol marks where a section begins or ends (include/asm-generic/sections.h) rather than
/// a function.
fn is_section_marker(name: &str) -> bool {
    matches!(name, "_text" | "_stext" | "_etext" | "_sinittext" | "_einittext" | "__pi__text" | "_end")
        || (name.starts_with("__") && (name.ends_with("text_start") || name.ends_with("text_end")))
}

/// The set of letters in a name, as bits.
fn letters(name: &str) -> u32 {
    name.bytes().fold(0, |set, byte| set | 1 << (byte & 31))
}
