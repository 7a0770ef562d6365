//! The symbol table against made-up and real kallsyms.

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
    assert_eq!((found.name, found.raw_name, found.offset), ("tcp_v4_rcv", "tcp_v4_rcv.part.0.cold", 0x10));
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
