//! Builds the kernel side and leaves the object where `src/bpf/object.rs` embeds it.
//!
//! aya-build would do it, but it prints the whole inner build as warnings and ignores profiles; what it
//! knows about the environment fits in [`command`].

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// The release whose BTF output the kernel is known to accept.
const LINKER_VERSION: &str = "0.10.3";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../netdrop-ebpf");
    println!("cargo::rerun-if-changed=../netdrop-common");
    println!("cargo::rerun-if-env-changed=PATH");

    let out = PathBuf::from(variable("OUT_DIR"));
    let target = match variable("CARGO_CFG_TARGET_ENDIAN").as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let path = search_path();
    check_linker(&path);
    let target_dir = out.join("bpf");
    let output = command(&path, target, &target_dir).output().unwrap_or_else(|error| {
        fail(&format!("cannot run cargo for the kernel side: {error}"));
    });
    if !output.status.success() {
        fail(&format!("the kernel side does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let built = target_dir.join(target).join("bpf/netdrop-bpf");
    fs::copy(&built, out.join("netdrop.bpf.o")).unwrap_or_else(|error| {
        fail(&format!("cannot copy {}: {error}", built.display()));
    });
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("{name} is not set: run this by cargo")))
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    exit(1);
}

/// `PATH` with cargo's own bin directory, where `cargo install` puts bpf-linker.
fn search_path() -> std::ffi::OsString {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let mut directories: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    directories.extend(home.map(|home| home.join("bin")));
    env::join_paths(directories).unwrap_or_else(|error| fail(&format!("PATH: {error}")))
}

fn check_linker(path: &std::ffi::OsStr) {
    let install = format!("`cargo install bpf-linker --version {LINKER_VERSION} --locked`");
    let output = match Command::new("bpf-linker").arg("--version").env("PATH", path).output() {
        Ok(output) => output,
        Err(error) => fail(&format!(
            "the kernel side needs bpf-linker ({error}): {install}, or let `cargo xtask build` do it"
        )),
    };
    let version = String::from_utf8_lossy(&output.stdout);
    if !version.split_whitespace().any(|word| word == LINKER_VERSION) {
        let version = version.trim();
        println!(
            "cargo::warning={version} found, {LINKER_VERSION} is what netdrop is tested with: {install}"
        );
    }
}

/// The inner build: core from rust-src, and `RUSTC_BOOTSTRAP` for this build alone, because BPF targets
/// need unstable features of an otherwise stable compiler.
fn command(path: &std::ffi::OsStr, target: &str, target_dir: &Path) -> Command {
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // By default bpf-linker keeps LLVM from writing small copies and fills in place: each would be a call of
        // a function that goes byte by byte, and 52 bytes of that are as dear as half of counting.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
    ];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--package", "netdrop-ebpf", "--profile", "bpf", "--target", target])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir("..")
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // What the outer cargo (or clippy) set for the host build.
    for name in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}
