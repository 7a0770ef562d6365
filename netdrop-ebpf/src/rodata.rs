//! Settings that are arrays: one element at a time, so that none goes over the 512-byte stack.

use core::ptr::read_volatile;

use aya_ebpf::Global;

/// One element of an array setting.
#[inline(always)]
pub(crate) fn element<T: Copy, const N: usize>(setting: &'static Global<[T; N]>, index: usize) -> T {
    // The compiler leaves this out where the index is a constant, and the verifier wants it where it is not.
    let index = if index < N { index } else { 0 };
    let first = (&raw const *setting).cast::<T>();
    // SAFETY: `Global` is a transparent wrapper of the array, and the index was checked. Volatile, because the
    // loader overwrites the value.
    unsafe { read_volatile(first.wrapping_add(index)) }
}
