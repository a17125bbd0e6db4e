//! A guard page ends a stray access with SIGSEGV, a stray system call with EFAULT, and makes one region three.

use std::fs;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use lab::sharing::Child;
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::mman::{ProtFlags, mprotect, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::pipe;

/// How many lines of /proc/self/maps the pages from `start` on touch.
fn lines(start: NonNull<u8>, pages: usize) -> usize {
    let from = start.addr().get();
    let to = from + pages * lab::page_size();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let touches = |line: &&str| {
        let range = line.split_whitespace().next().expect("a range");
        let (first, end) = range.split_once('-').expect("two addresses");
        let [first, end] = [first, end].map(|text| usize::from_str_radix(text, 16).expect("hex"));
        first < to && from < end
    };
    maps.lines().filter(touches).count()
}

/// Nothing is mapped there: `asm-generic/siginfo.h`.
const SEGV_MAPERR: i32 = 1;
/// Something is mapped, without that right.
const SEGV_ACCERR: i32 = 2;

/// Ends the process with the signal's code as its status.
extern "C" fn exit_with_code(_: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a handler with SA_SIGINFO a siginfo_t.
    let code = unsafe { (*info).si_code };
    // SAFETY: allowed in a signal handler, and ends the process at once.
    unsafe { libc::_exit(code) }
}

/// The code of the SIGSEGV that comes of reading there.
fn code_of_reading(byte: *const u8) -> &'static str {
    let child = Child::start(|| {
        let handler = SigHandler::SigAction(exit_with_code);
        let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler only ends the process.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.expect("sigaction");
        // SAFETY: it is not readable: SIGSEGV is what this child is for.
        unsafe { lab::read(byte) };
        0
    });
    match child.status() {
        SEGV_MAPERR => "SEGV_MAPERR",
        SEGV_ACCERR => "SEGV_ACCERR",
        other => panic!("no SIGSEGV, or another code: {other}"),
    }
}

const ROOM: usize = 5;

fn main() {
    // ANCHOR: main
    let start = lab::map_private(ROOM);
    let before = lines(start, ROOM);
    let guard = NonNull::new(lab::page(start, 1)).expect("an address");
    // SAFETY: nothing uses that page.
    unsafe { mprotect(guard.cast(), lab::page_size(), ProtFlags::PROT_NONE) }.expect("mprotect");
    let after = lines(start, ROOM);
    let hole = NonNull::new(lab::page(start, 3)).expect("an address");
    // SAFETY: as above.
    unsafe { munmap(hole.cast(), lab::page_size()) }.expect("munmap");

    let touched_guard = code_of_reading(guard.as_ptr());
    let touched_hole = code_of_reading(hole.as_ptr());
    let (_reads, writes) = pipe().expect("pipe");
    // SAFETY: the kernel checks the address, and this process does not use it.
    let written = unsafe { libc::write(writes.as_raw_fd(), guard.as_ptr().cast(), 1) };
    let written = Errno::result(written);
    // ANCHOR_END: main
    println!("lines in the maps: {before}, and with a guard page {after}");
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
