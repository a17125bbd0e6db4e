//! F_SEAL_SHRINK keeps other processes from truncating a mapped memfd. Without it, an access can end in SIGBUS.

use std::ffi::CStr;
use std::os::fd::AsFd;

use lab::sharing::Child;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::ftruncate;

const NAME: &CStr = c"lab";

// ANCHOR: main
/// Maps a memfd of one page with these seals, and lets a child truncate it to length 0.
/// Returns the result of ftruncate in the child, and the wait status of a second child
/// that writes to the page afterwards.
fn cut(seals: SealFlag) -> (Result<(), Errno>, WaitStatus) {
    let memfd = memfd_create(NAME, MFdFlags::MFD_ALLOW_SEALING).expect("memfd_create");
    let page = lab::page_size().try_into().expect("a page is not empty");
    ftruncate(&memfd, lab::page_size() as i64).expect("ftruncate");
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).expect("F_ADD_SEALS");
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { mmap(None, page, prot, MapFlags::MAP_SHARED, memfd.as_fd(), 0) };
    let byte = start.expect("mmap").cast::<u8>().as_ptr();

    let other = Child::start(|| ftruncate(&memfd, 0).map_or_else(|error| error as i32, |()| 0));
    let truncated = match other.exit_code() {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    };
    let touch = Child::start(|| {
        // SAFETY: the byte is mapped. If the file no longer extends to it, this child
        // is meant to die by SIGBUS.
        unsafe { lab::write(byte, 1) };
        0
    });
    (truncated, touch.wait())
}
// ANCHOR_END: main

fn main() {
    let (truncated, status) = cut(SealFlag::empty());
    println!(
        "no seal:       ftruncate: {truncated:?}, access: {}",
        describe(status)
    );
    assert_eq!(truncated, Ok(()));
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGBUS, _)));
    let (truncated, status) = cut(SealFlag::F_SEAL_SHRINK);
    println!(
        "F_SEAL_SHRINK: ftruncate: {truncated:?}, access: {}",
        describe(status)
    );
    assert_eq!(truncated, Err(Errno::EPERM));
    assert!(matches!(status, WaitStatus::Exited(_, 0)));
}

fn describe(status: WaitStatus) -> &'static str {
    match status {
        WaitStatus::Exited(_, 0) => "ok",
        WaitStatus::Signaled(_, Signal::SIGBUS, _) => "SIGBUS",
        other => panic!("unexpected wait status: {other:?}"),
    }
}
