//! A loop with malloc and a deep stack faults each time. With mallopt, prefaulting and mlockall it no longer faults.
//!
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

/// The work of a real-time loop: blocks from malloc, and a deep call. Returns the number of page faults.
fn work() -> i64 {
    let before = faults();
    let blocks = [(); BLOCKS].map(|()| malloc(LEN));
    for block in blocks {
        // SAFETY: the block has `LEN` bytes, and nothing else accesses it.
        unsafe { block.write_bytes(1, LEN) };
    }
    for block in blocks.into_iter().rev() {
        // SAFETY: the block came from malloc, is freed once, and is not used afterwards.
        unsafe { free(block) };
    }
    deep_call::<STACK>();
    faults() - before
}

/// Writes `LEN` bytes of stack.
#[inline(never)]
fn deep_call<const LEN: usize>() {
    black_box([1_u8; LEN]);
}

// ANCHOR: main
/// Prefaults heap and stack, and locks memory. Returns the result of mlockall.
fn prepare() -> nix::Result<()> {
    // malloc no longer returns memory to the kernel, and no longer maps single blocks.
    for (parameter, value) in [(libc::M_TRIM_THRESHOLD, -1), (libc::M_MMAP_MAX, 0)] {
        // SAFETY: mallopt accepts any parameter, and no other thread uses malloc.
        let accepted = unsafe { libc::mallopt(parameter, value) };
        assert_eq!(accepted, 1);
    }
    // Prefault twice what the loop needs, because its heap blocks and its stack may
    // start at other addresses than those used here.
    let len = 2 * BLOCKS * LEN;
    let heap = malloc(len);
    // SAFETY: the block has `len` bytes, and nothing else accesses it.
    unsafe { heap.write_bytes(1, len) };
    // SAFETY: the block came from malloc, is freed once, and is not used afterwards.
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
        eprintln!("memory is prefaulted but not locked: mlockall: {error} (see RLIMIT_MEMLOCK)");
    }
    assert!(first > 0 && second > 0);
    assert_eq!(prepared, [0; 3]);
}
