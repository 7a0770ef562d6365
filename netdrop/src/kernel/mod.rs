//! The running kernel: everything that depends on it is found out here, once, at start.

pub mod btf;
pub mod calls;
pub mod capabilities;
pub mod layout;
pub mod reasons;
pub mod symbols;
pub mod tracefs;

use std::path::Path;

use btf::{BtfError, KernelBtf};
use calls::Calls;
use layout::Layout;
use reasons::Reasons;
use symbols::{Symbols, SymbolsError};

/// What the running kernel offers, found out once at start.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Offsets of struct members.
    pub layout: Layout,
    /// Names of drop reasons.
    pub reasons: Reasons,
    /// Arguments of the `skb:kfree_skb` tracepoint.
    pub kfree_skb: KfreeSkbArguments,
    /// Whether there is a tracepoint `icmp:icmp_send` (since 6.10; Debian's 6.1 has it too).
    pub has_icmp_send: bool,
    /// The program for the arguments of `skb:consume_skb`; nothing where they are not known.
    pub consume_skb: Option<&'static str>,
    /// Whether `tcp_conn_request()` has the arguments that netdrop knows.
    pub has_tcp_conn_request: bool,
    /// Which argument of `ipt_do_table()` is the table; nothing where that is not known.
    pub xt_table_argument: Option<u8>,
    /// Whether there is a tracepoint `qdisc:qdisc_drop` with the arguments that netdrop knows (since 7.2).
    pub has_qdisc_drop: bool,
    /// The tracepoints among [`TCP_TRACEPOINTS`] that have the arguments that netdrop knows.
    pub tcp_tracepoints: Vec<&'static str>,
    /// Whether the kernel has kprobes (CONFIG_KPROBE_EVENTS).
    pub has_kprobes: bool,
    /// What shows refused calls.
    pub calls: Calls,
    /// Kernel symbols, or why there are none.
    pub symbols: Result<Symbols, SymbolsError>,
    /// Whether this kernel runs no tracing program while process 1 is the current task, and does not count
    /// that it did not. Mainline knows no such thing; some sandboxes' kernels do, and mark programs that
    /// are exempt in `bpf_prog_aux.init_owned`. A drop in a softirq that interrupts process 1 is then not seen.
    pub blind_in_init: bool,
}

/// What [`Kernel::blind_in_init`] costs, for people.
pub const BLIND_IN_INIT: &str = "this kernel runs no tracing program while process 1 is on the CPU and does not count \
                                 what it skips: drops in a softirq that interrupts process 1 are not seen";

/// Tracepoints of TCP and the arguments that they begin with; later kernels append some.
const TCP_TRACEPOINTS: [(&str, &[&str]); 4] = [
    ("tcp_retransmit_skb", &["struct sock *", "struct sk_buff *"]),
    ("tcp_retransmit_synack", &["struct sock *", "struct request_sock *"]),
    ("tcp_send_reset", &["struct sock *", "struct sk_buff *"]),
    ("tcp_receive_reset", &["struct sock *"]),
];

/// Arguments that `skb:kfree_skb` hands to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KfreeSkbArguments {
    /// skb and location: before 5.17.
    Location,
    /// And the reason: from 5.17.
    Reason,
    /// And the receiving socket: from 6.11.
    Socket,
}

/// Why this kernel cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its types are missing or not what netdrop knows.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The tracepoint's arguments are none of the known ones.
    #[error("this kernel's skb:kfree_skb has arguments netdrop does not know: ({})", .0.join(", "))]
    Arguments(Vec<String>),
    /// There is no such tracepoint.
    #[error("this kernel has no tracepoint skb:kfree_skb")]
    NoTracepoint,
}

impl KfreeSkbArguments {
    /// Reads them from the kernel's types.
    ///
    /// # Errors
    ///
    /// When the tracepoint is missing or its arguments are unknown.
    pub fn detect(btf: &KernelBtf) -> Result<Self, KernelError> {
        let arguments = btf.tracepoint_arguments("kfree_skb")?.ok_or(KernelError::NoTracepoint)?;
        let types: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match types[..] {
            ["struct sk_buff *", "void *"] => Ok(Self::Location),
            ["struct sk_buff *", "void *", "enum skb_drop_reason"] => Ok(Self::Reason),
            // What a later kernel appends does not move these.
            ["struct sk_buff *", "void *", "enum skb_drop_reason", "struct sock *", ..] => Ok(Self::Socket),
            _ => Err(KernelError::Arguments(arguments)),
        }
    }

    /// The kernel-side program for these arguments.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Location => "kfree_skb_2",
            Self::Reason => "kfree_skb_3",
            Self::Socket => "kfree_skb_4",
        }
    }
}

impl Kernel {
    /// Whether typed programs may follow a pointer that is none, as `skb->dev` is where the kernel keeps something else
    /// in the same union. The load faults, and the kernel looks it up in the program's exception table: before 6.5 the
    /// table of a program with functions can be missing ("bpf: ensure main program has an extable"), and the fault is
    /// fatal. Seen on 5.10. The receiving socket at `skb:kfree_skb` came later (6.11) and shows that the kernel is newer.
    #[must_use]
    pub fn survives_typed_faults(&self) -> bool {
        self.kfree_skb == KfreeSkbArguments::Socket
    }

    /// Whether TCP frees what it discards without `skb:kfree_skb` (`tcp_drop()`, before 5.17).
    #[must_use]
    pub fn hides_tcp_drops(&self) -> bool {
        self.kfree_skb == KfreeSkbArguments::Location
    }

    /// Whether nftables is there: built in, or loaded when symbols were read.
    #[must_use]
    pub fn has_nftables(&self) -> bool {
        self.symbols.as_ref().is_ok_and(|symbols| symbols.address("nft_do_chain").is_some())
    }

    /// Whether nftables frees what its rules drop, instead of leaving that to the hook (`NF_DROP_REASON` in
    /// `nft_do_chain()`, since 6.7). It shows nowhere in the kernel's types; these reasons came with the same release.
    #[must_use]
    pub fn nftables_frees(&self) -> bool {
        self.reasons.find("TCP_AOFAILURE").is_some()
    }

    /// Finds out what the running kernel offers.
    ///
    /// # Errors
    ///
    /// When it lacks what netdrop cannot do without.
    pub fn inspect() -> Result<Self, KernelError> {
        let btf = KernelBtf::open(Path::new(KernelBtf::VMLINUX))?;
        Ok(Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            layout: Layout::resolve(&btf)?,
            reasons: Reasons::read(&btf, Path::new(KernelBtf::DIRECTORY))?,
            kfree_skb: KfreeSkbArguments::detect(&btf)?,
            has_icmp_send: btf.tracepoint_arguments("icmp_send")?.is_some(),
            consume_skb: match btf.tracepoint_arguments("consume_skb")?.as_deref() {
                Some([_]) => Some("consume_skb_1"),
                Some([_, location, ..]) if location == "void *" => Some("consume_skb_2"),
                _ => None,
            },
            has_tcp_conn_request: btf.function_arguments("tcp_conn_request")?.is_some_and(|arguments| {
                matches!(&arguments[..], [_, _, sk, skb] if sk == "struct sock *" && skb == "struct sk_buff *")
            }),
            xt_table_argument: xt_table_argument(&btf)?,
            has_qdisc_drop: btf.tracepoint_arguments("qdisc_drop")?.is_some_and(|arguments| {
                matches!(&arguments[..], [_, _, _, skb, reason, ..]
                    if skb == "struct sk_buff *" && reason == "enum qdisc_drop_reason")
            }),
            tcp_tracepoints: tcp_tracepoints(&btf)?,
            has_kprobes: Path::new("/sys/bus/event_source/devices/kprobe/type").exists(),
            calls: Calls::inspect(&btf)?,
            symbols: Symbols::load(Path::new("/proc")),
            blind_in_init: btf.structure("bpf_prog_aux").and_then(|aux| aux.member("init_owned")).is_ok(),
        })
    }
}

/// Which argument of `ipt_do_table()` is the table: the first since 5.16 (`priv, skb, state`), the last before
/// (`skb, state, table`). Told by the function's prototype, in the kernel image or in its module; a module without one
/// is of a kernel before 5.11.
fn xt_table_argument(btf: &KernelBtf) -> Result<Option<u8>, BtfError> {
    const FUNCTION: &str = "ipt_do_table";
    let mut arguments = btf.function_arguments(FUNCTION)?;
    if arguments.is_none() {
        match btf.open_module(&Path::new(KernelBtf::DIRECTORY).join("ip_tables")) {
            Ok(module) => arguments = module.function_arguments(FUNCTION)?,
            Err(_) if btf.structure("xt_table").is_ok() && !has_module_types() => return Ok(Some(2)),
            Err(_) => {}
        }
    }
    Ok(arguments.and_then(|arguments| match &arguments[..] {
        [private, skb, ..] if private == "void *" && skb == "struct sk_buff *" => Some(0),
        [skb, _, table] if skb == "struct sk_buff *" && table == "struct xt_table *" => Some(2),
        _ => None,
    }))
}

/// Whether this kernel shows the types of its modules (since 5.11).
fn has_module_types() -> bool {
    let entries = std::fs::read_dir(KernelBtf::DIRECTORY).into_iter().flatten();
    entries.flatten().any(|entry| entry.file_name() != "vmlinux")
}

/// See [`TCP_TRACEPOINTS`].
fn tcp_tracepoints(btf: &KernelBtf) -> Result<Vec<&'static str>, BtfError> {
    let mut known = Vec::new();
    for (name, begin) in TCP_TRACEPOINTS {
        let arguments = btf.tracepoint_arguments(name)?.unwrap_or_default();
        if arguments.len() >= begin.len() && arguments.iter().zip(begin).all(|(found, known)| found == known)
        {
            known.push(name);
        }
    }
    Ok(known)
}
