//! malloc's heap is more than the break: a second thread's is mapped, and so is the first's where the break is blocked.
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
        .expect("a thread");

    // One page without access, right behind the heap: now the break cannot move.
    let page = NonZero::new(lab::page_size()).expect("a page is not empty");
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    let end = program_break().addr();
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing that is mapped.
    let wall = unsafe { mmap_anonymous(Some(end), page, ProtFlags::PROT_NONE, flags) };
    wall.expect("nothing lies behind the heap");
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
    println!("break blocked: {last:?}, and {own} mappings for one block alone");
    assert_eq!((&*first, &*second, &*last), ("[heap]", "", ""));
    assert!(stayed && beyond > 0);
    assert_eq!(own, 0);
}
