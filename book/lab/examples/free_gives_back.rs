//! free gives back the heap's end only, until malloc_trim; a block with its own mapping goes at once.
//! Claims: 9, 10.

use std::ptr::NonNull;

use lab::glibc::{free, malloc, own_mappings, program_break, use_up_reserve};
use lab::{page_size, resident_pages};
use nix::errno::Errno;
use nix::libc;

const BLOCKS: usize = 64;
const LEN: usize = 100 * 1024;

/// A block with each byte written.
fn written(len: usize) -> NonNull<u8> {
    let block = malloc(len);
    // SAFETY: the block has that length, and nothing else uses it.
    unsafe { block.write_bytes(1, len) };
    block
}

/// Gives a block of malloc's back, which nothing uses any more.
fn give_back(block: NonNull<u8>) {
    // SAFETY: this program frees each block once, and then only looks at addresses.
    unsafe { free(block) };
}

fn main() {
    let page = page_size();
    // ANCHOR: main
    let blocks = [(); BLOCKS].map(|()| written(LEN));
    // The pages between the first block and the last, without pages that they have
    // in common with other memory.
    let start = blocks[0].map_addr(|first| first.saturating_add(page));
    let pages = (blocks[BLOCKS - 1].addr().get() - start.addr().get()) / page - 1;
    let look = || (resident_pages(start, pages), program_break().addr().get());

    let full = look();
    blocks[..BLOCKS - 1].iter().copied().for_each(give_back);
    let freed = look();
    // SAFETY: it gives back what is free, and nothing else.
    let trimmed = unsafe { libc::malloc_trim(0) };
    let after_trim = look();
    give_back(blocks[BLOCKS - 1]);
    let after_last = look();
    // ANCHOR_END: main

    // ANCHOR: mapped
    use_up_reserve();
    let before = own_mappings();
    let block = written(64 * page);
    let mapped = own_mappings() - before;
    let first = block.as_ptr().map_addr(|start| start - start % page);
    give_back(block);
    let mut residence = 0;
    // SAFETY: mincore(2) may be asked about any address, and writes a byte for one
    // page.
    let answer = unsafe { libc::mincore(first.cast(), page, &mut residence) };
    let gone = Errno::result(answer);
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
