//! Shortening a file takes its pages out of every mapping, private copies included.

use std::env;
use std::ptr::NonNull;

use lab::kernel::{map_file, temporary_file};
use lab::page;
use lab::sharing::Child;
use nix::sys::mman::MapFlags;
use nix::sys::wait::WaitStatus;

/// Reads a byte in a child process. Returns the byte, or the signal that ended the child.
///
/// # Safety
/// `byte` must point to memory that is mapped readable. The file need not reach there.
unsafe fn read(byte: *const u8) -> String {
    // SAFETY: the caller guarantees that the address is mapped. Beyond the file, the kernel ends the child.
    let child = Child::start(|| unsafe { lab::read(byte) }.into());
    match child.wait() {
        WaitStatus::Exited(_, value) => value.to_string(),
        WaitStatus::Signaled(_, signal, _) => signal.to_string(),
        other => panic!("unexpected wait status: {other:?}"),
    }
}

fn main() {
    let len = |pages: usize| (pages * lab::page_size()) as u64;
    // ANCHOR: main
    let file = temporary_file(&env::temp_dir(), 2).expect("a temporary file");
    let shared = map_file(&file, 2, MapFlags::MAP_SHARED);
    let private = map_file(&file, 2, MapFlags::MAP_PRIVATE);
    for start in [shared, private] {
        for number in 0..2 {
            // SAFETY: the mapping is writable, and nothing else accesses its pages.
            unsafe { lab::write(page(start, number), 7) };
        }
    }
    // SAFETY: both mappings have two pages.
    let second = |start: NonNull<u8>| unsafe { read(page(start, 1)) };
    let written = [second(shared), second(private)];
    file.set_len(len(1)).expect("ftruncate");
    let shortened = [second(shared), second(private)];
    file.set_len(len(2)).expect("ftruncate");
    let extended = [second(shared), second(private)];
    // ANCHOR_END: main
    println!("the second page of the mapping:  shared  private");
    for (name, values) in [
        ("both written", &written),
        ("file shortened", &shortened),
        ("file extended again", &extended),
    ] {
        println!("{name:<32} {:<7} {}", values[0], values[1]);
    }
    assert_eq!(written, ["7", "7"]);
    assert_eq!(shortened, ["SIGBUS", "SIGBUS"]);
    assert_eq!(extended, ["0", "0"]);
}
