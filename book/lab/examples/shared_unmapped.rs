//! A process unmaps only its own mapping, and its end does the same: the others keep theirs.
//! Claims: 21, 24.

use std::ptr::NonNull;

use lab::sharing::Child;
use nix::sys::mman::munmap;

/// Writes a number there in a child, which then does `before_its_end`; gives what the parent reads after that end.
fn read_after_child(start: NonNull<u8>, number: u8, before_its_end: fn(NonNull<u8>)) -> u8 {
    // ANCHOR: main
    let child = Child::start(|| {
        // SAFETY: the page is mapped to be written, and the parent leaves it alone
        // until the child has ended.
        unsafe { lab::write(start.as_ptr(), number) };
        before_its_end(start);
        0
    });
    assert_eq!(child.status(), 0);
    // SAFETY: this process has not unmapped the page, whatever the child did.
    unsafe { lab::read(start.as_ptr()) }
    // ANCHOR_END: main
}

fn unmap(start: NonNull<u8>) {
    // SAFETY: nothing uses the page again in the process that calls this.
    unsafe { munmap(start.cast(), lab::page_size()) }.expect("munmap");
}

fn main() {
    let start = lab::map_shared(1);
    let after_munmap = read_after_child(start, 1, unmap);
    let after_end = read_after_child(start, 2, |_| {});
    unmap(start);
    let fresh = lab::map_shared(1);
    // SAFETY: the page is mapped to be read.
    let anew = unsafe { lab::read(fresh.as_ptr()) };
    println!("one child wrote 1, unmapped its own, ended: the parent reads {after_munmap}");
    println!("another wrote 2 and only ended:             the parent reads {after_end}");
    println!("the parent unmapped, and mapped anew:       the parent reads {anew}");
    assert_eq!([after_munmap, after_end, anew], [1, 2, 0]);
}
