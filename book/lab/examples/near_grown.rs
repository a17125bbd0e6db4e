//! A private mapping grows by mremap, and so does a shared one; but behind the shared one's new page there is nothing.

use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::sys::mman::{MRemapFlags, mremap};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

// ANCHOR: main
/// Grows one page to two. Returns what the old page holds then, and how a child ended
/// that reads the new page, and exits with what it read.
fn grow(memory: Memory) -> (u8, WaitStatus) {
    let one = lab::page_size();
    let start = memory.map(1);
    // SAFETY: the page is mapped to be written, and nothing else uses it.
    unsafe { lab::write(start.as_ptr(), 7) };
    // SAFETY: the page is this function's own, and the old address is not used
    // again.
    let grown = unsafe {
        mremap(
            start.cast(),
            one,
            2 * one,
            MRemapFlags::MREMAP_MAYMOVE,
            None,
        )
    };
    let grown: NonNull<u8> = grown.expect("mremap").cast();
    // SAFETY: the first page is the old one.
    let old = unsafe { lab::read(grown.as_ptr()) };
    let child = Child::start(|| {
        // SAFETY: the address is mapped. Where nothing is behind it, SIGBUS is what
        // this child is for.
        unsafe { lab::read(lab::page(grown, 1)) }.into()
    });
    (old, child.end())
}
// ANCHOR_END: main

fn main() {
    let (old, private) = grow(Memory::Private);
    println!(
        "private: the old page reads {old}, the new one {}",
        say(private)
    );
    assert!(old == 7 && matches!(private, WaitStatus::Exited(_, 0)));
    let (old, shared) = grow(Memory::Shared);
    println!(
        "shared:  the old page reads {old}, the new one {}",
        say(shared)
    );
    assert!(old == 7 && matches!(shared, WaitStatus::Signaled(_, Signal::SIGBUS, _)));
}

fn say(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, number) => number.to_string(),
        WaitStatus::Signaled(_, signal, _) => format!("ends in {signal}"),
        other => panic!("the child ended otherwise: {other:?}"),
    }
}
