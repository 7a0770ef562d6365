//! Every read of kernel memory: where a member is (rodata, from the running kernel's BTF) and how it is read.
//!
//! Two kinds of pointers exist. A [`Typed`] one comes from a program argument or from another typed
//! load, and how it is read depends on the kind of program, see [`Access`]. A [`Raw`] one is a plain
//! number to every verifier and is read by `bpf_probe_read_kernel`. A fault in either reads 0.

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{NonNull, read_volatile, write_volatile},
};

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel, generated},
    maps::PerCpuArray,
};
use netdrop_common::fields::ABSENT;

/// The offset of one struct member, a constant to the verifier.
pub(crate) type Field = Global<u16>;

macro_rules! globals {
    ($($name:ident: $ty:literal $path:literal, $need:ident;)*) => {
        $(
            #[doc = concat!("`", $ty, ".", $path, "`")]
            #[unsafe(no_mangle)]
            pub(crate) static $name: Field = Field::new(ABSENT);
        )*
    };
}

netdrop_common::kernel_fields!(globals);

/// First byte of the `sk_buff.pkt_type` bit field.
#[unsafe(no_mangle)]
pub(crate) static SKB_PKT_TYPE_BYTE: Field = Field::new(ABSENT);
/// Its shift in that byte.
#[unsafe(no_mangle)]
pub(crate) static SKB_PKT_TYPE_SHIFT: Global<u8> = Global::new(0);
/// Index of `unres_qlen_bytes` in `neigh_parms.data`.
#[unsafe(no_mangle)]
pub(crate) static NEIGH_QUEUE_LEN_BYTES: Field = Field::new(ABSENT);

macro_rules! indices {
    ($($name:ident)*) => {
        $(
            /// Index of a counter, see `netdrop_common::witness::MIB_INDICES`.
            #[unsafe(no_mangle)]
            pub(crate) static $name: Field = Field::new(ABSENT);
        )*
    };
}

indices! {
    MIB_LISTEN_OVERFLOWS MIB_LISTEN_DROPS MIB_REQQ_FULL_DROP
    MIB_RCVQ_DROP MIB_OFO_DROP MIB_OFO_PRUNED MIB_PAWS_ESTAB MIB_ZERO_WINDOW_DROP
}

/// How a kind of program reads the structs that its arguments point at.
pub(crate) trait Access: Copy {
    /// Loads a value; `V` must be as wide as the member at this address.
    fn load<V: Copy>(address: *const u8) -> V;
}

/// BTF-typed programs (`tp_btf`): the verifier knows the struct, checks the offset against the member, and
/// the load costs one instruction.
#[derive(Clone, Copy)]
pub(crate) enum Checked {}

impl Access for Checked {
    #[inline(always)]
    fn load<V: Copy>(address: *const u8) -> V {
        // SAFETY: the verifier checks that this offset is a member of the struct and as wide as `V`, and
        // the kernel turns a fault into 0. Volatile, so that the load keeps that width.
        unsafe { read_volatile(address.cast::<V>()) }
    }
}

/// Any other program: arguments are plain numbers, and each load is a helper call.
#[derive(Clone, Copy)]
pub(crate) enum Probed {}

impl Access for Probed {
    #[inline(always)]
    fn load<V: Copy>(address: *const u8) -> V {
        let mut value = MaybeUninit::<V>::uninit();
        let (to, len) = (value.as_mut_ptr().cast(), size_of::<V>() as u32);
        // SAFETY: `to` takes `len` bytes, and the helper checks the source.
        let _zeroed_on_fault = unsafe { generated::bpf_probe_read_kernel(to, len, address.cast()) };
        // SAFETY: the helper has written the whole value, zeros on a fault; every `V` read here is an integer,
        // a pointer or an array of integers, for which any bytes are valid.
        unsafe { value.assume_init() }
    }
}

/// A pointer to a known struct, never null. `T` names the struct, it is never dereferenced as `T`.
pub(crate) struct Typed<T, A>(NonNull<u8>, PhantomData<(T, A)>);

impl<T, A> Clone for Typed<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Typed<T, A> {}

impl<T, A: Access> Typed<T, A> {
    /// A program argument, or nothing when it is null: the verifier wants the check before any load.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Option<Self> {
        Some(Self(NonNull::new(pointer.cast_mut())?, PhantomData))
    }

    /// Loads a member; `V` must be as wide as the member.
    #[inline(always)]
    pub(crate) fn load<V: Copy>(self, field: &Field) -> V {
        A::load(self.pointer().wrapping_add(usize::from(field.load())))
    }

    /// Loads `N` words of an array member.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(self, field: &Field) -> [u64; N] {
        let mut words = [0; N];
        let mut index = 0;
        while index < N {
            words[index] = A::load(self.pointer().wrapping_add(usize::from(field.load()) + 8 * index));
            index += 1;
        }
        words
    }

    /// Loads a pointer member.
    #[inline(always)]
    pub(crate) fn follow<U>(self, field: &Field) -> Option<Typed<U, A>> {
        Typed::new(self.load::<*const u8>(field))
    }

    /// Address of a member.
    #[inline(always)]
    pub(crate) fn at(self, field: &Field) -> Raw {
        Raw(self.address()).offset(u64::from(field.load()))
    }

    /// The address as a number.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.pointer() as u64
    }

    #[inline(always)]
    fn pointer(self) -> *const u8 {
        self.0.as_ptr()
    }
}

/// A kernel address that is a plain number to the verifier.
#[derive(Clone, Copy)]
pub(crate) struct Raw(pub(crate) u64);

impl Raw {
    /// The address `bytes` further on.
    #[inline(always)]
    pub(crate) fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Reads a value at this address.
    #[inline(always)]
    pub(crate) fn read<V: Copy>(self) -> Option<V> {
        if self.0 == 0 {
            return None;
        }
        // SAFETY: the helper checks the address and reports a fault; every `V` read here is an integer or
        // an array of integers, for which any bytes are valid.
        unsafe { bpf_probe_read_kernel(self.0 as *const V) }.ok()
    }

    /// Reads a member at this struct's address.
    #[inline(always)]
    pub(crate) fn load<V: Copy>(self, field: &Field) -> Option<V> {
        self.offset(u64::from(field.load())).read()
    }

    /// Reads a pointer member; null is nothing.
    #[inline(always)]
    pub(crate) fn follow(self, field: &Field) -> Option<Self> {
        match self.load::<u64>(field) {
            Some(0) | None => None,
            Some(address) => Some(Self(address)),
        }
    }

    /// Copies a member to `to`, by its width there; on a fault that is zeroed.
    ///
    /// # Safety
    ///
    /// `to` must be valid for a write of `V`.
    #[inline(always)]
    pub(crate) unsafe fn copy_member<V: Copy>(self, field: &Field, to: *mut V) {
        let from = self.offset(u64::from(field.load())).0 as *const core::ffi::c_void;
        // SAFETY: `to` takes a `V` by contract; the helper checks the source.
        let _zeroed_on_fault =
            unsafe { generated::bpf_probe_read_kernel(to.cast(), size_of::<V>() as u32, from) };
    }

    /// Copies `N` bytes to `to` and says whether that worked. On a fault the bytes are zeroed.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `N` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_exactly<const N: usize>(self, to: *mut u8) -> bool {
        // SAFETY: `to` takes `N` bytes by contract; the helper checks the source.
        let status = unsafe {
            generated::bpf_probe_read_kernel(to.cast(), N as u32, self.0 as *const core::ffi::c_void)
        };
        status == 0
    }

    /// Copies `len` bytes, at most `MAX`, to `to`. On a fault the bytes are zeroed and 0 is returned.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `MAX` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy<const MAX: u32>(self, to: *mut u8, len: u32) -> u32 {
        // The verifier must see the bound on the very register that the helper gets.
        let len = core::hint::black_box(len);
        if len == 0 || len > MAX {
            return 0;
        }
        // SAFETY: `to` takes `MAX` bytes by contract and `len` is at most that; the helper checks the source.
        let status =
            unsafe { generated::bpf_probe_read_kernel(to.cast(), len, self.0 as *const core::ffi::c_void) };
        if status == 0 { len } else { 0 }
    }
}

/// What is known of this CPU's part of per-CPU memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct PerCpu {
    /// A pointer goes in, a number comes out.
    word: u64,
    /// Distance from a per-CPU pointer to this CPU's value; 0 when it has not been found yet.
    distance: u64,
}

/// Distance from a per-CPU pointer of the kernel's (`__percpu`) to this CPU's value, one number for all of them
/// (`pcpu_unit_offsets`, mm/percpu.c). Found by help of `map`: a look-up in it gives the address of this CPU's value,
/// and `bpf_array.pptrs[0]` is the per-CPU pointer that it was made of. 0 where that cannot be read.
#[inline(always)]
pub(crate) fn this_cpu(map: &'static PerCpuArray<PerCpu>) -> u64 {
    let Some(slot) = map.get_ptr_mut(0) else { return 0 };
    // SAFETY: the lookup returned this CPU's value. Whoever interrupts this run and writes to it does the same.
    let kept = unsafe { &raw mut (*slot).distance };
    // SAFETY: as above.
    let known = unsafe { read_volatile(kept) };
    if known != 0 || BPF_ARRAY_PER_CPU.load() == ABSENT {
        return known;
    }
    // The verifier takes what comes out of a map for a number, which it lets us calculate with.
    // SAFETY: as above.
    let word = unsafe { &raw mut (*slot).word };
    // SAFETY: as above.
    unsafe { write_volatile(word, slot as u64) };
    // SAFETY: as above.
    let value = unsafe { read_volatile(word) };
    // SAFETY: as above.
    unsafe { write_volatile(word, (&raw const *map) as u64) };
    // SAFETY: as above.
    let array = unsafe { read_volatile(word) };
    let Some(pointer) = Raw(array).load::<u64>(&BPF_ARRAY_PER_CPU) else { return 0 };
    let distance = value.wrapping_sub(pointer);
    // SAFETY: as above.
    unsafe { write_volatile(kept, distance) };
    distance
}
