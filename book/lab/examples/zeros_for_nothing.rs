//! A large block from calloc is fresh from the kernel and needs no page. Filling a block with ones touches every page.

use std::hint::black_box;
use std::ptr::NonNull;

/// Longer than the 2 MiB by which glibc 2.43 grows its heap on aarch64: a block that fits there is not mapped.
const PAGES: usize = 1024;
/// A block may start inside a page, and then contains one whole page less.
const WHOLE: usize = PAGES - 1;

/// Returns how many of the `WHOLE` whole pages in the block are present.
fn resident(block: &[u8]) -> usize {
    let start = NonNull::from(black_box(block)).cast::<u8>();
    let page = lab::page_size();
    let to_next = start.addr().get().next_multiple_of(page) - start.addr().get();
    let first = NonNull::new(start.as_ptr().wrapping_add(to_next));
    lab::resident_pages(first.expect("an address"), WHOLE)
}

fn main() {
    // malloc writes its header before the block. With a huge page that write would bring in the whole block.
    lab::disable_huge_pages();
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
