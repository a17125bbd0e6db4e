//! Stage 6, bonus: realloc with mremap, and alloc_zeroed without writing zeros to fresh pages.

use super::*;

/// Resizes a block of `ALLOC`, or fails the case.
fn realloc(block: Block, size: usize) -> Block {
    // SAFETY: the block is live, `block.layout` is its current layout, and no case resizes to 0 bytes.
    let start = unsafe { ALLOC.realloc(block.start, block.layout, size) };
    expect_block(start, layout(size, block.layout.align()), "realloc")
}

fn alloc_zeroed(size: usize, align: usize) -> Block {
    // SAFETY: `layout` returns no layout of size 0.
    let start = unsafe { ALLOC.alloc_zeroed(layout(size, align)) };
    expect_block(start, layout(size, align), "alloc_zeroed")
}

/// Resizes a block that `seed` filled. Fails the case unless the contents stay, up to the shorter of both sizes.
fn resize_filled(block: Block, seed: usize, size: usize) -> Block {
    let resized = realloc(block, size);
    let kept = resized.prefix(size.min(block.size()));
    if let Some((offset, before, now)) = kept.changed(seed) {
        judge::fail(format!(
            "A block of {}, aligned to {}, was resized to {}, and byte {offset} changed from {before} to {now}. Keep \
             the contents, up to the shorter of both sizes.",
            amount(block.size()),
            amount(block.layout.align()),
            amount(size)
        ));
    }
    resized
}

#[test]
fn longer_than_the_heap() {
    case(|| {
        for size in [10, 1000, 100_000] {
            let block = alloc(size);
            block.fill(1);
            let new = 16 * MIB;
            let child = fork_child(|| {
                realloc(block, new);
            });
            if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
                judge::fail(format!(
                    "A block of {} was resized to {}, which is longer than the heap, and the process was killed by {signal}. \
                     Copy the shorter of both sizes, because the old block ends there.",
                    amount(size),
                    amount(new)
                ));
            }
            free(resize_filled(block, 1, new));
        }
    })
}

#[test]
fn keeps_the_contents() {
    case(|| {
        for align in [1, ALIGN, 256, page_size(), 64 * KIB] {
            let mut block = alloc_aligned(10, align);
            block.fill(0);
            let sizes = [
                10,
                24,
                25,
                100,
                1000,
                990,
                5000,
                THRESHOLD - 1,
                THRESHOLD,
                140 * KIB,
                MIB,
                200 * KIB,
                64 * KIB,
                50,
                200 * KIB,
                1,
            ];
            for (seed, size) in sizes.into_iter().enumerate() {
                // A neighbour, so that the block cannot always grow in place.
                let neighbour = alloc(64);
                neighbour.fill(99);
                block = resize_filled(block, seed, size);
                block.fill(seed + 1);
                neighbour.expect(99, OVERLAP);
            }
            free(block);
        }
    })
}

#[test]
fn every_size_to_every_other() {
    case(|| {
        let sizes = [
            1,
            7,
            16,
            17,
            31,
            32,
            33,
            48,
            100,
            127,
            128,
            129,
            500,
            4 * KIB,
            4 * KIB + 1,
            20_000,
        ];
        for from in sizes {
            for to in sizes {
                let block = alloc(from);
                block.fill(from);
                let after = alloc(40);
                after.fill(1);
                let block = resize_filled(block, from, to);
                block.fill(to);
                after.expect(1, OVERLAP);
                free(after);
                block.expect(to, OVERLAP);
                free(block);
            }
        }
    })
}

#[test]
fn after_the_threshold_has_changed() {
    case(|| {
        const LOWERED: &str = "The block is in the heap, and the threshold was lowered below its size. Decide by the \
                               address, not by the size, whether a block is a mapping.";
        const RAISED: &str = "The block is a mapping, and the threshold was raised above its size. Decide by the \
                              address, not by the size, whether a block is a mapping.";
        for (threshold, changed, why) in [(15_000, 5000, LOWERED), (5000, 15_000, RAISED)] {
            for to in [100, 9000, 20_000] {
                ALLOC.set_threshold(threshold);
                let block = alloc(10_000);
                block.fill(1);
                ALLOC.set_threshold(changed);
                // SAFETY: the block is live, and the size is not 0.
                let start = unsafe { ALLOC.realloc(block.start, block.layout, to) };
                check!(
                    !start.is_null(),
                    "A block of 10000 bytes was resized to {to}, and realloc returned null. {why}"
                );
                let resized = expect_block(start, layout(to, ALIGN), "realloc");
                resized.prefix(to.min(10_000)).expect(1, why);
                free(resized);
            }
        }
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn reused_after_resizing() {
    case(|| {
        let sizes = [10, 100, 1000, 20_000, 100_000];
        for from in sizes {
            for to in sizes {
                let resize_and_free = || free(realloc(alloc(from), to));
                (0..3).for_each(|_| resize_and_free());
                let before = heap().end;
                (0..100).for_each(|_| resize_and_free());
                let moved = heap().end.saturating_sub(before);
                check!(
                    moved <= 128 * KIB,
                    "A block of {} was allocated, resized to {} and freed, 100 times, and the break moved up by {}; \
                     expected at most 128 KiB. Reuse the whole block after it was resized.",
                    amount(from),
                    amount(to),
                    amount(moved)
                );
            }
        }
    })
}

#[test]
fn takes_no_more_than_a_new_block() {
    case(|| {
        realloc(alloc(100), 200);
        // However far the first move of the break has gone.
        let before = heap().end;
        for _ in 0..200 {
            realloc(alloc(100), 200);
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= MIB,
            "200 blocks of 100 bytes were allocated, and each was resized to 200 bytes. The break moved up by {}; expected at \
             most 1 MiB. Take no more memory for a resized block than for a new one.",
            amount(moved)
        );
    })
}

#[test]
fn shrinking_in_the_heap_returns_the_rest() {
    case(|| {
        let blocks: Vec<_> = (0..100).map(|_| alloc(100_000)).collect();
        let before = heap().end;
        for block in blocks {
            realloc(block, 100);
        }
        // If a block shrinks in place, the rest is too short for the first size. If it moves, an answer that does not
        // coalesce may use the old place for the first size only.
        for size in [100_000, 90_000] {
            (0..45).for_each(|_| alloc(size).touch_ends());
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= 6 * MIB,
            "100 blocks of 100000 bytes were resized to 100 bytes. Then 45 blocks of 100000 bytes and 45 of 90000 bytes were \
             allocated, and the break moved up by {}; expected at most 6 MiB. A block of the heap that shrinks must return \
             the rest of its memory.",
            amount(moved)
        );
    })
}

#[test]
fn the_rest_joins_its_neighbours() {
    case(|| {
        realloc(alloc(100), 200);
        // Only stage 5 asks to join free neighbours.
        if !traces::trims() {
            return;
        }
        let pairs: Vec<_> = (0..60)
            .map(|_| (alloc(60_000), alloc(60_000), alloc(100)))
            .collect();
        let before = heap().end;
        let mut copied = 0;
        // Some blocks shrink before the block behind them is free, and some after that.
        for (number, (block, after, _)) in pairs.into_iter().enumerate() {
            if number % 2 == 0 {
                free(after);
                let start = block.start;
                copied += usize::from(realloc(block, 100).start != start);
            } else {
                realloc(block, 100);
                free(after);
            }
        }
        for _ in 0..60 {
            alloc(110_000).touch_ends();
        }
        let moved = heap().end.saturating_sub(before);
        // A copy may lie between the two places that are free.
        let most = MIB + copied * 110_000;
        check!(
            moved <= most,
            "60 times, a block of 60000 bytes was resized to 100 bytes, and the block of 60000 bytes behind it was freed. \
             Then 60 blocks of 110000 bytes were allocated, and the break moved up by {}; expected at most {}. Join the \
             rest of a block that shrinks with the free memory behind it.",
            amount(moved),
            amount(most)
        );
    })
}

#[test]
fn one_call_to_grow() {
    watched(
        || {
            for align in [ALIGN, page_size()] {
                let mut block = realloc(alloc_aligned(200 * KIB, align), 256 * KIB);
                watch(|| {
                    for power in 0..6 {
                        block = realloc(block, (512 * KIB) << power);
                    }
                });
                free(block);
            }
        },
        |seen| {
            let count = |name| seen.calls(name).len();
            let (remaps, maps) = (count("mremap"), count("mmap"));
            check!(
                maps == 0,
                "Two mapped blocks, one of them aligned to a page, were doubled six times with {maps} calls of mmap; expected \
                 none. mremap extends or moves a mapping without a copy, and aligns it to a page."
            );
            check!(
                remaps <= 12,
                "Two mapped blocks, one of them aligned to a page, were doubled six times with {remaps} calls of mremap; \
                 expected 12."
            );
        },
    )
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend_large_pages();
            watch(|| {
                for align in [ALIGN, 2 * PRETENDED_PAGE] {
                    let mut block = alloc_aligned(ODD_SIZES[0], align);
                    for size in ODD_SIZES {
                        block = realloc(block, size);
                        let bytes = ALLOC.stats().mapped_bytes;
                        check!(
                            bytes.is_multiple_of(PRETENDED_PAGE) && bytes >= size,
                            "With pages of 64 KiB, a mapped block was resized to {size} bytes, and stats().mapped_bytes is \
                             {bytes}; expected whole pages. Ask sysconf(_SC_PAGESIZE) for the page size.",
                        );
                    }
                    free(block);
                    expect_nothing_mapped(&ALLOC);
                }
            });
        },
        |seen| expect_whole_lengths(seen, &ODD_SIZES, 0),
    )
}

#[test]
fn nothing_is_copied() {
    case(|| {
        for threshold in [THRESHOLD, 16 * MIB] {
            ALLOC.set_threshold(THRESHOLD);
            let before = alloc(8 * MIB);
            before.fill_parts(1);
            // A block of exactly this size is still mapped.
            ALLOC.set_threshold(threshold);
            let (after, taken) = with_faults(|| realloc(before, 16 * MIB));
            check!(
                taken <= 64,
                "With a threshold of {}, a mapped block of 8 MiB was resized to 16 MiB with {taken} page faults; expected none. \
                 mremap moves page-table entries and copies nothing.",
                amount(threshold)
            );
            let kept = after.prefix(before.size());
            kept.expect_parts(1, "realloc must keep the contents.");
            free(after);
        }
    })
}

#[test]
fn large_alignments_are_kept() {
    case(|| {
        for align in [2 * MIB, 64 * KIB] {
            let mut block = alloc_aligned(2 * MIB, align);
            block.fill_parts(9);
            for size in [3 * MIB, 5 * MIB, 8 * MIB].map(|size| size + 300 * KIB) {
                // A neighbour, so that the block cannot always grow in place.
                let _neighbour = alloc(LARGE);
                let old = block;
                let taken;
                (block, taken) = with_faults(|| realloc(block, size));
                check!(
                    taken <= 64,
                    "The resizing of a block with a large alignment took page faults, as copying does; expected none. Give \
                     mremap an aligned address (MREMAP_FIXED)."
                );
                let kept = block.prefix(old.size());
                kept.expect_parts(9, "realloc must keep the contents.");
                check!(
                    block.overlaps(&old) || old.mapped() == 0,
                    "realloc moved a block aligned to {}, and its old pages are still mapped. Move them with mremap, \
                     or unmap them.",
                    amount(align)
                );
                block.fill_parts(9);
            }
            free(block);
            check!(
                block.mapped() == 0,
                "A block was resized and freed, and is still mapped. Unmap all of its pages in dealloc."
            );
        }
    })
}

#[test]
fn shrinking_returns_the_rest() {
    case(|| {
        // The first block may also set up a table of the mappings.
        free(alloc(LARGE));
        let before = mapped_by_this_process();
        let long = alloc(8 * MIB);
        long.touch_ends();
        let short = realloc(long, MIB);
        let mapped = mapped_by_this_process().saturating_sub(before);
        check!(
            mapped <= MIB + 4 * page_size(),
            "A mapped block of 8 MiB was resized to 1 MiB, and more than 1 MiB is still mapped for it. Return \
             the rest to the kernel with mremap or munmap."
        );
        free(short);
        check!(
            short.mapped() == 0,
            "A block was resized and freed, and is still mapped. Unmap all of its pages in dealloc."
        );
    })
}

#[test]
fn a_failure_keeps_the_old_block() {
    case(|| {
        for (size, align) in [(1000, ALIGN), (LARGE, ALIGN), (LARGE, MIB), (1000, 4 * KIB)] {
            for new in [1 << 47, 1 << 62, isize::MAX as usize - align + 1] {
                let block = alloc_aligned(size, align);
                block.fill(5);
                // SAFETY: the block is live, and the size is not 0 and, rounded up, at most isize::MAX.
                let start = unsafe { ALLOC.realloc(block.start, block.layout, new) };
                check!(
                    start.is_null(),
                    "realloc to {} returned a block; expected null, because no address space has room for it. Use \
                     checked arithmetic.",
                    amount(new)
                );
                expect_old(&block, 5);
                free(block);
            }
        }
        // SAFETY: the size is not 0.
        let zeroed = unsafe { ALLOC.alloc_zeroed(layout(1 << 47, ALIGN)) };
        check!(
            zeroed.is_null(),
            "alloc_zeroed returned a block of 128 TiB; expected null, because no address space has room for it."
        );
        expect_nothing_mapped(&ALLOC);
    })
}

/// Fails the case unless the block, which `seed` filled, is as it was before `realloc` returned null.
fn expect_old(block: &Block, seed: usize) {
    check!(
        block.mapped() >= block.size(),
        "realloc returned null, but it unmapped the old block of {}. If realloc fails, leave the old block as it is.",
        amount(block.size())
    );
    if let Some(again) = try_alloc(&ALLOC, block.layout) {
        check!(
            !again.overlaps(block),
            "realloc returned null, but it has freed the old block of {}: the next alloc returned that memory. If \
             realloc fails, leave the old block as it is.",
            amount(block.size())
        );
        free(again);
    }
    const KEPT: &str = "realloc returned null, so it must leave the old block as it is.";
    block.expect(seed, KEPT);
    free_in_child(&ALLOC, *block, KEPT);
}

#[test]
fn the_cap_holds() {
    case(|| {
        ALLOC.set_max_maps(0);
        let block = alloc(1000);
        block.fill(1);
        // Beyond the threshold, further, and back.
        let resized = [LARGE, MIB, 1000]
            .into_iter()
            .fold(block, |block, size| {
                let resized = realloc(block, size);
                resized.prefix(1000).expect(1, "realloc must keep the contents.");
                check!(
                    resized.is_in(&heap()) && ALLOC.stats().mapped_blocks == 0,
                    "With a cap of 0, a block of {} was resized to {}. Expected it in the heap and mapped_blocks 0; \
                     it is {}, and mapped_blocks is {}. The cap holds in realloc, too.",
                    amount(block.size()),
                    amount(size),
                    if resized.is_in(&heap()) { "in the heap" } else { "a mapping" },
                    ALLOC.stats().mapped_blocks
                );
                resized
            });
        free(resized);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn counted() {
    case(|| {
        let mut block = alloc(100);
        for size in [200 * KIB, MIB, 300 * KIB, 200, LARGE, LARGE + 1, MIB + 5] {
            block = realloc(block, size);
            let stats = ALLOC.stats();
            let mapped = !block.is_in(&ALLOC.heap_range().unwrap_or_default());
            let place = if mapped { "a mapping" } else { "the heap" };
            check!(
                stats.mapped_blocks == usize::from(mapped),
                "One block is live, which was resized to {} and is in {place}, but stats().mapped_blocks is {}. \
                 Update the counters in realloc.",
                amount(size),
                stats.mapped_blocks
            );
            let least = if mapped {
                size.next_multiple_of(page_size())
            } else {
                0
            };
            let checked =
                traces::check_mapped_bytes(stats.mapped_bytes, least, stats.mapped_blocks);
            if let Err(sentence) = checked {
                judge::fail(format!(
                    "A block was resized to {}. {sentence} Update the counters in realloc.",
                    amount(size)
                ));
            }
        }
        free(block);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn counted_by_two_threads() {
    case(|| {
        free(realloc(alloc(LARGE), MIB));
        let block = Mutex::new(None);
        let resized = Steps::of(&ALLOC, || realloc(take(&block), MIB));
        put(&block, alloc(LARGE));
        free(resized.find_in_thread());
        for place in 0..judge::places() {
            let other = alloc(LARGE);
            put(&block, alloc(LARGE));
            let (one, other) = resized.beside(place, move || realloc(other, MIB));
            let stats = ALLOC.stats();
            let checked = traces::check_mapped_bytes(stats.mapped_bytes, 2 * MIB, 2);
            check!(
                stats.mapped_blocks == 2 && checked.is_ok(),
                "The grader stopped a thread inside realloc while another thread called realloc. Two blocks of 1 MiB are \
                 mapped, and stats() returned mapped_blocks {} and mapped_bytes {}; expected 2 and 2097152. Change each \
                 count in one atomic step, or under a lock.",
                stats.mapped_blocks,
                stats.mapped_bytes
            );
            [one, other].into_iter().for_each(free);
            expect_nothing_mapped(&ALLOC);
        }
    })
}

#[test]
fn realloc_fails() {
    judge::refusals(
        &[
            ("mremap", Errno::ENOMEM),
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
        ],
        |refused| {
            free(alloc(1000));
            free(alloc(LARGE));
            let _kept = alloc(100_000);
            // In the heap, where the break must move, from the heap to a mapping, and mappings that grow and shrink.
            for (from, to, align) in [
                (1000, 100_000, ALIGN),
                (1000, 150 * KIB, ALIGN),
                (150 * KIB, 500 * KIB, ALIGN),
                (150 * KIB, 500 * KIB, 2 * MIB),
                (300 * KIB, 150 * KIB, ALIGN),
                (150 * KIB, 1000, ALIGN),
            ] {
                let before = mapped_by_this_process();
                let mut block = alloc_aligned(from, align);
                let neighbour = alloc(150 * KIB);
                neighbour.fill(2);
                block.fill(1);
                // An aligned block cannot grow in place, so that it needs another aligned address.
                let wall =
                    (align > ALIGN).then(|| judge::Neighbours::of(block.start, block.size()));
                let old = block.layout;
                judge::note(block.start.addr() as u64);
                // SAFETY: the block is live, and the size is not 0.
                let start =
                    watch(|| judge::refuse(|| unsafe { ALLOC.realloc(block.start, old, to) }));
                drop(wall);
                if start.is_null() {
                    check!(
                        refused.is_some(),
                        "realloc from {} to {} returned null, although no call failed; expected a block.",
                        amount(from),
                        amount(to)
                    );
                    expect_old(&block, 1);
                } else {
                    block = expect_block(start, layout(to, align), "realloc");
                    let kept = block.prefix(from.min(to));
                    kept.expect(1, "realloc must keep the contents.");
                    block.fill(3);
                }
                neighbour.expect(2, OVERLAP);
                let mut next = alloc(150 * KIB);
                next.fill(4);
                next = realloc(next, 300 * KIB);
                free(next);
                free(neighbour);
                free(block);
                expect_nothing_mapped(&ALLOC);
                let unmaps = refused.is_none_or(|refusal| refusal.call != "munmap");
                check!(
                    !unmaps || mapped_by_this_process() <= before,
                    "A block of {}, aligned to {}, was resized to {} and freed, and some of the memory that was mapped \
                         for it is still mapped. Unmap it on every path.",
                    amount(from),
                    amount(align),
                    amount(to)
                );
            }
        },
        |seen| {
            let advice = "belong neither to the old block nor to a mapping that realloc made";
            expect_only_own_pages_unmapped(seen, "realloc", advice);
        },
    )
}

#[test]
fn zeros_where_memory_was_used() {
    case(|| {
        for align in [1, ALIGN, 4 * KIB] {
            for size in [1, 8, 24, 100, 1000, 20_000, 100_000, 150 * KIB] {
                for _ in 0..2 {
                    let dirty = alloc_aligned(size, align);
                    dirty.fill(1);
                    free(dirty);
                    let block = alloc_zeroed(size, align);
                    block.expect_zeros("alloc_zeroed");
                    block.fill(2);
                    free(block);
                }
            }
        }
        // In the heap the pages may have gone to the kernel and come back.
        ALLOC.set_max_maps(0);
        let blocks: Vec<_> = (0..40).map(|_| alloc(100_000)).collect();
        blocks.iter().for_each(|block| block.fill(3));
        blocks.into_iter().rev().for_each(free);
        for _ in 0..8 {
            alloc_zeroed(LARGE, ALIGN).expect_zeros("alloc_zeroed");
        }
    })
}

#[test]
fn zeros_where_a_block_was_before() {
    case(|| {
        // Each way leaves memory at the heap's end that was written and is free again.
        type Dirties = fn(&'static ThresholdAlloc, usize);
        let ways: [(&str, Dirties); 5] = [
            ("was allocated", |allocator, size| {
                free_to(
                    allocator,
                    filled(alloc_from(allocator, layout(size, ALIGN))),
                );
            }),
            ("was resized from 100 bytes", |allocator, size| {
                let block = filled(alloc_from(allocator, layout(100, ALIGN)));
                free_to(allocator, filled(realloc_of(allocator, block, size)));
            }),
            ("was resized twice", |allocator, size| {
                let block = filled(alloc_from(allocator, layout(size / 2, ALIGN)));
                let block = filled(realloc_of(allocator, block, size));
                free_to(allocator, realloc_of(allocator, block, 100));
            }),
            ("was resized over a free neighbour", |allocator, size| {
                let [block, next] =
                    [100, size].map(|size| alloc_from(allocator, layout(size, ALIGN)));
                free_to(allocator, filled(next));
                free_to(allocator, filled(realloc_of(allocator, block, size)));
            }),
            (
                "was allocated with an alignment of 64 KiB",
                |allocator, size| {
                    free_to(
                        allocator,
                        filled(alloc_from(allocator, layout(size, 64 * KIB))),
                    );
                },
            ),
        ];
        for (how, dirties) in ways {
            for before in [200, 5000, 100_000] {
                for after in [before, before / 2, before + 1000] {
                    let allocator = global::fresh();
                    let kept = filled(alloc_from(allocator, layout(50, ALIGN)));
                    dirties(allocator, before);
                    // SAFETY: the size is not 0.
                    let start = unsafe { allocator.alloc_zeroed(layout(after, ALIGN)) };
                    let block = expect_block(start, layout(after, ALIGN), "alloc_zeroed");
                    if let Some(offset) = block.bytes().iter().position(|byte| *byte != 0) {
                        judge::fail(format!(
                            "A block of {} {how}, was written and freed. Then alloc_zeroed returned a block of {} whose byte \
                             {offset} is {}; expected 0 in every byte. Clear memory that was used before, however it was \
                             used.",
                            amount(before),
                            amount(after),
                            block.bytes()[offset]
                        ));
                    }
                    kept.expect(1, OVERLAP);
                }
            }
        }
    })
}

/// Fills a block, and returns it.
fn filled(block: Block) -> Block {
    block.fill(1);
    block
}

/// Resizes a block of this allocator, or fails the case.
fn realloc_of(allocator: &ThresholdAlloc, block: Block, size: usize) -> Block {
    // SAFETY: the block is live, this is its layout, and no case resizes to 0 bytes.
    let start = unsafe { allocator.realloc(block.start, block.layout, size) };
    expect_block(start, layout(size, block.layout.align()), "realloc")
}

#[test]
fn zeros_after_trim_has_failed() {
    judge::refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("madvise", Errno::EINVAL),
        ],
        |_| {
            free(alloc_zeroed(100, ALIGN));
            if !traces::trims() {
                return;
            }
            let kept = alloc(1000);
            let blocks: Vec<_> = (0..8).map(|_| filled(alloc(100_000))).collect();
            blocks.into_iter().for_each(free);
            judge::refuse(|| ALLOC.trim());
            // The part that is still free, and what the break moves over again.
            for _ in 0..16 {
                alloc_zeroed(60_000, ALIGN).expect_zeros("After trim(), alloc_zeroed");
            }
            free(kept);
        },
        |_| (),
    )
}

#[test]
fn zeros_without_touching() {
    case(|| {
        let block = alloc_zeroed(64 * MIB, ALIGN);
        let resident = block.resident();
        check!(
            resident <= page_size(),
            "alloc_zeroed returned a block of 64 MiB of which {} are resident. A new mapping is zero-filled already; do not \
             write to it.",
            amount(resident)
        );
    })
}

#[test]
fn unsafe_functions() {
    case(|| {
        free(realloc(alloc(100), 200));
        free(alloc_zeroed(100, ALIGN));
        type Allocator = &'static ThresholdAlloc;
        let realloc = judge::is_safe_fn!(
            ThresholdAlloc::realloc,
            fn(Allocator, *mut u8, Layout, usize) -> *mut u8
        );
        expect_unsafe(&[("realloc", realloc)], FOREIGN_POINTER);
        let alloc_zeroed = judge::is_safe_fn!(
            ThresholdAlloc::alloc_zeroed,
            fn(Allocator, Layout) -> *mut u8
        );
        expect_unsafe(&[("alloc_zeroed", alloc_zeroed)], EMPTY_LAYOUT);
    })
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        free(realloc(alloc(100), 200));
        free(alloc_zeroed(100, ALIGN));
        traces::run(traces::RESIZE.with_earlier_stages());
        traces::run(traces::RESIZE_FULL.with_earlier_stages());
        traces::run(traces::LONG_RESIZE.with_earlier_stages());
    })
}
