//! The same advice does one thing to private memory, and another to shared memory.

use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::wait::WaitStatus;

/// What a child reads there, or the signal that it ends by.
fn child_reads(start: NonNull<u8>) -> String {
    let child = Child::start(|| {
        // SAFETY: the page is mapped in the parent. Where it is not in the child, SIGSEGV is what the child is for.
        unsafe { lab::read(start.as_ptr()) }.into()
    });
    match child.end() {
        WaitStatus::Exited(_, number) => number.to_string(),
        WaitStatus::Signaled(_, signal, _) => signal.to_string(),
        other => panic!("the child ended otherwise: {other:?}"),
    }
}

fn reads(start: NonNull<u8>) -> String {
    // SAFETY: the page is mapped to be read.
    unsafe { lab::read(start.as_ptr()) }.to_string()
}

type Read = fn(NonNull<u8>) -> String;

// ANCHOR: main
/// Gives the advice about a page that holds 7. Returns the kernel's answer, and what is
/// read afterwards.
fn advise(memory: Memory, advice: c_int, read: Read) -> String {
    let start = memory.map(1);
    // SAFETY: the page is mapped to be written, and nothing else uses it.
    unsafe { lab::write(start.as_ptr(), 7) };
    // SAFETY: the page is this function's own, and holds nothing but bytes: it may
    // change.
    let result = unsafe { libc::madvise(start.as_ptr().cast(), lab::page_size(), advice) };
    let said = match Errno::result(result) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    format!("{said}, {}", read(start))
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
