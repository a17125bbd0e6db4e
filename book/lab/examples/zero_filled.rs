//! Fresh anonymous memory reads as zero, and the kernel maps whole pages.
//!
//! Claims: 1, 3, 12.

use lab::page_size;

// MAP_ANON is the older name of the same flag.
const _: () = assert!(nix::libc::MAP_ANON == nix::libc::MAP_ANONYMOUS);

fn main() {
    // ANCHOR: ask
    let asked = 1;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe {
        nix::libc::mmap(
            std::ptr::null_mut(),
            asked,
            nix::libc::PROT_READ | nix::libc::PROT_WRITE,
            nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(start, nix::libc::MAP_FAILED);
    // ANCHOR_END: ask
    // ANCHOR: look
    // SAFETY: the kernel maps whole pages, so all of the page is readable, and nothing
    // else accesses it.
    let page = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), page_size()) };
    assert!(page.iter().all(|byte| *byte == 0));
    // ANCHOR_END: look
    assert!(start.addr().is_multiple_of(page_size()));
    println!("asked for {asked} byte");
    println!("the whole page reads as zero");
    println!("the address is a multiple of the page size");
}
