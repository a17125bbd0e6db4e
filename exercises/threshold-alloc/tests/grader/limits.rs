//! Stage 4: the threshold, the cap on live mappings, and a full heap.

use super::*;

/// Fails the case unless the block is a separate mapping, or in the heap, as `mapped` says.
fn expect_place(block: &Block, mapped: bool, when: &str) {
    let heap = ALLOC.heap_range().unwrap_or_default();
    let size = amount(block.size());
    match mapped {
        true => check!(
            !block.is_in(&heap),
            "{when}, a block of {size} is in the heap; expected a separate mapping."
        ),
        false => check!(
            block.is_in(&heap),
            "{when}, a block of {size} is outside the heap; expected it in the heap."
        ),
    }
}

/// Returns a new block, which must be a separate mapping, or in the heap, as `mapped` says.
fn alloc_placed(size: usize, mapped: bool, when: &str) -> Block {
    let Some(block) = try_alloc(&ALLOC, layout(size, ALIGN)) else {
        let expected = if mapped {
            "a separate mapping"
        } else {
            "a block in the heap"
        };
        judge::fail(format!(
            "{when}, alloc returned null for {}; expected {expected}.",
            amount(size)
        ))
    };
    expect_place(&block, mapped, when);
    block
}

/// Fails the case unless `stats()` counts this many mapped blocks.
fn expect_mapped_blocks(count: usize, when: &str) {
    let counted = ALLOC.stats().mapped_blocks;
    check!(
        counted == count,
        "{when}, stats().mapped_blocks is {counted}; expected {count}."
    );
}

#[test]
fn the_threshold_is_exact() {
    case(|| {
        ALLOC.set_threshold(10_000);
        for (size, mapped) in [(9_999, false), (10_000, true), (10_001, true), (1, false)] {
            expect_place(&alloc(size), mapped, "With a threshold of 10000 bytes");
        }
        for (size, mapped) in [(9_999, false), (10_000, true)] {
            let block = alloc_aligned(size, 64 * KIB);
            expect_place(
                &block,
                mapped,
                "With a threshold of 10000 bytes and an alignment of 64 KiB",
            );
        }
    })
}

#[test]
fn changed_while_blocks_are_live() {
    case(|| {
        ALLOC.set_threshold(10_000);
        let heap_block = alloc_placed(9_000, false, "With a threshold of 10000 bytes");
        let mapped_block = alloc_placed(12_000, true, "With a threshold of 10000 bytes");
        heap_block.fill(1);
        mapped_block.fill(2);
        // Now both blocks are smaller than the threshold.
        ALLOC.set_threshold(15_000);
        free_safely(
            &ALLOC,
            mapped_block,
            "The block is a mapping, and the threshold was raised above its size. Decide by the address whether a \
             block is a mapping.",
        );
        check!(
            mapped_block.mapped() == 0,
            "A mapped block of 12000 bytes was freed after the threshold had been raised to 15000, and its pages are still \
             mapped. Decide by the block's address whether it is a mapping."
        );
        // Now both are larger.
        ALLOC.set_threshold(100);
        let end = heap().end;
        free_safely(
            &ALLOC,
            heap_block,
            "The block is in the heap, and the threshold was lowered below its size. Decide by the address whether a \
             block is a mapping.",
        );
        check!(
            heap_block.mapped() > 0 && heap().end <= end,
            "A block of 9000 bytes in the heap was freed after the threshold had been lowered to 100, and its pages were \
             unmapped. Decide by the block's address whether it is a mapping."
        );
        ALLOC.set_threshold(15_000);
        let again = alloc(9_000);
        again.fill(3);
        expect_place(&again, false, "With a threshold of 15000 bytes");
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn beside_the_reservation() {
    case(|| {
        static SMALL: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: MIB,
            ..Config::new()
        });
        SMALL.set_threshold(THRESHOLD);
        // The kernel usually places a mapping directly below the one before, so some of these touch the reservation.
        let mapped = || [(); 3].map(|()| alloc_from(&SMALL, layout(MIB, ALIGN)));
        let above = mapped();
        let small = alloc_from(&SMALL, layout(100, ALIGN));
        let below = mapped();
        for block in [above, below].concat() {
            block.touch_ends();
            free_safely(
                &SMALL,
                block,
                "The block is a mapping directly below or above the heap's reservation. An address is in the heap \
                 only from the reservation's first byte to its last.",
            );
            check!(
                block.mapped() == 0,
                "A mapped block directly below or above the heap's reservation was freed, and is still mapped. An \
                 address is in the heap only from the reservation's first byte to its last."
            );
        }
        small.fill(1);
        free_to(&SMALL, small);
        expect_nothing_mapped(&SMALL);
    })
}

#[test]
fn the_lowest_and_the_highest_threshold() {
    case(|| {
        ALLOC.set_threshold(usize::MAX);
        let block_in_heap = alloc(4 * MIB);
        block_in_heap.fill(1);
        expect_place(&block_in_heap, false, "With a threshold of usize::MAX");
        for threshold in [0, 1] {
            ALLOC.set_threshold(threshold);
            let mapped = alloc(1);
            mapped.fill(1);
            expect_place(&mapped, true, &format!("With a threshold of {threshold}"));
            free(mapped);
        }
        block_in_heap.expect(1, OVERLAP);
        free(block_in_heap);
    })
}

#[test]
fn the_cap() {
    case(|| {
        ALLOC.set_max_maps(2);
        let first = alloc_placed(LARGE, true, "With a cap of 2 and no mapped block");
        let second = alloc_placed(LARGE, true, "With a cap of 2 and one mapped block");
        let third = alloc_placed(LARGE, false, "With a cap of 2 and two mapped blocks");
        third.fill(3);
        free(first);
        let fourth = alloc_placed(
            LARGE,
            true,
            "With a cap of 2, after one of two mapped blocks was freed",
        );
        // `third` is in the heap. Freeing it must not make room for another mapping.
        free(third);
        let fifth = alloc_placed(LARGE, false, "With a cap of 2 and two mapped blocks");
        // Blocks that are mapped already stay mapped.
        fourth.fill(4);
        ALLOC.set_max_maps(1);
        fourth.expect(4, OVERLAP);
        expect_mapped_blocks(
            2,
            "After the cap was lowered below the number of mapped blocks",
        );
        // The number of mapped blocks may be above the cap, and need not be equal to it.
        free(alloc_placed(
            LARGE,
            false,
            "With a cap of 1, which was lowered while two blocks were mapped",
        ));
        free(second);
        let sixth = alloc_placed(LARGE, false, "With a cap of 1 and one mapped block");
        ALLOC.set_max_maps(2);
        let seventh = alloc_placed(LARGE, true, "With a cap of 2 and one mapped block");
        [fourth, fifth, sixth, seventh].into_iter().for_each(free);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn the_cap_holds_for_two_threads() {
    case(|| {
        ALLOC.set_max_maps(1);
        // The heap is set up, so that the code is the same each time.
        free(alloc(100));
        let steps = Steps::of(&ALLOC, || alloc(LARGE));
        free(steps.find_in_thread());
        for place in 0..judge::places() {
            let (one, other) = steps.beside(place, || alloc(LARGE));
            let heap = heap();
            let mapped = [one, other]
                .iter()
                .filter(|block| !block.is_in(&heap))
                .count();
            check!(
                mapped <= 1,
                "The grader stopped a thread inside alloc while another thread called alloc. With a cap of 1, {mapped} \
                 blocks are mapped. Compare the count with the cap and raise it in one atomic step, before you call \
                 mmap."
            );
            [one, other].into_iter().for_each(free);
            expect_nothing_mapped(&ALLOC);
        }
    })
}

#[test]
fn counted_by_two_threads() {
    case(|| {
        let block = alloc(LARGE);
        // A header may make the mapping longer than the block.
        let each = ALLOC.stats().mapped_bytes;
        free(block);
        let expect_counts = |call: &str, blocks: &[Block]| {
            let stats = ALLOC.stats();
            let bytes = blocks.len() * each;
            check!(
                (stats.mapped_blocks, stats.mapped_bytes) == (blocks.len(), bytes),
                "The grader stopped a thread inside {call} while another thread called {call}. Then stats() returned \
                 mapped_blocks {} and mapped_bytes {}; expected {} and {bytes}. Change each count in one atomic step, \
                 or under a lock.",
                stats.mapped_blocks,
                stats.mapped_bytes,
                blocks.len()
            );
        };
        let allocated = Steps::of(&ALLOC, || alloc(LARGE));
        free(allocated.find_in_thread());
        for place in 0..judge::places() {
            let (one, other) = allocated.beside(place, || alloc(LARGE));
            expect_counts("alloc", &[one, other]);
            [one, other].into_iter().for_each(free);
        }
        let block = Mutex::new(None);
        let freed = Steps::of(&ALLOC, || free(take(&block)));
        put(&block, alloc(LARGE));
        freed.find_in_thread();
        for place in 0..judge::places() {
            let other = alloc(LARGE);
            put(&block, alloc(LARGE));
            freed.beside(place, move || free(other));
            expect_counts("dealloc", &[]);
        }
    })
}

#[test]
fn no_mapping_at_all() {
    case(|| {
        ALLOC.set_max_maps(0);
        free(alloc_placed(MIB, false, "With a cap of 0"));
        let before = heap().end;
        for _ in 0..30 {
            let block = alloc(MIB);
            block.touch_ends();
            expect_place(&block, false, "With a cap of 0");
            free(block);
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved == 0,
            "With a cap of 0, a block of 1 MiB was allocated and freed 30 times, and the break moved up by {}; \
             expected it to stay. Reuse freed memory, also for large blocks.",
            amount(moved)
        );
        let mut blocks = Vec::new();
        for size in large_sizes() {
            for align in [1, 64 * KIB, MIB] {
                let block = alloc_aligned(size, align);
                expect_place(&block, false, "With a cap of 0");
                block.fill_parts(blocks.len());
                blocks.push(block);
            }
        }
        expect_disjoint(&blocks);
        for (seed, block) in blocks.into_iter().enumerate() {
            block.expect_parts(seed, OVERLAP);
            free(block);
        }
    })
}

#[test]
fn a_failed_mapping_is_not_counted() {
    case(|| {
        ALLOC.set_max_maps(1);
        for (size, align) in [(1 << 47, ALIGN), (isize::MAX as usize, 1), (LARGE, 1 << 47)] {
            check!(
                try_alloc(&ALLOC, layout(size, align)).is_none(),
                "alloc returned a block of {}, aligned to {}; expected null, because no address space has room for \
                 it.",
                amount(size),
                amount(align)
            );
            expect_mapped_blocks(0, "After mmap had failed");
        }
        expect_nothing_mapped(&ALLOC);
        let block = alloc(LARGE);
        expect_place(&block, true, "With a cap of 1, after mmap had failed");
    })
}

#[test]
fn longer_than_4_gib() {
    case(|| {
        ALLOC.set_threshold(usize::MAX);
        let kept = alloc(1000);
        kept.fill(1);
        for size in [4 * GIB + 1, 4 * GIB + 200, 8 * GIB + MIB] {
            // The case may not use as much, so null is right. A length that was cut off to 32 bits is not.
            let Some(block) = try_alloc(&ALLOC, layout(size, ALIGN)) else {
                continue;
            };
            let heap = heap();
            check!(
                !block.is_in(&heap) || block.range().end <= heap.end,
                "A block of {} is in the heap, and the break is only {} beyond the block's start. Compute lengths in \
                 a usize.",
                amount(size),
                amount(heap.end - block.start.addr())
            );
            free(block);
        }
        for (size, align) in [(1 << 62, ALIGN), (isize::MAX as usize, 1), (1000, 1 << 62)] {
            check!(
                try_alloc(&ALLOC, layout(size, align)).is_none(),
                "alloc returned a block of {}, aligned to {}; expected null, because no address space has room for \
                 it.",
                amount(size),
                amount(align)
            );
        }
        kept.expect(1, OVERLAP);
        alloc(1000).fill(2);
        kept.expect(1, OVERLAP);
    })
}

#[test]
fn a_full_heap_falls_back_to_mappings() {
    case(|| {
        static SMALL: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: MIB,
            ..Config::new()
        });
        // Ends the case here if stage 4 is not written yet.
        SMALL.set_threshold(128 * KIB);
        let next = |_| {
            try_alloc(&SMALL, layout(100 * KIB, ALIGN)).unwrap_or_else(|| {
                judge::fail(
                    "The heap, which may reserve 1 MiB, is full, and alloc returned null for a block of 100 KiB; expected \
                     a separate mapping."
                        .to_owned(),
                )
            })
        };
        let mut blocks: Vec<_> = (0..30).map(next).collect();
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
        let heap = heap_of(&SMALL);
        check!(
            heap.len() <= MIB,
            "The configuration reserves 1 MiB, and heap_range() returned a heap of {}. Stop at the end of the \
             reservation.",
            amount(heap.len())
        );
        let outside = blocks.iter().filter(|block| !block.is_in(&heap)).count();
        let counted = SMALL.stats().mapped_blocks;
        check!(
            counted == outside,
            "The heap is full, and {outside} small blocks are mapped, but stats().mapped_blocks is {counted}. Count \
             these mappings, too."
        );
        // A request that the heap cannot satisfy must not cost free blocks.
        let freed = blocks.swap_remove(0);
        free_to(&SMALL, freed);
        SMALL.set_threshold(usize::MAX);
        let long = alloc_from(&SMALL, layout(4 * MIB, ALIGN));
        long.touch_ends();
        let again = alloc_from(&SMALL, freed.layout);
        check!(
            again.is_in(&heap),
            "In a full heap, a block of 100 KiB was freed, then one of 4 MiB was allocated, and then another one of \
             100 KiB. The last one is outside the heap; expected it where the first one was. A request that the heap \
             cannot satisfy must not use up free blocks."
        );
        again.fill(0);
        for block in [long, again] {
            free_to(&SMALL, block);
        }
        for block in blocks {
            free_to(&SMALL, block);
            check!(
                block.is_in(&heap) || block.mapped() == 0,
                "A small block was mapped because the heap was full. It was freed, and is still mapped. Decide by the \
                 address whether a block is a mapping."
            );
        }
        expect_nothing_mapped(&SMALL);
    })
}

#[test]
fn a_failed_request_costs_nothing() {
    case(|| {
        // Ends the case here if stage 4 is not written yet.
        ALLOC.set_max_maps(0);
        let layout = layout(200, ALIGN);
        let (allocator, mut blocks) = full(layout);
        let mut freed = 0;
        // Free places of different lengths, each between live blocks.
        for number in (0..blocks.len() / 2).rev().filter(|number| number % 8 > 2) {
            free_to(allocator, blocks.swap_remove(number));
            freed += 1;
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        for (size, align) in [
            (64 * KIB, ALIGN),
            (200, 64 * KIB),
            (2000, 1024),
            (5000, 4 * KIB),
            (900, 512),
            (1 << 40, ALIGN),
        ] {
            let wanted = self::layout(size, align);
            if let Some(block) = try_alloc(allocator, wanted) {
                free_to(allocator, block);
            }
        }
        let back = the_rest(allocator, layout).len();
        check!(
            back >= freed,
            "{freed} blocks of 200 bytes were freed in a full heap. Then longer blocks, and blocks with larger alignments, were \
             requested, for some of which there was no place, and freed. After that the heap had room for {back} blocks of 200 \
             bytes; expected {freed}. A request must leave free memory as it was if it fails, and join its parts again when \
             its block is freed."
        );
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn counted() {
    case(|| {
        let blocks: Vec<_> = large_sizes()
            .into_iter()
            .map(alloc)
            .chain([64 * KIB, 2 * MIB].map(|align| alloc_aligned(LARGE, align)))
            .collect();
        let _small = alloc(100);
        let stats = ALLOC.stats();
        expect_mapped_blocks(
            blocks.len(),
            &format!("With {} live large blocks", blocks.len()),
        );
        let page = page_size();
        let whole = |block: &Block| block.size().next_multiple_of(page);
        let least: usize = blocks.iter().map(whole).sum();
        if let Err(sentence) = traces::check_mapped_bytes(stats.mapped_bytes, least, blocks.len()) {
            judge::fail(sentence);
        }
        check!(
            stats.threshold == THRESHOLD,
            "stats().threshold is {}; expected the default, 131072.",
            stats.threshold
        );
        blocks.into_iter().for_each(free);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn asks_the_page_size() {
    case(|| {
        pretend_large_pages();
        let block = alloc(200_123);
        let bytes = ALLOC.stats().mapped_bytes;
        check!(
            bytes.is_multiple_of(PRETENDED_PAGE),
            "With pages of 64 KiB, a block of 200123 bytes is mapped, and stats().mapped_bytes is {bytes}; expected whole \
             pages. Ask sysconf(_SC_PAGESIZE) for the page size."
        );
        free(block);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn two_allocators() {
    case(|| {
        static OTHER: ThresholdAlloc = ThresholdAlloc::new(Config {
            max_maps: 1,
            ..SHORT
        });
        OTHER.set_threshold(5000);
        let blocks = [10_000, LARGE].map(alloc);
        let others = [10_000, LARGE].map(|size| alloc_from(&OTHER, layout(size, ALIGN)));
        let heap_of_other = heap_of(&OTHER);
        let mapped = others.map(|block| !block.is_in(&heap_of_other));
        let place = |mapped| if mapped { "mapped" } else { "in the heap" };
        check!(
            mapped == [true, false],
            "Two allocators are in use. The second one has a threshold of 5000 and a cap of 1, and allocated blocks of 10000 \
             bytes ({}) and of 512 KiB ({}); expected the first one mapped and the second one in the heap. Each allocator \
             must have separate settings and counters.",
            place(mapped[0]),
            place(mapped[1])
        );
        let (one, other) = (ALLOC.stats(), OTHER.stats());
        let got = (
            one.mapped_blocks,
            one.threshold,
            other.mapped_blocks,
            other.threshold,
        );
        check!(
            got == (1, THRESHOLD, 1, 5000),
            "Two allocators are in use. stats() returned (mapped_blocks, threshold) = ({}, {}) and ({}, {}); expected \
             (1, 131072) and (1, 5000). Each allocator must have separate settings and counters.",
            got.0,
            got.1,
            got.2,
            got.3
        );
        blocks.into_iter().for_each(free);
        others.into_iter().for_each(|block| free_to(&OTHER, block));
        expect_nothing_mapped(&ALLOC);
        expect_nothing_mapped(&OTHER);
    })
}

#[test]
fn mmap_fails() {
    judge::refusals(
        &[("mmap", Errno::ENOMEM)],
        |refused| {
            ALLOC.set_max_maps(1);
            let small = alloc(100);
            small.fill(1);
            let block = judge::refuse(|| try_alloc(&ALLOC, layout(LARGE, MIB)));
            check!(
                block.is_some() || refused.is_some(),
                "alloc returned null; expected a block of 512 KiB."
            );
            let heap = heap();
            let mapped = block.iter().filter(|block| !block.is_in(&heap)).count();
            expect_mapped_blocks(mapped, &format!("With {mapped} live mapped blocks"));
            block.into_iter().for_each(|block| {
                block.fill(2);
                free(block);
            });
            expect_nothing_mapped(&ALLOC);
            let next = alloc(LARGE);
            expect_place(&next, true, "With a cap of 1 and no mapped block");
            small.expect(1, OVERLAP);
            free(next);
            expect_nothing_mapped(&ALLOC);
        },
        |_| (),
    )
}

#[test]
fn munmap_fails() {
    judge::refusals(
        &[("munmap", Errno::ENOMEM)],
        |_| {
            ALLOC.set_max_maps(1);
            let small = alloc(100);
            small.fill(1);
            let block = alloc_aligned(LARGE, ALIGN);
            block.fill(2);
            judge::refuse(|| free(block));
            // The block is not live any more, whether it could be unmapped or not.
            expect_nothing_mapped(&ALLOC);
            let next = alloc(LARGE);
            expect_place(&next, true, "With a cap of 1 and no live mapped block");
            next.fill(3);
            free(next);
            small.expect(1, OVERLAP);
            expect_nothing_mapped(&ALLOC);
        },
        |_| (),
    )
}

#[test]
fn mprotect_fails() {
    judge::refusals(
        &[("mprotect", Errno::ENOMEM)],
        |refused| {
            ALLOC.set_max_maps(2);
            let mut blocks = vec![alloc(1000)];
            blocks[0].fill(0);
            judge::refuse(|| {
                for size in [100_000; 4] {
                    let block = try_alloc(&ALLOC, layout(size, ALIGN));
                    check!(
                        block.is_some() || refused.is_some(),
                        "alloc returned null; expected a block of 100000 bytes."
                    );
                    if let Some(block) = block {
                        block.fill(blocks.len());
                        blocks.push(block);
                    }
                }
            });
            let heap = heap();
            let mapped = blocks.iter().filter(|block| !block.is_in(&heap)).count();
            expect_mapped_blocks(mapped, &format!("With {mapped} live mapped blocks"));
            expect_disjoint(&blocks);
            for (seed, block) in blocks.into_iter().enumerate() {
                block.expect(seed, OVERLAP);
                free(block);
            }
            expect_nothing_mapped(&ALLOC);
        },
        |_| (),
    )
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        ALLOC.set_max_maps(1);
        traces::run(traces::ALL);
    })
}

#[test]
fn random_traces_in_a_full_heap() {
    case_with(traces::limits(), || {
        ALLOC.set_max_maps(1);
        traces::run(traces::FULL);
    })
}
