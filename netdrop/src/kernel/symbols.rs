//! Names of kernel text addresses, from `/proc/kallsyms`.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a 6.18 kernel, and module lines of a 6.1 one.
    const KALLSYMS: &str = "\
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000010 T __entry_text_start
ffffffff81000010 t __pfx_ret_from_fork_asm
ffffffff81000040 T ret_from_fork_asm
ffffffff81001a87 T __entry_text_end
ffffffff81104000 T srso_alias_safe_ret
ffffffff81b00000 T __softirqentry_text_start
ffffffff81b00000 T tcp_v4_rcv
ffffffff81b01000 t tcp_v4_fill_cb
ffffffff81b01080 t copy_name
ffffffff81b01100 t copy_name
ffffffff81b01200 t drop_it.isra.0
ffffffff81b01280 W weak_alias
ffffffff81b01280 T strong_alias
ffffffff822090c8 T _etext
ffffffff822090d0 D __start_rodata
ffffffff83783000 T _sinittext
ffffffff83783000 B __init_begin
ffffffff83783010 t tcp_v4_rcv.part.0.cold
ffffffff837f8910 T _einittext
ffffffff83b264b0 R __start_runtime_ptr_dentry_hashtable
ffffffffc0800000 t nft_do_chain\t[nf_tables]
ffffffffc0800400 t copy_name\t[nf_tables]
ffffffffc0700000 t nf_conntrack_in\t[nf_conntrack]
ffffffffc0201000 t ftrace_trampoline\t[__builtin__ftrace]
";

    fn parse(text: &str) -> Result<Symbols, SymbolsError> {
        Symbols::parse(text.as_bytes())
    }

    fn symbols() -> Symbols {
        parse(KALLSYMS).unwrap()
    }

    fn resolved(symbols: &Symbols, address: u64) -> Option<(String, u64, Option<String>)> {
        symbols.resolve(address).map(|found| (found.name.into(), found.offset, found.module.map(Into::into)))
    }

    #[test]
    fn addresses_resolve_to_name_offset_and_module() {
        let symbols = symbols();
        assert_eq!(resolved(&symbols, 0xffff_ffff_81b0_0437), Some(("tcp_v4_rcv".into(), 0x437, None)));
        assert_eq!(resolved(&symbols, 0xffff_ffff_81b0_1000), Some(("tcp_v4_fill_cb".into(), 0, None)));
        assert_eq!(
            resolved(&symbols, 0xffff_ffff_c080_0010),
            Some(("nft_do_chain".into(), 0x10, Some("nf_tables".into())))
        );
        assert_eq!(symbols.malformed(), 0);
    }

    #[test]
    fn aliases_resolve_to_the_first_listed_and_never_to_a_marker() {
        let symbols = symbols();
        assert_eq!(resolved(&symbols, 0xffff_ffff_8100_0001).unwrap().0, "srso_alias_untrain_ret");
        assert_eq!(resolved(&symbols, 0xffff_ffff_81b0_1281).unwrap().0, "weak_alias");
    }

    #[test]
    fn suffixes_are_stripped_and_kept_in_the_raw_name() {
        let symbols = symbols();
        let found = symbols.resolve(0xffff_ffff_8378_3020).unwrap();
        assert_eq!(
            (found.name, found.raw_name, found.offset),
            ("tcp_v4_rcv", "tcp_v4_rcv.part.0.cold", 0x10)
        );
        for (raw, name) in [
            ("a.isra.0", "a"),
            ("a.constprop.0.isra.12.cold", "a"),
            ("a.part.0.constprop.1", "a"),
            ("a.cold.3", "a"),
            ("a.llvm.10293847", "a"),
            ("a.__uniq.2233.llvm.1", "a"),
            ("a.lto_priv.0", "a"),
            ("a", "a"),
            ("a.isra.x", "a.isra.x"),
            ("a.0", "a.0"),
            ("partial.b", "partial.b"),
            (".cold", ".cold"),
        ] {
            assert_eq!(stripped(raw), name, "{raw}");
        }
    }

    #[test]
    fn holes_name_nothing() {
        let symbols = symbols();
        for address in [
            0,
            0xffff_ffff_80ff_ffff, // before all text
            0xffff_ffff_8100_1a87, // an end marker
            0xffff_ffff_8108_0000, // between two text sections
            0xffff_ffff_8220_90c8, // _etext
            0xffff_ffff_8300_0000, // rodata, data
            0xffff_ffff_837f_8910, // _einittext
            0xffff_ffff_c020_9001, // beyond what a trampoline can be
            0xffff_ffff_c070_8000, // between modules
            0xffff_ffff_c100_0000, // after the last module
            u64::MAX,
        ] {
            assert_eq!(resolved(&symbols, address), None, "{address:#x}");
        }
        // The last function before a hole is still named.
        assert_eq!(resolved(&symbols, 0xffff_ffff_c070_0fff).unwrap().0, "nf_conntrack_in");
    }

    #[test]
    fn ranges_cover_all_pieces_of_a_function() {
        let symbols = symbols();
        assert_eq!(
            symbols.ranges("tcp_v4_rcv"),
            [(0xffff_ffff_81b0_0000, 0xffff_ffff_81b0_1000), (0xffff_ffff_8378_3010, 0xffff_ffff_837c_3010)]
        );
        assert_eq!(symbols.ranges("tcp_v4_rcv.part.0.cold").len(), 1);
        // Two neighbours merge; the module's namesake stays apart and can be asked for alone.
        assert_eq!(
            symbols.ranges("copy_name"),
            [(0xffff_ffff_81b0_1080, 0xffff_ffff_81b0_1200), (0xffff_ffff_c080_0400, 0xffff_ffff_c080_8400)]
        );
        assert_eq!(symbols.ranges("nf_tables:copy_name"), [(0xffff_ffff_c080_0400, 0xffff_ffff_c080_8400)]);
        assert!(symbols.ranges("nf_tables:tcp_v4_rcv").is_empty());
        assert!(symbols.ranges("tcp_v4_rc").is_empty());
        assert!(symbols.ranges("_etext").is_empty());
    }

    #[test]
    fn an_address_is_given_only_when_it_is_certain() {
        let symbols = symbols();
        assert_eq!(symbols.address("tcp_v4_rcv"), Some(0xffff_ffff_81b0_0000));
        assert_eq!(symbols.address("drop_it"), Some(0xffff_ffff_81b0_1200));
        assert_eq!(symbols.address("strong_alias"), Some(0xffff_ffff_81b0_1280));
        assert_eq!(symbols.address("copy_name"), None);
        assert_eq!(symbols.address("nf_tables:copy_name"), Some(0xffff_ffff_c080_0400));
        assert_eq!(symbols.address("no_such"), None);
    }

    #[test]
    fn misspelt_names_get_suggestions() {
        let symbols = symbols();
        assert_eq!(symbols.suggest("tcp_v4_rvc"), ["tcp_v4_rcv"]);
        assert_eq!(symbols.suggest("nf_tables:nft_do_chian"), ["nft_do_chain"]);
        assert_eq!(symbols.suggest("conntrack"), ["nf_conntrack_in"]);
        assert_eq!(symbols.suggest("tcp_v4"), ["tcp_v4_rcv", "tcp_v4_fill_cb"]);
        assert!(symbols.suggest("entirely_different").is_empty());
    }

    #[test]
    fn hidden_addresses_are_told_from_an_empty_file() {
        assert!(matches!(parse("0000000000000000 T tcp_v4_rcv\n"), Err(SymbolsError::Restricted { .. })));
        assert!(matches!(parse(""), Err(SymbolsError::Empty)));
        assert!(matches!(parse("ffffffff83b264b0 R data\n"), Err(SymbolsError::Empty)));
    }

    #[test]
    fn errors_say_what_is_lost_and_what_to_do() {
        let scratch = tempfile::tempdir().unwrap();
        let message = |text: &str, level: &str| {
            fs::create_dir_all(scratch.path().join("sys/kernel")).unwrap();
            fs::write(scratch.path().join("sys/kernel/kptr_restrict"), level).unwrap();
            fs::write(scratch.path().join("kallsyms"), text).unwrap();
            Symbols::load(scratch.path()).err().map(|error| error.to_string())
        };
        let hidden = "0000000000000000 T tcp_v4_rcv\n";
        assert!(message(hidden, "2\n").unwrap().contains("sysctl kernel.kptr_restrict=1"));
        let one = message(hidden, "1\n").unwrap();
        assert!(
            one.contains("kptr_restrict=1") && one.contains("CAP_SYSLOG") && !one.contains("sysctl"),
            "{one}"
        );
        assert!(message("", "0\n").unwrap().contains("CONFIG_KALLSYMS"));
        assert!(message(KALLSYMS, "0\n").is_none());
        let missing = Symbols::load(&scratch.path().join("absent")).err().unwrap().to_string();
        assert!(missing.contains("kallsyms") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn this_kernel_resolves_its_own_functions() {
        // What the table must say is read from the same file by other means.
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let address = text.lines().find_map(|line| line.strip_suffix(" T ip_rcv"));
        let address = address.map(|digits| u64::from_str_radix(digits, 16).unwrap());
        match Symbols::load(Path::new("/proc")) {
            Ok(symbols) => {
                assert_eq!(symbols.malformed(), 0);
                assert_eq!(symbols.address("ip_rcv"), address);
                let found = symbols.resolve(address.unwrap() + 1).unwrap();
                assert_eq!((found.name, found.offset, found.module), ("ip_rcv", 1, None));
                assert_eq!(symbols.suggest("ip_rvc").first().map(String::as_str), Some("ip_rcv"));
            }
            Err(error) => assert!(
                matches!(error, SymbolsError::Restricted { .. } | SymbolsError::Empty)
                    && address.is_none_or(|a| a == 0),
                "{error}"
            ),
        }
    }

    #[test]
    fn malformed_lines_are_counted_and_skipped() {
        let symbols = parse("zz T bad\nffffffff81b00000 T\n\nffffffff81b00000 T good\n").unwrap();
        assert_eq!((symbols.count(), symbols.malformed()), (1, 2));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text: Vec<u8>, address: u64) {
            if let Ok(symbols) = Symbols::parse(&*text) {
                let _ = symbols.resolve(address);
            }
        }

        #[test]
        fn a_resolved_address_lies_in_a_range_of_its_name(
            starts in proptest::collection::vec((1u64..1 << 40, "[a-z]{1,4}(\\.isra\\.[0-9])?(\\.cold)?"), 1..40),
            address in 1u64..1 << 40,
        ) {
            let text: String = starts.iter().map(|(start, name)| format!("{start:016x} t {name}\n")).collect();
            let symbols = parse(&text).unwrap();
            for address in starts.iter().map(|(start, _)| start + 1).chain([address]) {
                if let Some(found) = symbols.resolve(address) {
                    let ranges = symbols.ranges(found.name);
                    assert!(ranges.iter().any(|(start, end)| (*start..*end).contains(&address)), "{address:#x} {ranges:x?}");
                }
            }
        }
    }
}
