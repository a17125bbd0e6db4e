//! A seal keeps the other side from shrinking a memfd under a mapping, where a touch would end in SIGBUS.

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
/// Maps a memfd of one page with those seals, and lets another process cut it to
/// nothing. Returns what ftruncate told that process, and how a third process ended
/// that touched the page afterwards.
fn cut(seals: SealFlag) -> (Result<(), Errno>, WaitStatus) {
    let memfd = memfd_create(NAME, MFdFlags::MFD_ALLOW_SEALING).expect("memfd_create");
    let page = lab::page_size().try_into().expect("a page is not empty");
    ftruncate(&memfd, lab::page_size() as i64).expect("ftruncate");
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).expect("F_ADD_SEALS");
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel maps where nothing is mapped.
    let start = unsafe { mmap(None, page, rights, MapFlags::MAP_SHARED, memfd.as_fd(), 0) };
    let byte = start.expect("mmap").cast::<u8>().as_ptr();

    let other = Child::start(|| ftruncate(&memfd, 0).map_or_else(|error| error as i32, |()| 0));
    let told = match other.status() {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    };
    let touch = Child::start(|| {
        // SAFETY: the byte is mapped. Where the file no longer reaches there,
        // SIGBUS is what this child is for.
        unsafe { lab::write(byte, 1) };
        0
    });
    (told, touch.end())
}
// ANCHOR_END: main

fn main() {
    let (told, touched) = cut(SealFlag::empty());
    println!(
        "no seal:       ftruncate gives {told:?}, a touch then {}",
        say(touched)
    );
    assert_eq!(told, Ok(()));
    assert!(matches!(
        touched,
        WaitStatus::Signaled(_, Signal::SIGBUS, _)
    ));
    let (told, touched) = cut(SealFlag::F_SEAL_SHRINK);
    println!(
        "F_SEAL_SHRINK: ftruncate gives {told:?}, a touch then {}",
        say(touched)
    );
    assert_eq!(told, Err(Errno::EPERM));
    assert!(matches!(touched, WaitStatus::Exited(_, 0)));
}

fn say(status: WaitStatus) -> &'static str {
    match status {
        WaitStatus::Exited(_, 0) => "is well",
        WaitStatus::Signaled(_, Signal::SIGBUS, _) => "is SIGBUS",
        other => panic!("the child ended otherwise: {other:?}"),
    }
}
