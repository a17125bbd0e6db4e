//! The same madvise advice has different effects on private and on shared memory.

use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::wait::WaitStatus;

/// Returns the value that a child reads from the page, or the signal that kills it.
fn child_reads(start: NonNull<u8>) -> String {
    let child = Child::start(|| {
        // SAFETY: the parent has the page mapped. If the child does not, it is meant to die by SIGSEGV.
        unsafe { lab::read(start.as_ptr()) }.into()
    });
    match child.wait() {
        WaitStatus::Exited(_, number) => number.to_string(),
        WaitStatus::Signaled(_, signal, _) => signal.to_string(),
        other => panic!("unexpected wait status: {other:?}"),
    }
}

fn reads(start: NonNull<u8>) -> String {
    // SAFETY: the page is mapped readable.
    unsafe { lab::read(start.as_ptr()) }.to_string()
}

type Read = fn(NonNull<u8>) -> String;

// ANCHOR: main
/// Calls madvise on a page that holds 7. Returns its result, and the value that is read
/// afterwards.
fn advise(memory: Memory, advice: c_int, read: Read) -> String {
    let start = memory.map(1);
    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(start.as_ptr(), 7) };
    // SAFETY: only this function uses the page, and its bytes may change.
    let result = unsafe { libc::madvise(start.as_ptr().cast(), lab::page_size(), advice) };
    let outcome = match Errno::result(result) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    format!("{outcome}, {}", read(start))
}
// ANCHOR_END: main

fn main() {
    println!("{:<28}{:<13}shared", "", "private");
    let rows: [(&str, c_int, Read); 4] = [
        ("MADV_DONTNEED, then read:", libc::MADV_DONTNEED, reads),
        ("MADV_REMOVE, then read:", libc::MADV_REMOVE, reads),
        (
            "MADV_WIPEONFORK, in child:",
            libc::MADV_WIPEONFORK,
            child_reads,
        ),
        ("MADV_DONTFORK, in child:", libc::MADV_DONTFORK, child_reads),
    ];
    let found = rows.map(|(name, advice, read)| {
        let private = advise(Memory::Private, advice, read);
        let shared = advise(Memory::Shared, advice, read);
        println!("{name:<28}{private:<13}{shared}");
        [private, shared]
    });
    assert_eq!(
        found,
        [
            ["ok, 0", "ok, 7"],
            ["EINVAL, 7", "ok, 0"],
            ["ok, 0", "EINVAL, 7"],
            ["ok, SIGSEGV", "ok, SIGSEGV"],
        ]
    );
}
