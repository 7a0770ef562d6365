//! What the running kernel offers to observe calls that it refuses.

use super::{
    btf::{BtfError, KernelBtf},
    tracefs::{TracefsError, exit_result},
};

/// What there is to hook.
#[derive(Debug)]
pub struct Calls {
    /// Whether `sock:inet_sock_set_state` has the arguments that netdrop knows.
    pub has_set_state: bool,
    /// Whether `inet_csk_get_port()` has them.
    pub has_tcp_get_port: bool,
    /// Whether `udp_lib_get_port()` has them.
    pub has_udp_get_port: bool,
    /// Whether programs can see the user's registers (`bpf_task_pt_regs()`, since 5.15).
    pub has_registers: bool,
    /// Byte offset of the result in the records of `syscalls:sys_exit_*`.
    pub exit_result: Result<u16, TracefsError>,
}

impl Calls {
    pub(super) fn inspect(btf: &KernelBtf) -> Result<Self, BtfError> {
        let state = btf.tracepoint_arguments("inet_sock_set_state")?;
        let takes = |name, count| {
            let arguments = btf.function_arguments(name)?;
            Ok::<_, BtfError>(arguments.is_some_and(|arguments| {
                arguments.len() == count && arguments.first().is_some_and(|sk| sk == "struct sock *")
            }))
        };
        let helpers = btf.enumerators("bpf_func_id")?.unwrap_or_default();
        Ok(Self {
            has_set_state: state
                .is_some_and(|arguments| matches!(&arguments[..], [sk, _, _] if sk == "struct sock *")),
            has_tcp_get_port: takes("inet_csk_get_port", 2)?,
            has_udp_get_port: takes("udp_lib_get_port", 3)?,
            has_registers: helpers.iter().any(|(name, _)| name == "BPF_FUNC_task_pt_regs"),
            exit_result: exit_result(),
        })
    }
}
