//! Access to a guard page raises SIGSEGV, a system call fails with EFAULT, and the guard splits one VMA into three.

use std::fs;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use lab::sharing::Child;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::mman::{ProtFlags, mprotect, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::pipe;

/// Returns how many lines of /proc/self/maps overlap the `pages` pages from `start`.
fn lines(start: NonNull<u8>, pages: usize) -> usize {
    let from = start.addr().get();
    let to = from + pages * lab::page_size();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let overlaps = |line: &&str| {
        let range = line.split_whitespace().next().expect("a range");
        let (first, end) = range.split_once('-').expect("two addresses");
        let [first, end] = [first, end].map(|text| usize::from_str_radix(text, 16).expect("hex"));
        first < to && from < end
    };
    maps.lines().filter(overlaps).count()
}

/// si_code of SIGSEGV if nothing is mapped at the address, from `asm-generic/siginfo.h`.
const SEGV_MAPERR: i32 = 1;
/// si_code of SIGSEGV if the mapping does not permit the access.
const SEGV_ACCERR: i32 = 2;

/// Exits with the signal's si_code.
extern "C" fn exit_with_code(_: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO, the kernel passes the handler a valid siginfo_t.
    let code = unsafe { (*info).si_code };
    // SAFETY: _exit is async-signal-safe, and only ends this process.
    unsafe { libc::_exit(code) }
}

/// Reads the byte in a child, and returns the si_code of the SIGSEGV.
fn code_of_reading(byte: *const u8) -> &'static str {
    let child = Child::start(|| {
        let handler = SigHandler::SigAction(exit_with_code);
        let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler calls only _exit, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.expect("sigaction");
        // SAFETY: the byte is not readable, and this child is meant to get SIGSEGV.
        unsafe { lab::read(byte) };
        0
    });
    match child.exit_code() {
        SEGV_MAPERR => "SEGV_MAPERR",
        SEGV_ACCERR => "SEGV_ACCERR",
        other => panic!("the child exited with {other}, which is no si_code of SIGSEGV"),
    }
}

const ROOM: usize = 5;

fn main() {
    // ANCHOR: main
    let start = lab::map_private(ROOM);
    let before = lines(start, ROOM);
    let guard = NonNull::new(lab::page(start, 1)).expect("an address");
    // SAFETY: no reference to the page exists.
    unsafe { mprotect(guard.cast(), lab::page_size(), ProtFlags::PROT_NONE) }.expect("mprotect");
    let after = lines(start, ROOM);
    let hole = NonNull::new(lab::page(start, 3)).expect("an address");
    // SAFETY: no reference to the page exists.
    unsafe { munmap(hole.cast(), lab::page_size()) }.expect("munmap");

    let touched_guard = code_of_reading(guard.as_ptr());
    let touched_hole = code_of_reading(hole.as_ptr());
    let (_reads, writes) = pipe().expect("pipe");
    // SAFETY: the kernel checks the address, and reports EFAULT if it cannot read it.
    let written = unsafe { libc::write(writes.as_raw_fd(), guard.as_ptr().cast(), 1) };
    let written = Errno::result(written);
    // ANCHOR_END: main
    println!("lines in maps: {before}, with a guard page: {after}");
    println!("read in the guard page: SIGSEGV, {touched_guard}");
    println!("read in a hole:         SIGSEGV, {touched_hole}");
    println!("write(2) from the guard page: {written:?}");
    assert_eq!((before, after), (1, 3));
    assert_eq!(
        (touched_guard, touched_hole),
        ("SEGV_ACCERR", "SEGV_MAPERR")
    );
    assert_eq!(written, Err(Errno::EFAULT));
}
