//! What `netdrop doctor` says of the running kernel: which rung each probe point is observed on.

use serde_json::Value;

use crate::binary;

/// The rung of a probe point such as `tcp_conn_request`; `None` where it is not observed at all.
#[track_caller]
pub fn rung(point: &str) -> Option<String> {
    let doctor = binary::run(&["doctor", "--json"]).expect_code(0);
    let report = doctor.json_lines().pop().unwrap_or_default();
    let probes = report["probes"].as_array().unwrap_or_else(|| panic!("no probes in {report}"));
    let probe = probes.iter().find(|probe| probe["point"] == point);
    let probe = probe.unwrap_or_else(|| panic!("no probe point {point} in {report}"));
    match &probe["rung"] {
        Value::Null => None,
        Value::String(rung) => Some(rung.clone()),
        odd => panic!("rung {odd} of {point}"),
    }
}

/// Whether a probe point is observed by a hook at the function itself.
#[track_caller]
pub fn by_function(point: &str) -> bool {
    rung(point).is_some_and(|rung| ["fentry", "fexit", "kprobe"].contains(&rung.as_str()))
}

/// Whether this kernel shows programs which system call a task is in, and what it was given: whether its types have
/// the helper.
#[track_caller]
pub fn shows_registers() -> bool {
    const HELPER: &[u8] = b"BPF_FUNC_task_pt_regs";
    let types =
        std::fs::read("/sys/kernel/btf/vmlinux").expect("netdrop runs, so the kernel shows its types");
    types.windows(HELPER.len()).any(|name| name == HELPER)
}
