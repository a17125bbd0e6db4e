//! glibc's malloc, watched from outside: it counts its own mappings and its reserve in mallinfo2(3), and the break is
//! where sbrk(2) says. For glibc 2.33 and later.
//!
//! Rust's own allocations come from the same heap. So between two observations a program calls nothing but this module,
//! keeps what it saw in arrays, and prints at the end.

use std::hint::black_box;
use std::ptr::NonNull;

use nix::libc;

fn info() -> libc::mallinfo2 {
    // SAFETY: it reads malloc's counters, under malloc's own locks.
    unsafe { libc::mallinfo2() }
}

/// How many blocks lie in a mapping of their own at present.
pub fn own_mappings() -> usize {
    info().hblks
}

/// How many bytes those mappings have, all together.
pub fn own_mapped_bytes() -> usize {
    info().hblkhd
}

/// The end of the heap that brk(2) moves.
///
/// # Panics
/// If sbrk fails, which it does not where nothing is to be moved.
pub fn program_break() -> NonNull<u8> {
    // SAFETY: an increment of 0 moves nothing.
    let end = unsafe { libc::sbrk(0) };
    NonNull::new(end.cast()).expect("there is a break")
}

/// A block from malloc(3), uninitialized. The compiler does not know it for one, and cannot leave the call out.
///
/// # Panics
/// If malloc refuses.
pub fn malloc(len: usize) -> NonNull<u8> {
    // SAFETY: any length may be asked for.
    let block = unsafe { libc::malloc(black_box(len)) };
    NonNull::new(black_box(block).cast()).expect("malloc has a block")
}

/// Gives a block back.
///
/// # Safety
/// `block` came from `malloc`, was not freed yet, and nothing uses it any more.
pub unsafe fn free(block: NonNull<u8>) {
    // SAFETY: the caller's contract.
    unsafe { libc::free(block.as_ptr().cast()) };
}

/// Takes the reserve at the heap's end until less than 1 KiB of it is left. Later blocks then show what malloc does
/// when it has to ask the kernel.
pub fn use_up_reserve() {
    const LEFT: usize = 1024;
    // The first call of all sets the heap up.
    malloc(1);
    loop {
        let reserve = info().keepcost;
        if reserve < LEFT {
            return;
        }
        // A chunk has a header, so a little less than all of it can be had.
        malloc(reserve - LEFT / 2);
    }
}
