//! A loop over malloc and a deep stack faults each time; with mallopt, prefaulted heap and stack, and mlockall, never.
//! Claims: 17.

use std::hint::black_box;

use lab::faults;
use lab::glibc::{free, malloc};
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};

const KIB: usize = 1024;
const BLOCKS: usize = 64;
const LEN: usize = 64 * KIB;
const STACK: usize = 256 * KIB;

/// The loop that must not wait: blocks from malloc, and a deep call. Its page faults.
fn work() -> i64 {
    let before = faults();
    let blocks = [(); BLOCKS].map(|()| malloc(LEN));
    for block in blocks {
        // SAFETY: the block has that length, and nothing else uses it.
        unsafe { block.write_bytes(1, LEN) };
    }
    for block in blocks.into_iter().rev() {
        // SAFETY: each is freed once, and not used any more.
        unsafe { free(block) };
    }
    deep_call::<STACK>();
    faults() - before
}

/// Writes that much of the stack.
#[inline(never)]
fn deep_call<const LEN: usize>() {
    black_box([1_u8; LEN]);
}

// ANCHOR: main
/// Whether memory is locked; it is prefaulted in any case.
fn prepare() -> nix::Result<()> {
    // malloc keeps all that it gets, and maps nothing for one block alone.
    for (switch, value) in [(libc::M_TRIM_THRESHOLD, -1), (libc::M_MMAP_MAX, 0)] {
        // SAFETY: this program has one thread, and these are switches of malloc's.
        let set = unsafe { libc::mallopt(switch, value) };
        assert_eq!(set, 1);
    }
    // Twice what the loop takes: by then the free part of the heap and the end of
    // the stack may lie elsewhere.
    let len = 2 * BLOCKS * LEN;
    let heap = malloc(len);
    // SAFETY: the block has that length, and nothing else uses it.
    unsafe { heap.write_bytes(1, len) };
    // SAFETY: it is freed once. With these switches it stays in the heap.
    unsafe { free(heap) };
    deep_call::<{ 2 * STACK }>();
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}
// ANCHOR_END: main

fn main() {
    let first = work();
    let second = work();
    let locked = prepare();
    let prepared = [(); 3].map(|()| work());
    println!("first time:   faults: {}", first > 0);
    println!("second time:  faults: {}", second > 0);
    println!("prepared:     {prepared:?} faults");
    if let Err(error) = locked {
        eprintln!("prefaulted, and not locked: mlockall says {error}; see RLIMIT_MEMLOCK");
    }
    assert!(first > 0 && second > 0);
    assert_eq!(prepared, [0; 3]);
}
