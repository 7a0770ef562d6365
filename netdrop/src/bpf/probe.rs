//! Probe points and the rungs they are observed by.

use crate::kernel::{Kernel, KfreeSkbArguments};

/// A way to observe a probe point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// BTF-typed raw tracepoint (since 5.5): loads checked by the verifier, no helper calls.
    TpBtf,
    /// Raw tracepoint (since 4.17): the same code, each load a helper call.
    RawTp,
    /// BTF-typed hooks at entry and return of a function of the kernel image (fentry and fexit, since 5.5).
    Fexit,
    /// Breakpoints at entry and return of a function, also of a module (kprobe and kretprobe).
    Kprobe,
    /// Perf tracepoints at the ends of system calls (`syscalls:sys_exit_*`, with programs since 4.7).
    Tracepoint,
    /// No hook of its own: kernel counters that moved on the same CPU just before.
    Witness,
    /// Neither: concluded from reason and place of a drop, where that is possible.
    Inference,
    /// On no ladder: a program that does nothing, to measure what being attached costs.
    Empty,
}

impl Rung {
    /// The kernel's name of this kind of program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Witness => "witness",
            Self::Inference => "inference",
            Self::Empty => "empty",
        }
    }
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A tracepoint, with typed arguments.
    TpBtf(&'static str),
    /// A tracepoint.
    RawTp(&'static str),
    /// Entry of a function of the kernel image.
    Fentry(&'static str),
    /// Return of a function of the kernel image.
    Fexit(&'static str),
    /// Entry or return, whichever the program is for, of each of these functions that there is, at least of one.
    Kprobe(&'static [&'static str]),
    /// End of a system call, by the name of its perf tracepoint.
    SyscallExit(&'static str),
}

/// One rung of a ladder: the programs that make it, all or none.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The rung.
    pub(super) rung: Rung,
    /// Name of each kernel-side program, as `netdrop-ebpf/src/main.rs` has it, and its target.
    pub(super) parts: Vec<(String, Target)>,
    /// What it costs, for people.
    pub(super) price: &'static str,
}

impl Way {
    /// Whether a program of it loads through typed pointers.
    pub(super) fn is_typed(&self) -> bool {
        let typed =
            |target: &Target| matches!(target, Target::TpBtf(_) | Target::Fentry(_) | Target::Fexit(_));
        self.parts.iter().any(|(_, target)| typed(target))
    }

    pub(super) fn new(rung: Rung, price: &'static str, parts: &[(&str, Target)]) -> Self {
        let parts = parts.iter().map(|(program, target)| ((*program).to_owned(), *target)).collect();
        Self { rung, parts, price }
    }

    /// Both kinds of tracepoint program, the better first; `program` and `program_raw`.
    pub(super) fn tracepoint(program: &str, tracepoint: &'static str, price: &'static str) -> Vec<Self> {
        vec![
            Self::new(Rung::TpBtf, price, &[(program, Target::TpBtf(tracepoint))]),
            Self::new(Rung::RawTp, price, &[(&format!("{program}_raw"), Target::RawTp(tracepoint))]),
        ]
    }
}

/// A place where the kernel is observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The kernel's name of it: `subsystem:event`, or a function.
    pub(super) name: &'static str,
    /// What is seen through it.
    pub(super) shows: &'static str,
    /// What is not known without it; nothing where netdrop cannot do without.
    pub(super) costs: Option<&'static str>,
    /// Whether what it sees goes into events alone.
    pub(super) for_events: bool,
    /// Whether drops or their causes are missed without it; else the events themselves say what they are less sure of.
    pub(super) essential: bool,
    /// The ladder on this kernel, best rung first. Empty when the kernel has no such place.
    pub(super) ways: fn(&Kernel, consume: bool) -> Vec<Way>,
}

impl Probe {
    /// Every probe point, the one that counts first.
    pub(super) const ALL: &[Self] = &[
        Self {
            name: "skb:kfree_skb",
            shows: "every skb that is freed without being delivered",
            costs: None,
            for_events: false,
            essential: true,
            ways: |kernel, _| {
                Way::tracepoint(kernel.kfree_skb.program(), "kfree_skb", "one run for each dropped skb")
            },
        },
        Self {
            name: "icmp:icmp_send",
            shows: "packets whose sender is told by ICMP: tells REJECT from DROP",
            costs: Some("the verdict of netfilter rules is not known"),
            for_events: true,
            essential: false,
            ways: |kernel, _| {
                if kernel.has_icmp_send {
                    Way::tracepoint("icmp_send", "icmp_send", "one run for each ICMP error")
                } else {
                    Vec::new()
                }
            },
        },
        Self {
            name: "tcp_conn_request",
            shows: "SYNs that a listener gives up: accept queue or SYN queue full",
            costs: Some(
                "a SYN lost on a full queue is not seen: the kernel consumes it, and only counters move",
            ),
            for_events: false,
            essential: true,
            ways: tcp_conn_request,
        },
        Self {
            name: "__nf_conntrack_confirm",
            shows: "new connections that could not be entered into the conntrack table",
            costs: Some("drops by connection tracking read like those of a rule, inferred"),
            for_events: false,
            essential: true,
            ways: |_, _| {
                module_function(
                    &["__nf_conntrack_confirm"],
                    "nf_conntrack_confirm",
                    "two probes for each new connection",
                )
            },
        },
        Self {
            name: "nf_ct_resolve_clash",
            shows: "which of two connections that clash in conntrack goes on",
            costs: Some("a clash in conntrack reads like a rule, inferred"),
            for_events: false,
            essential: true,
            ways: |_, _| {
                module_function(&["nf_ct_resolve_clash"], "nf_ct_resolve_clash", "two probes for each clash")
            },
        },
        Self {
            name: "ipt_do_table",
            shows: "which table of iptables dropped a packet",
            costs: Some("the table is a candidate read from the rules, inferred"),
            for_events: true,
            essential: false,
            ways: ipt_do_table,
        },
        Self {
            name: "nft_do_chain",
            shows: "which table and base chain of nftables dropped a packet",
            costs: Some("table and chain are candidates read from the rules, inferred"),
            for_events: true,
            essential: false,
            ways: nft_do_chain,
        },
        Self {
            name: "qdisc enqueue",
            shows: "which qdisc dropped a packet, where one hangs below another (htb, tbf, mq)",
            costs: Some("the qdisc of the device is shown instead of its child that dropped"),
            for_events: false,
            essential: false,
            ways: qdisc_enqueue,
        },
        Self {
            name: "qdisc:qdisc_drop",
            shows: "the qdisc's own reason for a drop",
            costs: Some(
                "a queue at its limit and one that drops by choice are told apart by its length, or not",
            ),
            for_events: false,
            essential: false,
            ways: |kernel, _| {
                if kernel.has_qdisc_drop {
                    Way::tracepoint("qdisc_drop", "qdisc_drop", "one run for each packet that a qdisc drops")
                } else {
                    Vec::new()
                }
            },
        },
        Self {
            name: "tcp_drop",
            shows: "what TCP discards without skb:kfree_skb, before 5.17",
            costs: Some(
                "segments that TCP discards (buffer full, out of window, PAWS) are not seen on this kernel",
            ),
            for_events: false,
            essential: true,
            ways: tcp_drop,
        },
    ];

    /// Whether nothing can be traced without it.
    pub(super) const fn required(&self) -> bool {
        self.costs.is_none()
    }

    /// Whether this kernel needs no such probe point: what it would show is seen through another.
    pub(super) fn is_needless(&self, kernel: &Kernel) -> bool {
        match self.name {
            "tcp_drop" => !kernel.hides_tcp_drops(),
            // A tracepoint that came with the reasons it tells: an older kernel has neither.
            "qdisc:qdisc_drop" => !kernel.has_qdisc_drop,
            _ => false,
        }
    }

    /// The rungs to try, best first: those of `only` where the ladder has some of them, else all. `consume` says
    /// whether `skb:consume_skb` may be hooked.
    pub(super) fn ways(&self, kernel: &Kernel, only: &[Rung], consume: bool) -> Vec<Way> {
        if only.contains(&Rung::Empty) {
            let empty = ("kfree_skb_empty", Target::TpBtf("kfree_skb"));
            return if self.required() { vec![Way::new(Rung::Empty, "", &[empty])] } else { Vec::new() };
        }
        let mut ways = (self.ways)(kernel, consume);
        if only.contains(&Rung::RawTp) && !only.contains(&Rung::TpBtf) {
            let typed = |way: &Way| way.parts.iter().any(|(_, target)| matches!(target, Target::TpBtf(_)));
            ways.retain(|way| !typed(way));
        }
        if ways.iter().any(|way| only.contains(&way.rung)) {
            ways.retain(|way| only.contains(&way.rung));
        }
        ways
    }
}

fn tcp_conn_request(kernel: &Kernel, consume: bool) -> Vec<Way> {
    const NAME: &str = "tcp_conn_request";
    let mut ways = Vec::new();
    if kernel.has_tcp_conn_request {
        ways.push(Way::new(
            Rung::Fexit,
            "two runs for each SYN that reaches a listener",
            &[
                ("tcp_conn_request_fentry", Target::Fentry(NAME)),
                ("tcp_conn_request_fexit", Target::Fexit(NAME)),
            ],
        ));
        ways.push(Way::new(
            Rung::Kprobe,
            "two probes for each SYN that reaches a listener",
            &[
                ("tcp_conn_request_kprobe", Target::Kprobe(&[NAME])),
                ("tcp_conn_request_kretprobe", Target::Kprobe(&[NAME])),
            ],
        ));
    }
    if consume && let Some(program) = kernel.consume_skb {
        let price = "a few instructions for each skb that the kernel consumes, more for each SYN (--no-consume avoids \
                     it)";
        let ways_to_consume = Way::tracepoint(program, "consume_skb", price);
        ways.extend(ways_to_consume.into_iter().map(|way| Way { rung: Rung::Witness, ..way }));
    }
    ways.push(Way::new(Rung::Inference, "nothing", &[]));
    ways
}

fn tcp_drop(_: &Kernel, consume: bool) -> Vec<Way> {
    let mut ways = vec![Way::new(
        Rung::Kprobe,
        "one probe for each segment that TCP discards",
        &[("tcp_drop_kprobe", Target::Kprobe(&["tcp_drop"]))],
    )];
    if consume {
        ways.push(Way::new(
            Rung::Witness,
            "one probe for each skb that is freed, two for each segment off TCP's fast path (--no-consume avoids it)",
            &[
                ("tcp_data_queue_kprobe", Target::Kprobe(&["tcp_data_queue"])),
                ("tcp_data_queue_kretprobe", Target::Kprobe(&["tcp_data_queue"])),
                ("kfree_skb_kprobe", Target::Kprobe(&["__kfree_skb"])),
            ],
        ));
    }
    ways.push(Way::new(Rung::Inference, "nothing", &[]));
    ways
}

/// Functions of xtables that go through a table's rules. Those of ARP and bridges keep their tables elsewhere.
const XTABLES: &[&str] = &["ipt_do_table", "ip6t_do_table"];

fn ipt_do_table(kernel: &Kernel, per_packet: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    if per_packet && kernel.xt_table_argument.is_some() {
        ways.push(Way::new(
            Rung::Kprobe,
            "two probes for each packet and table of iptables (--no-consume avoids it)",
            &[
                ("xt_do_table_kprobe", Target::Kprobe(XTABLES)),
                ("xt_do_table_kretprobe", Target::Kprobe(XTABLES)),
            ],
        ));
    }
    ways.push(Way::new(Rung::Inference, "nothing", &[]));
    ways
}

fn nft_do_chain(kernel: &Kernel, per_packet: bool) -> Vec<Way> {
    const NAME: &str = "nft_do_chain";
    let mut ways = Vec::new();
    if per_packet && kernel.layout.has("NFT_PACKET_SKB") {
        // The receiving socket at skb:kfree_skb came with 6.11, drops inside of nft_do_chain() with 6.7.
        ways.push(if kernel.kfree_skb == KfreeSkbArguments::Socket {
            Way::new(
                Rung::Kprobe,
                "one probe for each packet and base chain of nftables (--no-consume avoids it)",
                &[("nft_do_chain_kprobe", Target::Kprobe(&[NAME]))],
            )
        } else {
            Way::new(
                Rung::Kprobe,
                "two probes for each packet and base chain of nftables (--no-consume avoids it)",
                &[
                    ("nft_do_chain_call_kprobe", Target::Kprobe(&[NAME])),
                    ("nft_do_chain_call_kretprobe", Target::Kprobe(&[NAME])),
                ],
            )
        });
    }
    ways.push(Way::new(Rung::Inference, "nothing", &[]));
    ways
}

/// Enqueue functions of the kinds of qdiscs in net/sched; `noqueue` has none.
const ENQUEUE: &[&str] = &[
    "pfifo_fast_enqueue",
    "pfifo_enqueue",
    "bfifo_enqueue",
    "pfifo_tail_enqueue",
    "fq_codel_enqueue",
    "fq_enqueue",
    "codel_qdisc_enqueue",
    "cake_enqueue",
    "tbf_enqueue",
    "htb_enqueue",
    "hfsc_enqueue",
    "prio_enqueue",
    "multiq_enqueue",
    "drr_enqueue",
    "ets_qdisc_enqueue",
    "qfq_enqueue",
    "netem_enqueue",
    "sfq_enqueue",
    "sfb_enqueue",
    "red_enqueue",
    "gred_enqueue",
    "choke_enqueue",
    "pie_qdisc_enqueue",
    "fq_pie_qdisc_enqueue",
    "dualpi2_qdisc_enqueue",
    "skbprio_enqueue",
    "plug_enqueue",
    "taprio_enqueue",
    "etf_enqueue_timesortedlist",
    "noop_enqueue",
    "blackhole_enqueue",
];

fn qdisc_enqueue(_: &Kernel, per_packet: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    if per_packet {
        ways.push(Way::new(
            Rung::Kprobe,
            "two probes for each packet that is queued in a qdisc; veth and lo have none (--no-consume avoids it)",
            &[
                ("qdisc_enqueue_kprobe", Target::Kprobe(ENQUEUE)),
                ("qdisc_enqueue_kretprobe", Target::Kprobe(ENQUEUE)),
            ],
        ));
    }
    ways.push(Way::new(Rung::Inference, "nothing", &[]));
    ways
}

/// The ladder of a function of a module whose drops show at `skb:kfree_skb`.
fn module_function(function: &'static [&'static str], program: &str, price: &'static str) -> Vec<Way> {
    let (entry, exit) = (format!("{program}_kprobe"), format!("{program}_kretprobe"));
    vec![
        Way::new(
            Rung::Kprobe,
            price,
            &[(&entry, Target::Kprobe(function)), (&exit, Target::Kprobe(function))],
        ),
        Way::new(Rung::Witness, "a look at the counters for each drop by netfilter", &[]),
        Way::new(Rung::Inference, "nothing", &[]),
    ]
}

/// How one probe point is observed in this run.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// The kernel's name of it.
    pub name: &'static str,
    /// What is seen through it.
    pub shows: &'static str,
    /// What is not known without it; nothing where netdrop cannot do without.
    pub costs: Option<&'static str>,
    /// Whether drops or their causes are missed without it; else the events themselves say what they are less sure of.
    pub essential: bool,
    /// The rung that is used; nothing when there is none.
    pub rung: Option<Rung>,
    /// What it costs.
    pub price: Option<&'static str>,
    /// The programs that were chosen for this kernel; none for a rung without one.
    pub programs: Vec<String>,
    /// Their instructions after verification and dead-code removal, where the kernel says.
    pub instructions: Option<u32>,
    /// Why better rungs, or all, are not used.
    pub errors: Vec<String>,
}

impl ProbeReport {
    /// The probe point that netdrop cannot do without, not observed.
    #[must_use]
    pub fn unobserved(error: String) -> Self {
        Self { errors: vec![error], ..Self::untried(&Probe::ALL[0]) }
    }

    /// Notes that there are no counters to look at.
    pub(super) fn without_witness(&mut self, why: &str) {
        self.rung = Some(Rung::Inference);
        self.price = None;
        self.programs.clear();
        self.instructions = None;
        self.errors.push(format!("witness: {why}"));
    }

    /// Whether what the probe point shows is observed.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.rung.is_some_and(|rung| rung != Rung::Inference)
    }

    /// A probe point nothing has been tried for.
    pub(super) fn untried(probe: &Probe) -> Self {
        Self {
            name: probe.name,
            shows: probe.shows,
            costs: probe.costs,
            essential: probe.essential,
            rung: None,
            price: None,
            programs: Vec::new(),
            instructions: None,
            errors: Vec::new(),
        }
    }
}
