//! Names of drop reasons, from the running kernel's enums: numbers move between kernels, even inside one
//! stable series, so none is ever written down here.

use std::{collections::BTreeMap, path::Path};

use netdrop_common::key::{REASON_ABSENT, REASON_SUBSYSTEM_SHIFT};

use super::btf::{BtfError, KernelBtf};

/// Name of subsystem 0.
pub const CORE: &str = "core";

/// Enums of subsystem reasons (net/mac80211/drop.h, net/openvswitch/drop.h,
/// include/net/dropreason-qdisc.h) and the module that has them, where it is one.
pub(crate) const SUBSYSTEM_ENUMS: &[(&str, &str)] = &[
    ("mac80211_drop_reason", "mac80211"),
    ("___mac80211_drop_reason", "mac80211"),
    ("ovs_drop_reason", "openvswitch"),
    ("qdisc_drop_reason", ""),
];

/// Prefixes of enumerators; what follows is the name.
const PREFIXES: &[&str] = &[
    "SKB_DROP_REASON_",
    "OVS_DROP_",
    "RX_DROP_U_",
    "RX_DROP_M_",
    "RX_DROP_",
    "QDISC_DROP_REASON_",
    "QDISC_DROP_",
];

/// Drop reasons by number.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    names: BTreeMap<u32, String>,
    subsystems: BTreeMap<u32, String>,
}

/// A drop reason as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its number with subsystem bits; nothing on kernels without reasons (before 5.17).
    pub code: Option<u32>,
    /// `core`, `openvswitch` …
    pub subsystem: Option<String>,
    /// `NO_SOCKET`; the number in text when this kernel gives it no name.
    pub name: Option<String>,
    /// Whether the kernel's enums know the number.
    pub known: bool,
}

impl Reason {
    /// The name as rules and filters spell it: `NO_SOCKET`, `openvswitch:METER`.
    #[must_use]
    pub fn qualified(&self) -> Option<String> {
        let name = self.name.as_deref()?;
        match self.subsystem.as_deref() {
            None | Some(CORE) => Some(name.to_owned()),
            Some(subsystem) => Some(format!("{subsystem}:{name}")),
        }
    }
}

impl Reasons {
    /// Reads the enums of the kernel image and of modules under `modules` (`/sys/kernel/btf`).
    ///
    /// # Errors
    ///
    /// When the kernel image's type information is malformed. A kernel without reasons is no error.
    pub fn read(btf: &KernelBtf, modules: &Path) -> Result<Self, BtfError> {
        let mut reasons = Self::default();
        let Some(core) = btf.enumerators("skb_drop_reason")? else { return Ok(reasons) };
        reasons.add(core);
        for (name, value) in btf.enumerators("skb_drop_reason_subsys")?.unwrap_or_default() {
            if let Some(name) = name.strip_prefix("SKB_DROP_REASON_SUBSYS_")
                && name != "NUM"
            {
                reasons.subsystems.insert(value, name.to_ascii_lowercase());
            }
        }
        let mut modules_read: BTreeMap<&str, Option<KernelBtf>> = BTreeMap::new();
        for (name, module) in SUBSYSTEM_ENUMS {
            let mut values = btf.enumerators(name)?;
            if values.is_none() && !module.is_empty() {
                let module =
                    modules_read.entry(module).or_insert_with(|| btf.open_module(&modules.join(module)).ok());
                values = match module {
                    Some(module) => module.enumerators(name).unwrap_or(None),
                    None => None,
                };
            }
            reasons.add(values.unwrap_or_default());
        }
        Ok(reasons)
    }

    /// Adds enumerators; sentinels and masks are left out, and the first name of a number stays.
    fn add(&mut self, values: Vec<(String, u32)>) {
        for (name, value) in values {
            let Some(short) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
            if short == "MAX" || short == "SUBSYS_MASK" || name.starts_with("__") {
                continue;
            }
            self.names.entry(value).or_insert_with(|| short.to_owned());
        }
    }

    /// Whether this kernel has reasons at all (since 5.17).
    #[must_use]
    pub fn any(&self) -> bool {
        !self.names.is_empty()
    }

    /// Number and qualified name of every reason.
    pub fn iter(&self) -> impl Iterator<Item = (u32, String)> + '_ {
        self.names.keys().filter_map(|code| Some((*code, self.get(*code).qualified()?)))
    }

    /// The reason with this number, as a record carries it.
    #[must_use]
    pub fn get(&self, code: u32) -> Reason {
        if code == REASON_ABSENT {
            return Reason { code: None, subsystem: None, name: None, known: false };
        }
        let number = code >> REASON_SUBSYSTEM_SHIFT;
        let known = self.names.get(&code);
        let subsystem = if number == 0 {
            CORE.to_owned()
        } else {
            self.subsystems.get(&number).cloned().unwrap_or_else(|| format!("subsys#{number}"))
        };
        let name = known.cloned().unwrap_or_else(|| (code & 0xffff).to_string());
        Reason { code: Some(code), subsystem: Some(subsystem), name: Some(name), known: known.is_some() }
    }

    /// Finds a reason by the name a user types: any case, with or without `SKB_DROP_REASON_`, a subsystem
    /// before a colon, or a number.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        if let Ok(code) = text.parse() {
            return Some(code);
        }
        let upper = text.to_ascii_uppercase();
        let wanted = upper.strip_prefix("SKB_DROP_REASON_").unwrap_or(&upper);
        self.iter().find(|(_, name)| name.eq_ignore_ascii_case(wanted)).map(|(code, _)| code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Reasons {
        let mut reasons = Reasons::default();
        reasons.add(vec![
            ("SKB_NOT_DROPPED_YET".into(), 0),
            ("SKB_DROP_REASON_NOT_SPECIFIED".into(), 2),
            ("SKB_DROP_REASON_NO_SOCKET".into(), 3),
            ("SKB_DROP_REASON_MAX".into(), 4),
            ("SKB_DROP_REASON_SUBSYS_MASK".into(), 0xffff_0000),
        ]);
        reasons.subsystems.insert(0, "core".into());
        reasons.subsystems.insert(2, "openvswitch".into());
        reasons.add(vec![("__OVS_DROP_REASON".into(), 2 << 16), ("OVS_DROP_METER".into(), (2 << 16) + 5)]);
        reasons
    }

    #[test]
    fn names_by_number() {
        let reasons = sample();
        assert_eq!(reasons.get(3).qualified().as_deref(), Some("NO_SOCKET"));
        assert_eq!(reasons.get((2 << 16) + 5).qualified().as_deref(), Some("openvswitch:METER"));
        assert_eq!(reasons.get((2 << 16) + 99).qualified().as_deref(), Some("openvswitch:99"));
        assert_eq!(reasons.get((7 << 16) + 1).qualified().as_deref(), Some("subsys#7:1"));
        assert_eq!(reasons.get(77).qualified().as_deref(), Some("77"));
        assert!(!reasons.get(77).known);
        assert_eq!(reasons.get(REASON_ABSENT).qualified(), None);
        assert_eq!(reasons.iter().count(), 3);
    }

    #[test]
    fn found_as_typed() {
        let reasons = sample();
        for text in ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET", "3"] {
            assert_eq!(reasons.find(text), Some(3), "{text}");
        }
        assert_eq!(reasons.find("openvswitch:meter"), Some((2 << 16) + 5));
        assert_eq!(reasons.find("MAX"), None);
        assert_eq!(reasons.find("NO_SOKET"), None);
    }

    #[test]
    fn reads_this_kernel() {
        let path = Path::new(KernelBtf::VMLINUX);
        if !path.exists() {
            println!("SKIP: this kernel has no {}", path.display());
            return;
        }
        let btf = KernelBtf::open(path).unwrap();
        let reasons = Reasons::read(&btf, Path::new("/sys/kernel/btf")).unwrap();
        let arguments = btf.tracepoint_arguments("kfree_skb").unwrap().unwrap();
        assert_eq!(reasons.any(), arguments.len() > 2, "a reason argument and its names come together");
        if reasons.any() {
            assert!(reasons.find("NOT_SPECIFIED").is_some());
        }
    }
}
