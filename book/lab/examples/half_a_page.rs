//! Half a page (4 KiB if pages have 8 KiB) is invalid as an offset or address, and is rounded up as a length.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MmapAdvise, ProtFlags, madvise, mprotect, munmap};

/// Maps one page of private anonymous memory with this offset, and returns the result.
fn map_at_offset(offset: usize) -> Result<(), Errno> {
    let any_address = std::ptr::null_mut();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let offset = offset as libc::off_t;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    match unsafe { libc::mmap(any_address, 1, libc::PROT_READ, flags, -1, offset) } {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    }
}

fn main() {
    // ANCHOR: main
    let half = lab::page_size() / 2;
    let start: NonNull<c_void> = lab::map_private(2).cast();
    // SAFETY: the address is within the mapping's first page.
    let inside = unsafe { start.byte_add(half) };

    let mapped = map_at_offset(half);
    // SAFETY: no reference to these two pages exists.
    let protected = unsafe { mprotect(inside, half, ProtFlags::PROT_NONE) };
    // SAFETY: as above.
    let advised = unsafe { madvise(inside, half, MmapAdvise::MADV_DONTNEED) };
    // SAFETY: as above.
    let unmapped = unsafe { munmap(inside, half) };
    // SAFETY: as above.
    let from_the_start = unsafe { munmap(start, half) };
    // ANCHOR_END: main
    let mut residence = [0; 2];
    // SAFETY: mincore accepts any address, and writes one byte for each of two pages.
    let returned = unsafe { libc::mincore(start.as_ptr(), 4 * half, residence.as_mut_ptr()) };
    let gone = Errno::result(returned).map(drop);
    // SAFETY: the address is within the original two pages.
    let second = unsafe { start.byte_add(2 * half) };
    // SAFETY: mincore accepts any address, and writes one byte for one page.
    let returned = unsafe { libc::mincore(second.as_ptr(), 2 * half, residence.as_mut_ptr()) };
    let left = Errno::result(returned).map(drop);

    println!("mmap, offset half a page:      {mapped:?}");
    println!("mprotect in mid-page:          {protected:?}");
    println!("madvise in mid-page:           {advised:?}");
    println!("munmap in mid-page:            {unmapped:?}");
    println!("munmap of the first half:      {from_the_start:?}");
    println!("the second half is mapped:     {}", gone.is_ok());
    println!("the next page is mapped:       {}", left.is_ok());
    let refused = Err(Errno::EINVAL);
    assert_eq!([mapped, protected, advised, unmapped], [refused; 4]);
    assert_eq!(from_the_start, Ok(()));
    assert_eq!((gone, left), (Err(Errno::ENOMEM), Ok(())));
}
