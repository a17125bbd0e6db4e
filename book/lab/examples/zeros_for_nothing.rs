//! A large block of zeros from calloc is fresh from the kernel, and touches no page; one of ones touches them all.

use std::hint::black_box;
use std::ptr::NonNull;

/// Longer than the 2 MiB by which glibc 2.43 extends its heap on aarch64: what fits in there is not mapped.
const PAGES: usize = 1024;
/// A block may begin inside a page: that many whole pages it has in any case.
const WHOLE: usize = PAGES - 1;

/// How many of the whole pages in a block of `PAGES` pages are resident.
fn resident(block: &[u8]) -> usize {
    let start = NonNull::from(black_box(block)).cast::<u8>();
    let page = lab::page_size();
    let to_next = start.addr().get().next_multiple_of(page) - start.addr().get();
    let first = NonNull::new(start.as_ptr().wrapping_add(to_next));
    lab::resident_pages(first.expect("an address"), WHOLE)
}

fn main() {
    // A huge page would be brought in as a whole, by malloc's own header.
    lab::small_pages_only();
    // ANCHOR: main
    let len = PAGES * lab::page_size();
    let zeros = vec![0_u8; len];
    let of_zeros = resident(&zeros);
    let ones = vec![1_u8; len];
    let of_ones = resident(&ones);
    // ANCHOR_END: main
    println!("zeros: {of_zeros:>4} of {WHOLE} whole pages resident");
    println!("ones:  {of_ones:>4} of {WHOLE} whole pages resident");
    assert_eq!((of_zeros, of_ones), (0, WHOLE));
}
