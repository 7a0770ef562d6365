//! The catalogue against the running kernel's own list of reasons.

use std::{fs, io::Write as _, path::Path};

use netdrop_common::facts::Facts;

use super::builtin;
use crate::{
    cause::Drop,
    kernel::{
        btf::KernelBtf,
        reasons::{CORE, Reasons, SUBSYSTEM_ENUMS},
    },
};

/// Where the kernel shows the types of itself and of its loaded modules.
const BTF: &str = "/sys/kernel/btf";

/// The kernel's types and reasons; nothing, said aloud, where it has none.
fn this_kernel(test: &str) -> Option<(KernelBtf, Reasons)> {
    let path = Path::new(KernelBtf::VMLINUX);
    let skip = |why: &str| {
        // Not by a print macro: the test runner would keep it to itself.
        let _ = writeln!(std::io::stderr(), "SKIP: {test}: {why}");
    };
    if !path.exists() {
        skip(&format!("this kernel has no {}", path.display()));
        return None;
    }
    let btf = KernelBtf::open(path).unwrap();
    let reasons = Reasons::read(&btf, Path::new(BTF)).unwrap();
    if !reasons.any() {
        skip("this kernel gives no drop reasons");
        return None;
    }
    Some((btf, reasons))
}

#[test]
fn every_reason_of_this_kernel_has_a_cause() {
    let Some((_, reasons)) = this_kernel("every_reason_of_this_kernel_has_a_cause") else { return };
    let catalogue = builtin();
    let unmapped: Vec<String> = reasons
        .iter()
        .map(|(_, name)| name)
        .filter(|name| name != "NOT_SPECIFIED")
        .filter(|name| {
            let drop = Drop { reason: Some(name), symbol: None, module: None, facts: Facts::default() };
            catalogue.classify(&drop).cause.id == "unknown"
        })
        .collect();
    assert!(
        unmapped.is_empty(),
        "this kernel has reasons that no rule knows: {unmapped:?}. Give each a rule in netdrop/causes/ and a line \
         in netdrop/src/cause/testdata/reasons.txt"
    );
}

#[test]
fn every_subsystem_of_this_kernel_has_a_rule() {
    let Some((btf, _)) = this_kernel("every_subsystem_of_this_kernel_has_a_rule") else { return };
    // Subsystems came in 6.4.
    let subsystems = btf.enumerators("skb_drop_reason_subsys").unwrap().unwrap_or_default();
    for (name, _) in subsystems {
        let name = name.trim_start_matches("SKB_DROP_REASON_SUBSYS_").to_lowercase();
        if name == CORE || name == "num" {
            continue;
        }
        // Modules that are not loaded here may bring reasons that nobody has listed yet.
        let reason = format!("{name}:A_NEW_REASON");
        let known = !builtin().rules_for_reason(&reason).is_empty();
        assert!(known, "subsystem {name} needs a rule for `{name}:*` in netdrop/causes/");
    }
}

#[test]
fn every_enum_of_reasons_of_this_kernel_is_read() {
    let Some((btf, reasons)) = this_kernel("every_enum_of_reasons_of_this_kernel_is_read") else { return };
    let known = |name: &str| {
        matches!(name, "skb_drop_reason" | "skb_drop_reason_subsys")
            || SUBSYSTEM_ENUMS.iter().any(|(other, _)| *other == name)
    };
    let mut found = 0;
    for entry in fs::read_dir(BTF).unwrap() {
        let path = entry.unwrap().path();
        let own = if path == Path::new(KernelBtf::VMLINUX) { None } else { btf.open_module(&path).ok() };
        for (name, members) in own.as_ref().unwrap_or(&btf).enums().unwrap() {
            if !name.contains("drop_reason") {
                continue;
            }
            found += 1;
            let place = path.display();
            assert!(known(&name), "{place}: enum {name} is not read: see netdrop/src/kernel/reasons.rs");
            for (member, value) in members {
                let sentinel =
                    member.starts_with("__") || member.ends_with("_MAX") || member.contains("SUBSYS");
                let before_the_first = matches!(&*member, "SKB_NOT_DROPPED_YET" | "SKB_CONSUMED");
                assert!(
                    sentinel || before_the_first || reasons.get(value).known,
                    "{place}: {member} of enum {name} has a prefix that netdrop/src/kernel/reasons.rs does not know"
                );
            }
        }
    }
    assert!(found > 0, "a kernel with reasons has an enum of them");
}
