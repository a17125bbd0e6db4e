//! mremap grows private and shared anonymous mappings, but the shared one has no memory behind its new page.

use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::sys::mman::{MRemapFlags, mremap};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

// ANCHOR: main
/// Grows a mapping from one page to two. Returns the value in the old page, and the wait
/// status of a child that reads the new page and exits with its value.
fn grow(memory: Memory) -> (u8, WaitStatus) {
    let one = lab::page_size();
    let start = memory.map(1);
    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(start.as_ptr(), 7) };
    // SAFETY: only this function uses the page, and it does not use the old address
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
    // SAFETY: mremap moved the old page to the start of the new range.
    let old = unsafe { lab::read(grown.as_ptr()) };
    let child = Child::start(|| {
        // SAFETY: the address is mapped. If no memory is behind it, this child is meant
        // to die by SIGBUS.
        unsafe { lab::read(lab::page(grown, 1)) }.into()
    });
    (old, child.wait())
}
// ANCHOR_END: main

fn main() {
    let (old, private) = grow(Memory::Private);
    println!(
        "private: the old page reads {old}, the new one {}",
        describe(private)
    );
    assert!(old == 7 && matches!(private, WaitStatus::Exited(_, 0)));
    let (old, shared) = grow(Memory::Shared);
    println!(
        "shared:  the old page reads {old}, the new one {}",
        describe(shared)
    );
    assert!(old == 7 && matches!(shared, WaitStatus::Signaled(_, Signal::SIGBUS, _)));
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, number) => number.to_string(),
        WaitStatus::Signaled(_, signal, _) => format!("ends in {signal}"),
        other => panic!("unexpected wait status: {other:?}"),
    }
}
