//! A process unmaps only its own mapping, with munmap or by exiting. Other processes keep theirs.
//!
//! Claims: 21, 24.

use std::ptr::NonNull;

use lab::sharing::Child;
use nix::sys::mman::munmap;

/// Forks a child that writes `number` to the page and calls `before_exit`. Returns what the parent reads afterwards.
fn read_after_child(start: NonNull<u8>, number: u8, before_exit: fn(NonNull<u8>)) -> u8 {
    // ANCHOR: main
    let child = Child::start(|| {
        // SAFETY: the page is mapped writable, and the parent does not access it until
        // the child has ended.
        unsafe { lab::write(start.as_ptr(), number) };
        before_exit(start);
        0
    });
    assert_eq!(child.exit_code(), 0);
    // SAFETY: the page is still mapped in this process, whatever the child did.
    unsafe { lab::read(start.as_ptr()) }
    // ANCHOR_END: main
}

fn unmap(start: NonNull<u8>) {
    // SAFETY: the calling process does not access the page again.
    unsafe { munmap(start.cast(), lab::page_size()) }.expect("munmap");
}

fn main() {
    let start = lab::map_shared(1);
    let after_munmap = read_after_child(start, 1, unmap);
    let after_end = read_after_child(start, 2, |_| {});
    unmap(start);
    let new_mapping = lab::map_shared(1);
    // SAFETY: the page is mapped readable.
    let remapped = unsafe { lab::read(new_mapping.as_ptr()) };
    println!("a child wrote 1, unmapped and exited: the parent reads {after_munmap}");
    println!("a child wrote 2 and exited:           the parent reads {after_end}");
    println!("the parent unmapped and mapped again: the parent reads {remapped}");
    assert_eq!([after_munmap, after_end, remapped], [1, 2, 0]);
}
