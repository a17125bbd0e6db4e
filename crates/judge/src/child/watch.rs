//! Marks, for the tracer, the part of a case whose system calls are recorded.

use std::hint::black_box;

use nix::libc;

use super::window;
use crate::protocol::Mark;

/// Records the memory and process calls of `f`, and of the processes that it forks, in the transcript and the ledger.
///
/// What is mapped, open or running when `f` returns is what the ledger reports as left.
/// A case may call `watch` more than once: the records are joined.
pub fn watch<R>(f: impl FnOnce() -> R) -> R {
    /// Ends the record also if `f` panics.
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            watching(false);
        }
    }
    grow_the_heap();
    watching(true);
    let _watching = Watching;
    f()
}

/// Notes a number for the check of a `watched` case or of `refusals`: what a function has returned, for example.
pub fn note(number: u64) {
    window::mark(Mark::Note, number as usize);
}

/// Makes room in the heap, so that the small allocations of a case do not grow it at unpredictable moments.
pub fn grow_the_heap() {
    drop(black_box(Vec::<u8>::with_capacity(96 << 10)));
}

/// The tracer needs the end of the heap to record the calls of `brk`.
fn watching(on: bool) {
    // SAFETY: `sbrk(0)` only reads the end of the heap.
    let heap = unsafe { libc::sbrk(0) };
    let mark = match on {
        true => Mark::Watch,
        false => Mark::Unwatch,
    };
    window::mark(mark, heap.addr());
}
