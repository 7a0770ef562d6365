//! What the kernel shows of a loaded program under `/proc/self/fdinfo`.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

/// How the names of the counting programs start, see `netdrop-ebpf/src/main.rs`.
const PROGRAMS: &str = "kfree_skb_";

/// `recursion_misses`: runs that the kernel skipped because the program was already running on that CPU
/// (since 5.12; nothing before, where programs nest instead). Source: bpf_prog_show_fdinfo,
/// kernel/bpf/syscall.c.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    Ok(parse(&text))
}

/// `recursion_misses` of every netdrop program that runs now, of other processes too.
#[must_use]
pub fn missed_by_running_programs() -> u64 {
    let ours = |name: &str| name.starts_with(PROGRAMS);
    aya::programs::loaded_programs()
        .flatten()
        .filter(|program| program.name_as_str().is_some_and(ours))
        .filter_map(|program| program.fd().ok())
        .filter_map(|fd| recursion_misses(fd.as_fd()).ok().flatten())
        .sum()
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_field() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t4711\nverified_insns:\t9\n";
        assert_eq!(parse(text), Some(4711));
        assert_eq!(parse("pos:\t0\n"), None);
    }
}
