//! With MAP_ANONYMOUS, Linux ignores the file descriptor and any offset that is a multiple of the page size.
//!
//! Claims: 2, 41.

use nix::errno::Errno;
use nix::libc;

/// Maps one page with this descriptor and offset, and returns the result.
fn map(fd: i32, offset: usize) -> Result<(), Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let any_address = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { libc::mmap(any_address, 1, prot, flags, fd, offset as libc::off_t) };
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
