//! Stage 6, bonus: realloc with mremap, and alloc_zeroed without writing zeros to fresh pages.

use super::*;

/// Resizes a block of `ALLOC`, or fails the case.
fn realloc(block: Block, size: usize) -> Block {
    // SAFETY: the block is live, `block.layout` is its current layout, and no case resizes to 0 bytes.
    let start = unsafe { ALLOC.realloc(block.start, block.layout, size) };
    expect_block(start, layout(size, block.layout.align()), "realloc")
}

fn alloc_zeroed(size: usize) -> Block {
    // SAFETY: `layout` returns no layout of size 0.
    let start = unsafe { ALLOC.alloc_zeroed(layout(size, ALIGN)) };
    expect_block(start, layout(size, ALIGN), "alloc_zeroed")
}

/// Writes to each byte a value that depends on its offset.
fn fill_with_offsets(block: &Block) {
    for offset in 0..block.size() {
        // SAFETY: the byte belongs to the block, which is live.
        unsafe { block.start.wrapping_add(offset).write(value_at(offset)) };
    }
}

fn value_at(offset: usize) -> u8 {
    (offset % 251) as u8
}

/// Fails the case unless the first `bytes` bytes are as `fill_with_offsets` wrote them. The block was resized from
/// `from` bytes.
fn expect_offsets(block: &Block, bytes: usize, from: usize) {
    let wrong = (0..bytes).find(|offset| block.bytes()[*offset] != value_at(*offset));
    if let Some(offset) = wrong {
        let size = block.size();
        judge::fail(format!(
            "A block of {from} was made {size} long, and byte {offset} is not what it was.",
            from = amount(from),
            size = amount(size)
        ));
    }
}

#[test]
fn keeps_its_bytes() {
    case(|| {
        for align in [ALIGN, page_size()] {
            let mut block = alloc_aligned(10, align);
            fill_with_offsets(&block);
            let sizes = [
                100,
                1000,
                990,
                5000,
                130 * KIB,
                140 * KIB,
                MIB,
                200 * KIB,
                64 * KIB,
                50,
                200 * KIB,
                1,
            ];
            for size in sizes {
                let from = block.size();
                // A neighbour, so that the block cannot always grow in place.
                let _neighbour = alloc(64);
                block = realloc(block, size);
                expect_offsets(&block, from.min(size), from);
                fill_with_offsets(&block);
            }
            free(block);
        }
    })
}

#[test]
fn others_keep_theirs() {
    case(|| {
        let mut random = Random(31);
        let mut live: Vec<(Block, u8)> = Vec::new();
        for value in 0..100 {
            let block = alloc(1 + random.below(500));
            block.fill(value);
            live.push((block, value));
        }
        for _ in 0..5000 {
            let index = random.below(live.len());
            let (block, value) = live[index];
            let size = 1 + random.below(3000);
            let moved = realloc(block, size);
            let kept = moved.prefix(size.min(block.size()));
            kept.expect(value, OVERLAP);
            moved.fill(value);
            live[index] = (moved, value);
        }
        for (block, value) in live {
            block.expect(value, OVERLAP);
            free(block);
        }
    })
}

#[test]
fn one_call_to_grow() {
    watched(
        || {
            let mut block = realloc(alloc(200 * KIB), 256 * KIB);
            watch(|| {
                for power in 0..6 {
                    block = realloc(block, (512 * KIB) << power);
                }
            });
            free(block);
        },
        |seen| {
            let count = |name| seen.calls(name).len();
            let (remaps, maps) = (count("mremap"), count("mmap"));
            check!(
                maps == 0,
                "A mapped block was made twice as long six times, with {maps} new mappings: mremap makes the old \
                 one longer, or moves it, and copies nothing."
            );
            check!(
                remaps == 6,
                "A mapped block was made twice as long six times, with {remaps} calls of mremap: one each is \
                 enough."
            );
        },
    )
}

#[test]
fn nothing_is_copied() {
    case(|| {
        let before = alloc(16 * MIB);
        before.fill(1);
        let (after, taken) = with_faults(|| realloc(before, 32 * MIB));
        check!(
            taken <= 64,
            "A block of 16 MiB was made twice as long, and took a page fault for each page: its bytes were copied, where \
             mremap only moves page-table entries."
        );
        let kept = after.prefix(before.size());
        kept.expect(1, "realloc lost what the block held");
    })
}

#[test]
fn large_alignments_are_kept() {
    case(|| {
        for align in [64 * KIB, 2 * MIB] {
            let mut block = alloc_aligned(8 * MIB, align);
            block.fill(9);
            for size in [9 * MIB, 12 * MIB, 20 * MIB].map(|size| size + 300 * KIB) {
                // A neighbour, so that the block cannot always grow in place.
                let _neighbour = alloc(LARGE);
                let old_size = block.size();
                let taken;
                (block, taken) = with_faults(|| realloc(block, size));
                check!(
                    taken <= 64,
                    "A block aligned to {align} was made longer, and took a page fault for each page: its bytes were copied. \
                     mremap can be told where to (MREMAP_FIXED).",
                    align = amount(align)
                );
                let kept = block.prefix(old_size);
                kept.expect(9, "realloc lost what the block held");
                block.fill(9);
            }
            free(block);
            check!(
                mapped_pages(block.start, block.size()) == 0,
                "A block that had been resized was freed, and is still mapped."
            );
        }
    })
}

#[test]
fn the_tail_goes_back() {
    case(|| {
        let long = alloc(8 * MIB);
        long.fill(1);
        let short = realloc(long, MIB);
        let tail = short.start.wrapping_add(MIB + page_size());
        let mut left = mapped_pages(tail, 7 * MIB - page_size());
        if short.start != long.start {
            left = mapped_pages(long.start, long.size());
        }
        check!(
            left == 0,
            "A mapped block of 8 MiB was made 1 MiB long, and the rest is still mapped."
        );
        free(short);
        check!(
            mapped_pages(short.start, short.size()) == 0,
            "A block that had been resized was freed, and is still mapped."
        );
    })
}

#[test]
fn refused_is_null_and_the_old_block_stays() {
    case(|| {
        for size in [1000, LARGE] {
            let block = alloc(size);
            block.fill(5);
            // SAFETY: the block is live, and the size is not 0 and at most isize::MAX.
            let start = unsafe { ALLOC.realloc(block.start, block.layout, 1 << 47) };
            check!(
                start.is_null(),
                "realloc was asked for more than any address space holds, and did not give null."
            );
            block.expect(5, "realloc gave null, and the old block is not what it was");
            free(block);
        }
        let stats = ALLOC.stats();
        check!(
            (stats.mapped_blocks, stats.mapped_bytes) == (0, 0),
            "All blocks are freed, and stats() says {} mapped, with {}: a refused realloc has been counted.",
            stats.mapped_blocks,
            amount(stats.mapped_bytes)
        );
    })
}

#[test]
fn counted() {
    case(|| {
        let mut block = alloc(100);
        for size in [200 * KIB, MIB, 300 * KIB, 200, LARGE, LARGE + 1] {
            block = realloc(block, size);
        }
        let (blocks, bytes) = (ALLOC.stats().mapped_blocks, ALLOC.stats().mapped_bytes);
        let page = page_size();
        let least = (LARGE + 1).next_multiple_of(page);
        check!(
            blocks == 1 && (least..=least + page).contains(&bytes),
            "One block is live, with a mapping of {least}, and stats() says {blocks} with {bytes}.",
            least = amount(least),
            bytes = amount(bytes)
        );
        free(block);
        check!(
            ALLOC.stats().mapped_blocks == 0 && ALLOC.stats().mapped_bytes == 0,
            "All blocks are freed, and stats() says {} mapped, with {}.",
            ALLOC.stats().mapped_blocks,
            amount(ALLOC.stats().mapped_bytes)
        );
    })
}

#[test]
fn zeros_where_memory_was_used() {
    case(|| {
        for size in [8, 24, 100, 1000, 20_000, 100_000, LARGE] {
            for _ in 0..3 {
                let dirty = alloc(size);
                dirty.fill(0xAA);
                free(dirty);
                let block = alloc_zeroed(size);
                if let Some(offset) = block.bytes().iter().position(|byte| *byte != 0) {
                    judge::fail(format!(
                        "alloc_zeroed gave {size} that had been used before, and byte {offset} reads {}.",
                        block.bytes()[offset],
                        size = amount(size)
                    ));
                }
                free(block);
            }
        }
    })
}

#[test]
fn zeros_without_touching() {
    case(|| {
        let block = alloc_zeroed(64 * MIB);
        let resident = resident_pages(block.start, block.size()) * page_size();
        check!(
            resident <= page_size(),
            "alloc_zeroed gave 64 MiB, and {resident} of them are resident: a fresh mapping is zero \
             already, and to write zeros there costs all the memory.",
            resident = amount(resident)
        );
    })
}
