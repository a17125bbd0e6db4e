//! malloc also takes its heap from mmap: for another thread's arena, and for all threads if the break cannot move.
//!
//! Claims: 8, 11.

use std::num::NonZero;
use std::thread;

use lab::glibc::{malloc, own_mappings, program_break};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

const KIB: usize = 1024;

fn main() {
    let own_before = own_mappings();
    // ANCHOR: main
    let first = malloc(KIB);
    let second = thread::spawn(|| malloc(KIB).addr())
        .join()
        .expect("the thread does not panic");

    // An inaccessible page directly after the heap keeps the break from moving.
    let page = NonZero::new(lab::page_size()).expect("a page is not empty");
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    let end = program_break().addr();
    // SAFETY: MAP_FIXED_NOREPLACE does not replace an existing mapping.
    let guard = unsafe { mmap_anonymous(Some(end), page, ProtFlags::PROT_NONE, flags) };
    guard.expect("the page after the heap is free");
    let blocks = [(); 64].map(|()| malloc(100 * KIB).addr());
    // ANCHOR_END: main
    let own = own_mappings() - own_before;
    let stayed = program_break().addr() == end;

    let path =
        |address: NonZero<usize>| lab::maps_line(std::ptr::without_provenance(address.get())).path;
    let beyond = blocks.iter().filter(|block| **block > end).count();
    let (first, second) = (path(first.addr()), path(second));
    let last = path(blocks[63]);
    println!("first thread:  {first:?}");
    println!("second thread: {second:?}");
    println!("break blocked: {last:?}, and {own} separate mappings");
    assert_eq!((&*first, &*second, &*last), ("[heap]", "", ""));
    assert!(stayed && beyond > 0);
    assert_eq!(own, 0);
}
