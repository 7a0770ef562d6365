//! The counter witness: what moved on this CPU since the last look, see `netdrop_common::witness`.
//!
//! Each group has a function of its own, which writes to the scratch memory and returns nothing: whichever way it
//! takes, older verifiers go on from its end once.

use aya_ebpf::{Global, helpers::generated::bpf_get_smp_processor_id};
use netdrop_common::{
    cell,
    fields::ABSENT,
    witness::{CELLS, Cell, NO_CELL, Remembered, WitnessKey, group},
};

use crate::{
    count,
    maps::{PER_CPU, PRIMED, WITNESSED},
    offsets::{
        CT_STAT_CHAIN_TOO_LONG, CT_STAT_CLASH_RESOLVE, CT_STAT_DROP, CT_STAT_INSERT_FAILED, CT_STAT_INVALID,
        CT_STAT_SIZE, Field, MIB_LISTEN_DROPS, MIB_LISTEN_OVERFLOWS, MIB_OFO_DROP, MIB_OFO_PRUNED,
        MIB_PAWS_ESTAB, MIB_RCVQ_DROP, MIB_REQQ_FULL_DROP, MIB_ZERO_WINDOW_DROP, NET_CT_STAT, NET_MIB, Raw,
        this_cpu,
    },
    skb::NetnsId,
};

/// 0: counters are not looked at.
#[unsafe(no_mangle)]
static WITNESS: Global<u8> = Global::new(0);

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// The longest `struct ip_conntrack_stat` that is read.
const CONNTRACK_STAT: usize = 64;

/// A look and what it found.
#[repr(C)]
pub(crate) struct Witness {
    /// `struct net`.
    net: u64,
    /// What it is remembered by.
    key: WitnessKey,
    /// The counters now.
    fresh: [u32; CELLS],
    /// By how much each moved.
    moved: [u32; CELLS],
    /// Whether there was something to compare with.
    compared: u32,
    /// The counter that speaks for the cause.
    pub(crate) cell: u8,
    /// By how much it moved.
    pub(crate) delta: u8,
    /// Code of a [`ListenDrop`](netdrop_common::codes::ListenDrop).
    pub(crate) listen: u8,
    /// Code of a [`Conntrack`](netdrop_common::codes::Conntrack).
    pub(crate) conntrack: u8,
    /// Code of a [`TcpDiscard`](netdrop_common::codes::TcpDiscard).
    pub(crate) tcp: u8,
    /// `struct ip_conntrack_stat`.
    block: [u32; CONNTRACK_STAT / 4],
}

impl Witness {
    /// Forgets what was found of the last drop, and turns to the counters of this namespace.
    #[inline(always)]
    pub(crate) fn begin(&mut self, netns: NetnsId) {
        self.net = netns.address;
        self.key.net = if netns.cookie == 0 { netns.address } else { netns.cookie };
        self.key.inode = netns.inode;
        self.key.cpu = 0;
        self.cell = NO_CELL;
        self.delta = 0;
        self.listen = 0;
        self.conntrack = 0;
        self.tcp = 0;
    }

    /// The namespace: `struct net`, 0 when it is not known.
    #[inline(always)]
    pub(crate) fn netns(&self) -> Raw {
        Raw(self.net)
    }

    /// What the namespace's counters are remembered by.
    #[inline(always)]
    pub(crate) fn remembered_by(&self) -> u64 {
        self.key.net
    }

    /// Whether this CPU's counters of the namespace can be read.
    #[inline(always)]
    pub(crate) fn is_readable(&self) -> bool {
        self.is_on() && matches!(self.mib(), Some(mib) if mib.read::<u64>().is_some())
    }

    /// Whether the last look had something to compare with.
    #[inline(always)]
    pub(crate) fn compared(&self) -> bool {
        self.compared != 0
    }

    /// By how much a counter moved between the last two looks.
    #[inline(always)]
    pub(crate) fn moved(&self, cell: Cell) -> u32 {
        self.moved[cell as usize]
    }

    /// Names the counter that speaks for the cause.
    #[inline(always)]
    pub(crate) fn testify(&mut self, cell: Cell) {
        let delta = self.moved[cell as usize];
        self.cell = cell as u8;
        self.delta = if delta > 255 { 255 } else { delta as u8 };
    }

    /// Whether counters are looked at in this run, and can be for this namespace.
    #[inline(always)]
    fn is_on(&self) -> bool {
        WITNESS.load() != 0 && self.key.inode != 0 && self.net != 0
    }

    /// Reads one of TCP's extended counters (`struct linux_mib`, an array of unsigned long); false on a fault.
    #[inline(always)]
    fn read_mib(&mut self, mib: Raw, index: &Field, cell: Cell) -> bool {
        let index = index.load();
        if index == ABSENT {
            self.fresh[cell as usize] = 0;
            return true;
        }
        match mib.offset(8 * u64::from(index)).read::<u64>() {
            Some(value) => {
                self.fresh[cell as usize] = value as u32;
                true
            }
            None => false,
        }
    }

    /// This CPU's extended counters of TCP.
    #[inline(always)]
    fn mib(&self) -> Option<Raw> {
        if NET_MIB.load() == ABSENT {
            return None;
        }
        this_cpu_value(Raw(self.net).follow(&NET_MIB)?)
    }

    /// Picks a conntrack counter out of the block.
    #[inline(always)]
    fn pick(&mut self, member: &Field, cell: Cell) {
        let index = usize::from(member.load() / 4);
        self.fresh[cell as usize] =
            if member.load() != ABSENT && index < self.block.len() { self.block[index] } else { 0 };
    }

    /// Compares the fresh counters of one group with the remembered ones, and remembers the fresh ones.
    #[inline(always)]
    fn compare<const FROM: usize, const TO: usize>(&mut self, group: u32) {
        let Some(last) = remembered(&mut self.key) else { return };
        // SAFETY: the lookup returned this pointer, so it points at a whole `Remembered`; an interrupt on this CPU may
        // change it, no other CPU does.
        let last = unsafe { &mut *last };
        let known = last.known & group != 0;
        let mut backwards = 0;
        let mut index = FROM;
        while index < TO {
            let moved = self.fresh[index].wrapping_sub(last.cells[index]);
            self.moved[index] = moved;
            backwards |= moved >> 31;
            index += 1;
        }
        if known && backwards != 0 && self.key.net != self.net {
            // Counters of one namespace never go back: an interrupt came between and has seen newer ones.
            return;
        }
        let mut index = FROM;
        while index < TO {
            last.cells[index] = self.fresh[index];
            index += 1;
        }
        last.known |= group;
        // Without a cookie another namespace may have come to this address.
        self.compared = u32::from(known && backwards == 0);
    }
}

/// This CPU's value behind a per-CPU pointer.
#[inline(always)]
fn this_cpu_value(pointer: Raw) -> Option<Raw> {
    let distance = this_cpu(&PER_CPU);
    if distance == 0 { None } else { Some(pointer.offset(distance)) }
}

/// The counters of this namespace as they were last seen on this CPU.
#[inline(always)]
fn remembered(key: &mut WitnessKey) -> Option<*mut Remembered> {
    // SAFETY: the helper takes nothing.
    key.cpu = unsafe { bpf_get_smp_processor_id() };
    let key: &WitnessKey = key;
    if let Some(found) = WITNESSED.get_ptr_mut(key) {
        return Some(found);
    }
    // Whoever comes after the namespaces of the start began at 0.
    let known = match PRIMED.get(0) {
        Some(1) => group::ALL,
        _ => 0,
    };
    let _exists_or_full = WITNESSED.insert(key, Remembered { cells: [0; CELLS], known }, BPF_NOEXIST);
    WITNESSED.get_ptr_mut(key)
}

/// Looks at the counters of connection tracking (`net->ct.stat`).
#[inline(never)]
pub(crate) fn look_at_conntrack(witness: &mut Witness) {
    witness.compared = 0;
    if !witness.is_on() || NET_CT_STAT.load() == ABSENT || CT_STAT_SIZE.load() == ABSENT {
        return;
    }
    let Some(stat) = Raw(witness.net).follow(&NET_CT_STAT).and_then(this_cpu_value) else { return };
    let len = u32::from(CT_STAT_SIZE.load());
    let len = if len > CONNTRACK_STAT as u32 { CONNTRACK_STAT as u32 } else { len };
    let to = (&raw mut witness.block).cast::<u8>();
    // SAFETY: `block` is `CONNTRACK_STAT` bytes long.
    if unsafe { stat.copy::<{ CONNTRACK_STAT as u32 }>(to, len) } == 0 {
        return;
    }
    witness.pick(&CT_STAT_INSERT_FAILED, Cell::InsertFailed);
    witness.pick(&CT_STAT_DROP, Cell::Drop);
    witness.pick(&CT_STAT_INVALID, Cell::Invalid);
    witness.pick(&CT_STAT_CLASH_RESOLVE, Cell::ClashResolve);
    witness.pick(&CT_STAT_CHAIN_TOO_LONG, Cell::ChainTooLong);
    witness.compare::<{ Cell::InsertFailed as usize }, { Cell::ChainTooLong as usize + 1 }>(group::CONNTRACK);
    if witness.compared != 0 {
        let resolved = witness.moved[Cell::ClashResolve as usize];
        if resolved != 0 {
            count::cell_by(cell::RESOLVED, u64::from(resolved));
        }
    }
}

/// Looks at the counters of listeners.
#[inline(never)]
pub(crate) fn look_at_listen(witness: &mut Witness) {
    witness.compared = 0;
    if !witness.is_on() {
        return;
    }
    let Some(mib) = witness.mib() else { return };
    if witness.read_mib(mib, &MIB_LISTEN_OVERFLOWS, Cell::ListenOverflows)
        && witness.read_mib(mib, &MIB_LISTEN_DROPS, Cell::ListenDrops)
        && witness.read_mib(mib, &MIB_REQQ_FULL_DROP, Cell::ReqQFullDrop)
    {
        witness.compare::<{ Cell::ListenOverflows as usize }, { Cell::ReqQFullDrop as usize + 1 }>(
            group::LISTEN,
        );
    }
}

/// Looks at the counters of TCP's receive side.
#[inline(never)]
pub(crate) fn look_at_tcp(witness: &mut Witness) {
    witness.compared = 0;
    if !witness.is_on() {
        return;
    }
    let Some(mib) = witness.mib() else { return };
    if witness.read_mib(mib, &MIB_RCVQ_DROP, Cell::RcvQDrop)
        && witness.read_mib(mib, &MIB_OFO_DROP, Cell::OfoDrop)
        && witness.read_mib(mib, &MIB_OFO_PRUNED, Cell::OfoPruned)
        && witness.read_mib(mib, &MIB_PAWS_ESTAB, Cell::PawsEstab)
        && witness.read_mib(mib, &MIB_ZERO_WINDOW_DROP, Cell::ZeroWindowDrop)
    {
        witness.compare::<{ Cell::RcvQDrop as usize }, { Cell::ZeroWindowDrop as usize + 1 }>(group::TCP);
    }
}
