//! Stage 5, bonus: coalescing and trimming.

use super::*;

/// Allocates and fills blocks of mixed small sizes until they add up to `bytes`.
fn alloc_mixed(bytes: usize, seed: u64) -> Vec<Block> {
    let mut random = Random(seed);
    let mut blocks = Vec::new();
    let mut live = 0;
    while live < bytes {
        let block = alloc(16 << random.below(9) | random.below(16));
        block.fill(1);
        live += block.size();
        blocks.push(block);
    }
    blocks
}

#[test]
fn trim_empties_the_heap() {
    case(|| {
        ALLOC.trim();
        for order in ORDERS {
            let mut blocks = alloc_mixed(2 * MIB, 11);
            // What is skipped for an alignment is free memory, too.
            blocks.extend((0..200).map(|number| alloc_aligned(1000, 32 << (number % 10))));
            let full = heap();
            reorder(&mut blocks, order);
            blocks.into_iter().for_each(free);
            ALLOC.trim();
            let left = heap().len();
            check!(
                left <= 64 * KIB,
                "Every block was freed {order}, and trim() left a heap of {}; expected at most 64 KiB. Join free \
                 memory at the heap's end, and move the break down to it.",
                amount(left)
            );
            let resident = resident_bytes(&full);
            check!(
                resident <= 64 * KIB,
                "trim() moved the break down, but {} of the old heap are still resident; expected at most 64 KiB. \
                 Return the pages to the kernel.",
                amount(resident)
            );
            expect_reserved(&(heap().end..full.end), "trim()");
            let beyond = permissions(pointer_to(heap().end));
            check!(
                !beyond.read && !beyond.write,
                "trim() moved the break down, but the memory beyond it is still accessible. Make it PROT_NONE again."
            );
        }
    })
}

#[test]
fn dealloc_returns_the_end() {
    case(|| {
        // "About 1 MiB": an answer may round up, and add the step of the break to what may stay free.
        const MOST: usize = MIB + MIB / 2;
        ALLOC.trim();
        // The dynamic threshold is off, so this does not change how much may stay free.
        free(alloc(8 * MIB));
        let mut blocks = alloc_mixed(5 * MIB, 12);
        let full = heap();
        blocks.reverse();
        blocks.into_iter().for_each(free);
        let left = heap().len();
        check!(
            left <= MOST,
            "5 MiB of small blocks were freed in reverse order, and the heap is still {} long; expected at most {}. \
             If much memory is free at the heap's end, return it to the kernel in dealloc.",
            amount(left),
            amount(MOST)
        );
        expect_reserved(&(heap().end..full.end), "dealloc");
        let resident = resident_bytes(&full);
        check!(
            resident <= MOST,
            "The break moved down, but {} of the old heap are still resident; expected at most {}. Return the \
             pages to the kernel.",
            amount(resident),
            amount(MOST)
        );
        ALLOC.set_max_maps(0);
        free(alloc(5 * MIB));
        let left = heap().len();
        check!(
            left <= MOST,
            "A block of 5 MiB at the heap's end was freed, and the heap is still {} long; expected at most {}. \
             Return the memory in the same call of dealloc.",
            amount(left),
            amount(MOST)
        );
    })
}

#[test]
fn dealloc_keeps_some_free_memory() {
    watched(
        || {
            ALLOC.trim();
            free(alloc(100_000));
            watch(|| {
                for _ in 0..1000 {
                    free(alloc(100_000));
                }
            });
        },
        |seen| {
            let calls = seen.transcript().lines().count();
            check!(
                calls <= 10,
                "A block of 100000 bytes was allocated and freed 1000 times at the heap's end, with {calls} system calls; expected \
                 at most 10. Leave some free memory below the break."
            );
        },
    )
}

#[test]
fn dealloc_returns_much_at_a_time() {
    case(|| {
        ALLOC.trim();
        let mut blocks: Vec<_> = (0..600).map(|_| alloc(10_000)).collect();
        blocks.reverse();
        let mut moves = 0;
        for block in blocks {
            let before = heap().end;
            free(block);
            moves += usize::from(heap().end != before);
        }
        check!(
            moves <= 300,
            "600 adjacent blocks of 10000 bytes were freed from the last one to the first, and dealloc moved the break {moves} \
             times; expected at most 300 moves. When the break moves down, leave less free memory below it than makes \
             it move."
        );
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| {
                FEW_ADDRESSES.trim();
                let layout = layout(1000, ALIGN);
                alloc_from(&FEW_ADDRESSES, layout);
                let blocks: Vec<_> = (0..2000)
                    .map(|_| alloc_from(&FEW_ADDRESSES, layout))
                    .collect();
                blocks
                    .into_iter()
                    .for_each(|block| free_to(&FEW_ADDRESSES, block));
                FEW_ADDRESSES.trim();
            });
        },
        expect_whole_pages,
    )
}

#[test]
fn large_blocks_leave_the_heap_alone() {
    watched(
        || {
            ALLOC.trim();
            free(alloc(100_000));
            judge::note(heap().start as u64);
            watch(|| {
                for _ in 0..20 {
                    free(alloc(LARGE));
                    free(alloc(100_000));
                }
            });
        },
        |seen| {
            let heap = seen
                .notes()
                .first()
                .map_or(0..0, |start| *start..start + GIB as u64);
            let changes = ["mmap", "munmap", "mprotect", "madvise"].map(|name| seen.calls(name));
            let changes = changes.iter().flatten();
            let count = changes.filter(|call| heap.contains(&call.args[0])).count();
            check!(
                count <= 10,
                "A block of 512 KiB and one of 100000 bytes were allocated and freed in turn, 20 times, and {count} system \
                 calls changed the heap; expected at most 10. Do not trim the heap when a mapped block is freed."
            );
        },
    )
}

#[test]
fn large_blocks_do_not_move_the_break() {
    case(|| {
        ALLOC.trim();
        let mut blocks: Vec<_> = (0..100).map(|_| alloc(10_000)).collect();
        // Whatever part of 1 MB is free at the heap's end.
        while let Some(block) = blocks.pop() {
            free(block);
            let before = heap().end;
            free(alloc(LARGE));
            let moved = before.abs_diff(heap().end);
            check!(
                moved == 0,
                "A mapped block of 512 KiB was allocated and freed, and the break moved by {}; expected it to stay. Do \
                 not trim the heap when a mapped block is freed.",
                amount(moved)
            );
        }
    })
}

#[test]
fn sizes_in_turn() {
    case(|| {
        ALLOC.trim();
        let mut most = 0;
        for round in 0..10 {
            let size = [100, 1000, 40, 5000, 300, 20_000, 64, 2000][round % 8];
            let blocks: Vec<_> = (0..2 * MIB / size).map(|_| alloc(size)).collect();
            blocks.iter().for_each(Block::touch_ends);
            most = most.max(heap().len());
            blocks.into_iter().for_each(free);
        }
        check!(
            most <= 4 * MIB,
            "2 MiB of blocks of one size were allocated and freed, then 2 MiB of another size, and so on. The heap \
             grew to {}; expected at most 4 MiB. Reuse freed memory for other sizes.",
            amount(most)
        );
    })
}

#[test]
fn neighbours_join() {
    case(|| {
        ALLOC.trim();
        let mut blocks: Vec<_> = (0..8000).map(|_| alloc(1000)).collect();
        // A live block at the end keeps the break from moving down.
        let guard = alloc(1000);
        let before = heap().len();
        reorder(&mut blocks, "every other one first");
        blocks.into_iter().for_each(free);
        for _ in 0..70 {
            alloc(100_000).touch_ends();
        }
        let moved = heap().len().saturating_sub(before);
        check!(
            moved <= MIB,
            "8000 adjacent blocks of 1000 bytes were freed, and 70 blocks of 100000 bytes were allocated. The break moved up by \
             {}; expected at most 1 MiB. Join free neighbours.",
            amount(moved)
        );
        free(guard);
    })
}

#[test]
fn every_free_place_is_used() {
    case(|| {
        ALLOC.trim();
        // Live blocks keep the free places apart, so these have the same length.
        let (mut freed, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..24 {
            freed.extend((0..128).map(|_| alloc(1000)));
            kept.push(alloc(1000));
        }
        for (seed, block) in kept.iter().enumerate() {
            block.fill(seed);
        }
        let before = heap().len();
        freed.into_iter().for_each(free);
        let blocks = alloc_mixed(2 * MIB, 17);
        let moved = heap().len().saturating_sub(before);
        check!(
            moved <= MIB,
            "3072 blocks of 1000 bytes were freed, and 24 others among them stayed live. Then 2 MiB of blocks of mixed small \
             sizes were allocated. The break moved up by {}; expected at most 1 MiB. Use every free place that is long \
             enough, also if several have the same length.",
            amount(moved)
        );
        expect_disjoint(&blocks);
        for (seed, block) in kept.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn utilisation() {
    case(|| {
        ALLOC.trim();
        let mut random = Random(21);
        let mut live: Vec<Block> = Vec::new();
        let mut bytes = 0;
        for _ in 0..60_000 {
            if live.len() >= 9000 || (live.len() > 6000 && random.below(2) == 0) {
                let block = live.swap_remove(random.below(live.len()));
                bytes -= block.size();
                free(block);
            }
            let power = random.below(10);
            let block = alloc(16 + random.below(16 << power));
            bytes += block.size();
            live.push(block);
        }
        let length = heap().len();
        let percent = bytes * 100 / length;
        check!(
            percent >= 70,
            "After 60000 random calls, {} of live blocks are in a heap of {}, which is {percent} %; expected at least 70 %. \
             Do not round sizes up too far, and reuse freed memory for other sizes.",
            amount(bytes),
            amount(length)
        );
    })
}

#[test]
fn trim_keeps_what_is_live() {
    case(|| {
        ALLOC.trim();
        let mut blocks = alloc_mixed(MIB, 13);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        let kept = blocks.split_off(blocks.len() / 2);
        let first = blocks.len();
        blocks.into_iter().for_each(free);
        ALLOC.trim();
        for (number, block) in kept.iter().enumerate() {
            block.expect(first + number, "trim() must not change a live block.");
        }
        alloc_mixed(MIB, 14);
        for (number, block) in kept.iter().enumerate() {
            block.expect(first + number, OVERLAP);
        }
    })
}

#[test]
fn plain_after_trim() {
    case(|| {
        ALLOC.trim();
        alloc_mixed(MIB, 18).into_iter().for_each(free);
        ALLOC.trim();
        alloc_mixed(MIB, 19);
        let heap = heap();
        let what = "The memory that trim() had returned, and that became part of the heap again,";
        expect_plain(what, pointer_to(heap.start), heap.len(), Kind::MayBeHuge);
    })
}

#[test]
fn trim_stays_below_the_break() {
    case(|| {
        static SMALL: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: MIB,
            ..Config::new()
        });
        SMALL.trim();
        let spacer = Spacer::above(MIB);
        let layout = layout(10_000, ALIGN);
        let mut blocks = vec![alloc_from(&SMALL, layout)];
        drop(spacer);
        // Until the heap is full. Then alloc returns a mapping, or null.
        while let Some(block) = try_alloc(&SMALL, layout) {
            blocks.push(block);
            if !block.is_in(&heap_of(&SMALL)) || blocks.len() > 200 {
                break;
            }
        }
        // Another mapping begins where the heap ends.
        let beyond = map_at(heap_of(&SMALL).end, page_size());
        for block in blocks {
            free_to(&SMALL, block);
        }
        SMALL.trim();
        if let Some(beyond) = beyond {
            let permissions = permissions(beyond.start);
            check!(
                permissions.read && permissions.write,
                "A heap reached to the end of its reservation, where another mapping begins. Every block was freed, and after \
                 trim() that mapping is not readable and writable any more. Change only pages between the new break and \
                 the old one."
            );
            beyond.expect(
                3,
                "The bytes belong to a mapping beyond the break. trim() must not change it.",
            );
            // SAFETY: `map_at` mapped this page, and nothing uses it any more.
            unsafe { libc::munmap(beyond.start.cast(), beyond.size()) };
        }
    })
}

#[test]
fn trim_fails() {
    judge::refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("madvise", Errno::EINVAL),
        ],
        |_| {
            ALLOC.trim();
            let kept = alloc(1000);
            kept.fill(1);
            alloc_mixed(MIB, 15).into_iter().for_each(free);
            let before = heap().end;
            judge::refuse(|| ALLOC.trim());
            expect_consistent(&(heap().end..before), "trim()");
            kept.expect(1, "trim() must not change a live block.");
            let blocks = alloc_mixed(2 * MIB, 16);
            expect_disjoint(&blocks);
            blocks.into_iter().for_each(free);
            kept.expect(1, OVERLAP);
            free(kept);
            ALLOC.trim();
            let left = heap().len();
            check!(
                left <= 64 * KIB,
                "Every block was freed, and trim() left a heap of {}; expected at most 64 KiB. If a call fails in \
                 trim(), a later trim() must still work.",
                amount(left)
            );
        },
        |_| (),
    )
}

#[test]
fn returning_the_end_fails() {
    judge::refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("madvise", Errno::EINVAL),
        ],
        |_| {
            ALLOC.trim();
            let kept = alloc(1000);
            kept.fill(1);
            ALLOC.set_max_maps(0);
            let long = alloc(4 * MIB);
            long.fill(2);
            let before = heap().end;
            judge::refuse(|| free(long));
            expect_consistent(&(heap().end..before), "dealloc of a block of 4 MiB");
            kept.expect(1, "dealloc must not change another block.");
            let again = alloc(4 * MIB);
            again.fill(3);
            kept.expect(1, OVERLAP);
            free(again);
            free(kept);
            ALLOC.trim();
            let left = heap().len();
            check!(
                left <= 64 * KIB,
                "Every block was freed, and trim() left a heap of {}; expected at most 64 KiB. If a call fails in \
                 dealloc, a later trim() must still work.",
                amount(left)
            );
        },
        |_| (),
    )
}

/// Fails the case if a part of the memory that `call` has returned is not mapped.
fn expect_reserved(returned: &Range<usize>, call: &str) {
    check!(
        mapped_in(returned) >= returned.len(),
        "{call} moved the break down, and the memory beyond it is not mapped any more, so the kernel may place another mapping \
         there. Keep the addresses reserved: make the memory PROT_NONE instead of unmapping it."
    );
}

/// Fails the case unless the heap is accessible up to its break and not beyond, and the memory that `call` has returned is
/// reserved and not resident.
fn expect_consistent(returned: &Range<usize>, call: &str) {
    let end = heap().end;
    let last = permissions(pointer_to(end - 1));
    check!(
        last.read && last.write,
        "After {call}, the last byte before the break is not readable and writable. Move the break down before you make \
         memory PROT_NONE, or leave both as they are."
    );
    let beyond = permissions(pointer_to(end));
    check!(
        !beyond.read && !beyond.write,
        "After {call}, the memory beyond the break is accessible. If it cannot be made PROT_NONE, leave the break where it \
         is."
    );
    expect_reserved(returned, call);
    let left = resident_bytes(returned);
    check!(
        left <= 64 * KIB,
        "{call} moved the break down, but {} of the old heap are still resident; expected at most 64 KiB. If the pages \
         cannot be returned to the kernel, leave the break where it is.",
        amount(left)
    );
}

#[test]
fn a_double_free_aborts() {
    case(|| {
        use reuse::Neighbour::{Free, Live, None};
        ALLOC.trim();
        // With 4 MiB, dealloc returns memory to the kernel, perhaps where the block was.
        for (size, others) in [(100, 4 * MIB), (4 * MIB, 100), (4 * MIB, 4 * MIB)] {
            for (before, after) in [(None, None), (Live, None), (Free, None), (Free, Free)] {
                let what = format!(
                    "A block of {} in the heap, beside blocks of {},",
                    amount(size),
                    amount(others)
                );
                expect_abort_if_freed_twice(&what, || {
                    ALLOC.set_threshold(usize::MAX);
                    reuse::block_between(layout(size, ALIGN), others, before, after)
                });
            }
        }
    })
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        ALLOC.trim();
        traces::run(traces::TRIM);
        traces::run(traces::TRIM_HUGE);
    })
}
