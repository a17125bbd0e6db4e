//! free returns only the end of the heap to the kernel, malloc_trim also the rest. free unmaps a mapped block.
//!
//! Claims: 9, 10.

use std::ptr::NonNull;

use lab::glibc::{free, malloc, own_mappings, program_break, use_up_reserve};
use lab::{page_size, resident_pages};
use nix::errno::Errno;
use nix::libc;

const BLOCKS: usize = 64;
const LEN: usize = 100 * 1024;

/// Allocates a block and writes every byte.
fn written(len: usize) -> NonNull<u8> {
    let block = malloc(len);
    // SAFETY: the block has `len` bytes, and nothing else accesses it.
    unsafe { block.write_bytes(1, len) };
    block
}

/// Frees a block. The callers pass each block once, and do not access it afterwards.
fn release(block: NonNull<u8>) {
    // SAFETY: the block came from malloc, is freed once, and is not accessed afterwards.
    unsafe { free(block) };
}

fn main() {
    let page = page_size();
    // ANCHOR: main
    let blocks = [(); BLOCKS].map(|()| written(LEN));
    // Count the pages between the first and the last block, without the pages at either
    // end, which also hold other data.
    let start = blocks[0].map_addr(|first| first.saturating_add(page));
    let pages = (blocks[BLOCKS - 1].addr().get() - start.addr().get()) / page - 1;
    let observe = || (resident_pages(start, pages), program_break().addr().get());

    let full = observe();
    blocks[..BLOCKS - 1].iter().copied().for_each(release);
    let freed = observe();
    // SAFETY: malloc_trim releases only free memory.
    let trimmed = unsafe { libc::malloc_trim(0) };
    let after_trim = observe();
    release(blocks[BLOCKS - 1]);
    let after_last = observe();
    // ANCHOR_END: main

    // ANCHOR: mapped
    use_up_reserve();
    let before = own_mappings();
    let block = written(64 * page);
    let mapped = own_mappings() - before;
    let first = block.as_ptr().map_addr(|start| start - start % page);
    release(block);
    let mut residence = 0;
    // SAFETY: mincore accepts any address, and writes one byte for the one page.
    let returned = unsafe { libc::mincore(first.cast(), page, &mut residence) };
    let gone = Errno::result(returned);
    // ANCHOR_END: mapped

    let share = |resident| match resident {
        0 => "none",
        some if some == pages => "all",
        _ => "some",
    };
    let fell = full.1.saturating_sub(after_last.1);
    let fell_by_half = fell > BLOCKS * LEN / 2;
    println!("in the heap         resident");
    println!("all blocks written  {}", share(full.0));
    println!("all freed but one   {}", share(freed.0));
    println!("malloc_trim(0)      {}", share(after_trim.0));
    println!("the last one freed  none, and the break falls");
    println!("in {mapped} mapping");
    println!("written and freed   {gone:?}");
    assert_eq!((full.0, freed.0, after_trim.0), (pages, pages, 0));
    assert_eq!((freed.1, trimmed), (full.1, 1));
    assert!(after_last.0 == 0 && fell_by_half);
    assert_eq!((mapped, gone), (1, Err(Errno::ENOMEM)));
}
