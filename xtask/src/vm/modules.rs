//! The kernel modules that a guest gets: everything of networking, and what that needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result};

use super::{cpio::Archive, kernel::Kernel};

/// Directories whose modules a guest gets. By directory rather than by name: scenarios may use any queueing
/// discipline, match or device, and names change from kernel to kernel.
const WANTED: [&str; 5] =
    ["kernel/net/", "kernel/drivers/net/", "kernel/crypto/", "kernel/lib/", "kernel/arch/x86/crypto/"];

/// What is left out of these: drivers of hardware that no guest has, and protocols that are no business of ours.
const UNWANTED: [&str; 10] = [
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/wireless/",
    "kernel/drivers/net/phy/",
    "kernel/drivers/net/mdio/",
    "kernel/drivers/net/usb/",
    "kernel/net/9p/",
    "kernel/net/bluetooth/",
    "kernel/net/ceph/",
    "kernel/net/sunrpc/",
    "kernel/net/wireless/",
];

/// depmod's files, all of which modprobe may ask.
const INDEX: [&str; 12] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.dep",
    "modules.dep.bin",
    "modules.order",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
];

/// Adds a kernel's modules to a guest.
pub(crate) fn add(archive: &mut Archive, kernel: &Kernel) -> Result<()> {
    let from = kernel.modules();
    let to = format!("usr/lib/modules/{}", kernel.release);
    let list = from.join("modules.dep");
    let dependencies =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    for module in closure(&dependencies) {
        archive.copy(format!("{to}/{module}"), &from.join(module))?;
    }
    // Some kernels' packages bring fewer.
    for file in INDEX.iter().filter(|file| from.join(file).is_file()) {
        archive.copy(format!("{to}/{file}"), &from.join(file))?;
    }
    Ok(())
}

/// The wanted modules of a `modules.dep`, and what they need. Its lines name all that a module needs.
fn closure(dependencies: &str) -> BTreeSet<&str> {
    let needs: BTreeMap<&str, &str> = dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let within = |dirs: &[&str], module: &str| dirs.iter().any(|dir| module.starts_with(dir));
    let wanted = needs.iter().filter(|(module, _)| within(&WANTED, module) && !within(&UNWANTED, module));
    wanted.flat_map(|(module, needs)| needs.split_whitespace().chain([*module])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_modules_bring_what_they_need() {
        let closure = closure(
            "kernel/net/sched/sch_netem.ko:\n\
             kernel/net/ipv4/ip_gre.ko: kernel/net/ipv4/gre.ko kernel/fs/needed.ko\n\
             kernel/net/wireless/cfg80211.ko: kernel/drivers/rfkill.ko\n\
             kernel/fs/needed.ko:\n\
             kernel/fs/xfs.ko:\n",
        );
        let expected = [
            "kernel/fs/needed.ko",
            "kernel/net/ipv4/gre.ko",
            "kernel/net/ipv4/ip_gre.ko",
            "kernel/net/sched/sch_netem.ko",
        ];
        assert_eq!(closure.into_iter().collect::<Vec<_>>(), expected);
    }
}
