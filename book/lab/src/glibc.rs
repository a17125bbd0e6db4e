//! Observes glibc's malloc from outside: mallinfo2(3) reports its mappings and its reserve, and sbrk(2) the program
//! break. Needs glibc 2.33 or later.
//!
//! Rust allocates from the same heap. Between two observations a program therefore calls only this module, keeps its
//! results in arrays, and prints them at the end.

use std::hint::black_box;
use std::ptr::NonNull;

use nix::libc;

fn info() -> libc::mallinfo2 {
    // SAFETY: mallinfo2 only reads malloc's counters, and takes malloc's locks for that.
    unsafe { libc::mallinfo2() }
}

/// Returns how many blocks have their own mapping at present.
pub fn own_mappings() -> usize {
    info().hblks
}

/// Returns the total length of those mappings in bytes.
pub fn own_mapped_bytes() -> usize {
    info().hblkhd
}

/// Returns the program break: the end of the heap, which brk(2) moves.
pub fn program_break() -> NonNull<u8> {
    // SAFETY: an increment of 0 does not move the break.
    let end = unsafe { libc::sbrk(0) };
    NonNull::new(end.cast()).expect("the program break is not null")
}

/// Allocates an uninitialized block with malloc(3). `black_box` keeps the compiler from removing the call.
pub fn malloc(len: usize) -> NonNull<u8> {
    // SAFETY: malloc accepts any length.
    let block = unsafe { libc::malloc(black_box(len)) };
    NonNull::new(black_box(block).cast()).expect("malloc")
}

/// Frees a block.
///
/// # Safety
/// `block` must come from `malloc`, must not have been freed, and must not be used afterwards.
pub unsafe fn free(block: NonNull<u8>) {
    // SAFETY: the caller guarantees that `block` is a live block from malloc.
    unsafe { libc::free(block.as_ptr().cast()) };
}

/// Allocates the reserve at the end of the heap until less than 1 KiB of it is left. For the next larger block malloc
/// then has to ask the kernel.
pub fn use_up_reserve() {
    const LEFT: usize = 1024;
    // The first call to malloc sets up the heap.
    malloc(1);
    loop {
        let reserve = info().keepcost;
        if reserve < LEFT {
            return;
        }
        // Leave room for the chunk's header.
        malloc(reserve - LEFT / 2);
    }
}
