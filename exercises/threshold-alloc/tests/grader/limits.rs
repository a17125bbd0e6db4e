//! Stage 4: the threshold, the cap on live mappings, and a full heap.

use super::*;

/// Fails the case unless the block is a separate mapping, or in the heap, as `mapped` says.
fn expect_place(block: &Block, mapped: bool, when: &str) {
    let heap = ALLOC.heap_range().unwrap_or_default();
    let size = block.size();
    match mapped {
        true => check!(
            !block.is_in(&heap),
            "{when} a block of {size} must have a mapping of its own, and lies in the heap.",
            size = amount(size)
        ),
        false => check!(
            block.is_in(&heap),
            "{when} a block of {size} must lie in the heap, and has a mapping of its own.",
            size = amount(size)
        ),
    }
}

#[test]
fn the_threshold_is_exact() {
    case(|| {
        ALLOC.set_threshold(10_000);
        for (size, mapped) in [(9_999, false), (10_000, true), (10_001, true), (1, false)] {
            expect_place(&alloc(size), mapped, "With a threshold of 10000 bytes");
        }
    })
}

#[test]
fn changed_while_blocks_are_live() {
    case(|| {
        ALLOC.set_threshold(10_000);
        let (heap_block, mapped_block) = (alloc(9_000), alloc(12_000));
        heap_block.fill(1);
        mapped_block.fill(2);
        // Now both blocks are smaller than the threshold.
        ALLOC.set_threshold(15_000);
        free(mapped_block);
        check!(
            mapped_pages(mapped_block.start, mapped_block.size()) == 0,
            "A block had a mapping of its own; then the threshold was raised above its size, and the block freed: \
             its pages are still mapped. Where a block came from its address can tell, and its size cannot."
        );
        // Now both are larger.
        ALLOC.set_threshold(100);
        let end = heap().end;
        free(heap_block);
        check!(
            mapped_pages(heap_block.start, heap_block.size()) > 0 && heap().end <= end,
            "A block lay in the heap; then the threshold was lowered below its size, and the block freed: its \
             pages were unmapped, in the middle of the heap."
        );
        ALLOC.set_threshold(15_000);
        let again = alloc(9_000);
        again.fill(3);
        expect_place(&again, false, "With a threshold of 15000 bytes");
        check!(
            ALLOC.stats().mapped_blocks == 0,
            "No live block has a mapping of its own, and stats() counts {}.",
            ALLOC.stats().mapped_blocks
        );
    })
}

#[test]
fn all_or_nothing() {
    case(|| {
        ALLOC.set_threshold(usize::MAX);
        let block_in_heap = alloc(4 * MIB);
        block_in_heap.fill(1);
        expect_place(&block_in_heap, false, "With a threshold of usize::MAX");
        ALLOC.set_threshold(0);
        let mapped = alloc(1);
        mapped.fill(1);
        expect_place(&mapped, true, "With a threshold of 0");
        free(mapped);
        free(block_in_heap);
    })
}

#[test]
fn the_cap() {
    case(|| {
        ALLOC.set_max_maps(2);
        let first = alloc(LARGE);
        let second = alloc(LARGE);
        let third = alloc(LARGE);
        third.fill(3);
        expect_place(&first, true, "With room for two mappings");
        expect_place(&second, true, "With room for two mappings");
        expect_place(&third, false, "With two mappings live, and room for two,");
        free(first);
        let fourth = alloc(LARGE);
        expect_place(&fourth, true, "With one of two mappings freed");
        // `third` lies in the heap. Freeing it must not make room for another mapping.
        free(third);
        let fifth = alloc(LARGE);
        expect_place(&fifth, false, "With two mappings live, and room for two,");
        [second, fourth, fifth].into_iter().for_each(free);
        check!(
            ALLOC.stats().mapped_blocks == 0,
            "All blocks are freed, and stats() counts {} with a mapping of their own.",
            ALLOC.stats().mapped_blocks
        );
    })
}

#[test]
fn no_mapping_at_all() {
    case(|| {
        ALLOC.set_max_maps(0);
        free(alloc(MIB));
        let before = heap().end;
        for _ in 0..100 {
            let block = alloc(MIB);
            block.fill(1);
            expect_place(&block, false, "With a cap of 0");
            free(block);
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved == 0,
            "100 times a block of 1 MiB was allocated from the heap and freed, and the break moved by {moved}: \
             a large block's memory must be used again, too.",
            moved = amount(moved)
        );
    })
}

#[test]
fn a_refused_mapping_does_not_count() {
    case(|| {
        ALLOC.set_max_maps(1);
        for _ in 0..3 {
            // SAFETY: `layout` returns no layout of size 0.
            let start = unsafe { ALLOC.alloc(layout(1 << 47, ALIGN)) };
            check!(start.is_null(), "No address space holds 128 TiB.");
        }
        check!(
            ALLOC.stats().mapped_blocks == 0,
            "The kernel refused a mapping, and stats() counts it as live."
        );
        let block = alloc(LARGE);
        expect_place(
            &block,
            true,
            "After a mapping was refused, with room for one,",
        );
    })
}

#[test]
fn a_full_heap_is_not_the_end() {
    case(|| {
        static SMALL: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: MIB,
            ..Config::new()
        });
        // Ends the case here if stage 4 is not written yet.
        SMALL.set_threshold(128 * KIB);
        let blocks: Vec<_> = (0..30)
            .map(|_| alloc_from(&SMALL, layout(100 * KIB, ALIGN)))
            .collect();
        for (number, block) in blocks.iter().enumerate() {
            block.fill(number as u8);
        }
        for (number, block) in blocks.iter().enumerate() {
            block.expect(number as u8, OVERLAP);
        }
        let heap = heap_of(&SMALL);
        check!(
            heap.len() <= MIB,
            "1 MiB was to be reserved for the heap, and it is {} long.",
            amount(heap.len())
        );
        for block in blocks {
            free_to(&SMALL, block);
            check!(
                block.is_in(&heap) || mapped_pages(block.start, block.size()) == 0,
                "A small block had a mapping of its own, because the heap was full; it was freed, and is still \
                 mapped."
            );
        }
        check!(
            SMALL.stats().mapped_blocks == 0,
            "All blocks are freed, and stats() counts {} with a mapping of their own.",
            SMALL.stats().mapped_blocks
        );
    })
}

#[test]
fn counted() {
    case(|| {
        let blocks = [200 * KIB, LARGE, LARGE + 1].map(alloc);
        let _small = alloc(100);
        let stats = ALLOC.stats();
        check!(
            stats.mapped_blocks == 3,
            "Three live blocks have a mapping of their own, and stats() counts {}.",
            stats.mapped_blocks
        );
        let page = page_size();
        let least: usize = blocks
            .iter()
            .map(|block| block.size().next_multiple_of(page))
            .sum();
        check!(
            (least..=least + 3 * page).contains(&stats.mapped_bytes),
            "The mappings of three blocks come to {least} in whole pages, and stats() says {}.",
            amount(stats.mapped_bytes),
            least = amount(least)
        );
        check!(
            stats.threshold == 128 * KIB,
            "The threshold is 131072 bytes, and stats() says {}.",
            stats.threshold
        );
        blocks.into_iter().for_each(free);
        let stats = ALLOC.stats();
        check!(
            (stats.mapped_blocks, stats.mapped_bytes) == (0, 0),
            "No block has a mapping of its own any more, and stats() says {} with {}.",
            stats.mapped_blocks,
            amount(stats.mapped_bytes)
        );
    })
}

#[test]
fn random_traces() {
    case(|| {
        let config = Config {
            reserve: 64 * MIB,
            ..Config::new()
        };
        ALLOC.set_max_maps(1);
        traces::run(config, traces::ALL);
    })
}
