//! The walk over all network namespaces that primes the counter witness: userspace runs the program by hand
//! (BPF_PROG_TEST_RUN, since 5.10), a namespace and a CPU at a time.

use aya_ebpf::{helpers::generated::bpf_get_current_task, programs::RawTracePointContext};
use netdrop_common::{fields::ABSENT, witness::Step};

use crate::{
    filter::{self, Verdict},
    maps::STEP,
    offsets::{NET_LIST, NSPROXY_NET, Raw, TASK_NSPROXY},
    scratch,
    skb::NetnsId,
    witness::{look_at_conntrack, look_at_listen, look_at_tcp},
};

/// Looks at this CPU's counters of the `struct net` at the address that is the first argument, or of the caller's own
/// namespace when that is 0; the answer goes to [`STEP`].
#[inline(always)]
pub(crate) fn step(ctx: &RawTracePointContext) {
    let Some(answer) = STEP.get_ptr_mut(0) else { return };
    let mut step = Step::default();
    let given: u64 = ctx.arg(0);
    let net = if given == 0 { own_netns() } else { Some(Raw(given)) };
    if let Some(net) = net
        && NET_LIST.load() != ABSENT
    {
        if let Some(id) = NetnsId::of_raw(net) {
            step.net = net.0;
            step.inode = id.inode;
            if let Some((scratch, level)) = scratch::enter() {
                scratch.witness.begin(id);
                step.key = scratch.witness.remembered_by();
                if filter::netns_is(id) != Verdict::Filtered {
                    look_at_conntrack(&mut scratch.witness);
                    look_at_listen(&mut scratch.witness);
                    look_at_tcp(&mut scratch.witness);
                }
                step.readable = scratch.witness.is_readable().into();
                scratch::leave(level);
            }
        }
        let next: u64 = net.load(&NET_LIST).unwrap_or(0);
        step.next = next.wrapping_sub(u64::from(NET_LIST.load()));
    }
    // SAFETY: the lookup returned a whole `Step`.
    unsafe { *answer = step };
}

/// `current->nsproxy->net_ns`.
#[inline(always)]
fn own_netns() -> Option<Raw> {
    if TASK_NSPROXY.load() == ABSENT || NSPROXY_NET.load() == ABSENT {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let task = unsafe { bpf_get_current_task() };
    Raw(task).follow(&TASK_NSPROXY)?.follow(&NSPROXY_NET)
}
