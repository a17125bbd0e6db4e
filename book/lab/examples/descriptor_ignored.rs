//! With MAP_ANONYMOUS Linux looks neither at the descriptor nor at an offset of whole pages.
//!
//! Claims: 2, 41.

use nix::errno::Errno;
use nix::libc;

/// Maps one page, and says what became of it.
fn map(fd: i32, offset: usize) -> Result<(), Errno> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let nowhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::mmap(nowhere, 1, rights, flags, fd, offset as libc::off_t) };
    match start {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    }
}

fn main() {
    // ANCHOR: main
    let page = lab::page_size();
    println!("fd -1, offset 0:        {:?}", map(-1, 0));
    println!("fd 12345, offset 0:     {:?}", map(12345, 0));
    println!("fd -1, offset 1 page:   {:?}", map(-1, page));
    println!("fd -1, offset 1 byte:   {:?}", map(-1, 1));
    // ANCHOR_END: main
    assert_eq!(map(-1, 0), Ok(()));
    assert_eq!(map(12345, 0), Ok(()));
    assert_eq!(map(-1, page), Ok(()));
    assert_eq!(map(-1, 1), Err(Errno::EINVAL));
}
