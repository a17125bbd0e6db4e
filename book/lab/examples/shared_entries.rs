//! fork copies the page-table entries of private memory, but not those of shared memory: the child faults them in.
//!
//! Claims: 18.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use lab::sharing::{Child, Memory};
use lab::{disable_huge_pages, faults, page, resident_pages};

const PAGES: usize = 256;

/// Adds 1 to the first byte of each page, and returns the number of page faults.
fn add_to_each(start: NonNull<u8>, warm: NonNull<u8>) -> u32 {
    let mut taken = 0;
    // After a fork, code and stack of this function fault once as well. The first round absorbs those faults.
    for start in [warm, start] {
        let before = faults();
        for number in 0..PAGES {
            let byte = page(start, number);
            // Write first: on aarch64, an atomic addition to a page that is not present is reported as a read fault.
            // SAFETY: the byte is in the same page of a live mapping, and is accessed only as an atomic.
            unsafe { AtomicU8::from_ptr(byte.wrapping_add(1)) }.store(1, Relaxed);
            // SAFETY: the byte is in a live mapping, and is accessed only as an atomic.
            unsafe { AtomicU8::from_ptr(byte) }.fetch_add(1, Relaxed);
        }
        taken = faults() - before;
    }
    taken as u32
}

fn main() {
    disable_huge_pages();
    let warm = Memory::Private.map(PAGES);
    // ANCHOR: main
    let seen = Memory::Shared.atomics::<4>();
    let both = [Memory::Private, Memory::Shared].map(|memory| memory.map(PAGES));
    for start in both {
        add_to_each(start, warm);
    }
    let child = Child::start(|| {
        for (kind, start) in both.into_iter().enumerate() {
            seen[kind].store(resident_pages(start, PAGES) as u32, Relaxed);
            seen[2 + kind].store(add_to_each(start, warm), Relaxed);
        }
        0
    });
    assert_eq!(child.exit_code(), 0);
    let again = both.map(|start| add_to_each(start, warm));
    // ANCHOR_END: main
    let seen = seen.each_ref().map(|number| number.load(Relaxed));
    let first = both.map(|start| {
        // SAFETY: the byte is in a live mapping, and is accessed only as an atomic.
        unsafe { AtomicU8::from_ptr(start.as_ptr()) }.load(Relaxed)
    });
    println!("{:34} private  shared", "");
    let row = |name, [private, shared]: [u32; 2]| println!("{name:<34} {private:>7} {shared:>7}");
    row("entries that the child starts with", [seen[0], seen[1]]);
    row("faults: child adds 1 to each page", [seen[2], seen[3]]);
    row("faults: parent adds 1 to each page", again);
    row("value that the parent reads", first.map(u32::from));
    let all = PAGES as u32;
    assert_eq!(seen, [all, 0, all, all]);
    assert_eq!(again, [all, 0]);
    assert_eq!(first, [2, 3]);
}
