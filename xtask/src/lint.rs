//! The lint part of `cargo xtask test`: formatting, then clippy for both targets.

use std::env::consts::ARCH;

use anyhow::Result;

use crate::{command, tools::Tools, workspace};

/// Checks formatting, the userspace crates, and the kernel side.
pub(crate) fn run(tools: &Tools) -> Result<()> {
    let mut fmt = tools.cargo();
    command::step("formatting", fmt.args(["fmt", "--all", "--check"]))?;

    let mut host = tools.cargo();
    host.args([
        "clippy",
        "--workspace",
        "--exclude",
        "netdrop-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    command::step("lint (host)", &mut host)?;

    let mut bpf = tools.cargo();
    bpf.args(["clippy", "--package", "netdrop-ebpf", "--target", bpf_target(), "-Z", "build-std=core"])
        // Away from the userspace build: RUSTC_BOOTSTRAP would make both rebuild each other's dependencies.
        .arg("--target-dir")
        .arg(workspace::target_dir(tools)?.join("bpf-lint"))
        .args(["--", "-D", "warnings"])
        // Lets the stable compiler build `core` and use the BPF target's features.
        .env("RUSTC_BOOTSTRAP", "1")
        // The same as netdrop/build.rs sets.
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{ARCH}\""));
    command::step("lint (BPF)", &mut bpf)
}

/// BPF programs have the byte order of the machine that runs them.
fn bpf_target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}
