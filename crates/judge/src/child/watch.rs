//! Marks, for the tracer, the part of a case whose system calls are recorded.

use std::hint::black_box;

use nix::libc;

use crate::protocol::MARK;

/// Records the memory and process calls of `f`, and of the processes that it forks, in the transcript and the ledger.
///
/// What is mapped, open or running when `f` returns is what the ledger reports as left.
/// A case may call `watch` more than once: the records are joined.
pub fn watch<R>(f: impl FnOnce() -> R) -> R {
    /// Ends the record also if `f` panics.
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            mark(false);
        }
    }
    grow_the_heap();
    mark(true);
    let _watching = Watching;
    f()
}

/// Makes room in the heap, so that the small allocations of a case do not grow it at unpredictable moments.
pub fn grow_the_heap() {
    drop(black_box(Vec::<u8>::with_capacity(96 << 10)));
}

fn mark(on: bool) {
    // SAFETY: `sbrk(0)` only reads the end of the heap.
    let heap = unsafe { libc::sbrk(0) };
    // SAFETY: no kernel knows the option, so the call does nothing but fail.
    unsafe { libc::prctl(MARK as libc::c_int, libc::c_ulong::from(on), heap, 0, 0) };
}
