//! Stage 2: the reserved heap and its break.

use super::*;

/// The least by which the break moves up.
const STEP: usize = 128 * KIB;

/// Every smaller block is in the heap.
const ALL_IN_HEAP_CONFIG: Config = Config {
    threshold: 32 * MIB,
    reserve: 256 * MIB,
    ..Config::new()
};

static ALL_IN_HEAP: ThresholdAlloc = ThresholdAlloc::new(ALL_IN_HEAP_CONFIG);

#[test]
fn no_heap_before_the_first_small_block() {
    case(|| {
        check!(
            ALLOC.heap_range().is_none(),
            "heap_range() returned a heap before the first block was allocated; expected None. Reserve the heap for \
             the first small block."
        );
        free(alloc(LARGE));
        check!(
            ALLOC.heap_range().is_none(),
            "heap_range() returned a heap although only a large block has been allocated; expected None. Reserve the \
             heap for the first small block."
        );
        let _small = alloc(100);
        let _ = heap();
    })
}

#[test]
fn small_blocks_are_in_the_heap() {
    case(|| {
        for (seed, size) in small_sizes().into_iter().enumerate() {
            let block = alloc(size);
            let heap = heap();
            check!(
                block.is_in(&heap) && block.range().end <= heap.end,
                "A block of {} is not between the heap's start and its break. Take small blocks from the heap, below \
                 the break.",
                amount(size)
            );
            block.fill(seed);
        }
    })
}

#[test]
fn the_process_break_stays() {
    watched(
        || {
            watch(|| {
                for _ in 0..1000 {
                    alloc(1000).touch_ends();
                }
            });
        },
        |seen| {
            check!(
                seen.calls("brk").is_empty(),
                "Your code called brk or sbrk. The break of the process belongs to libc's malloc. Reserve addresses \
                 with PROT_NONE, and keep a separate break there."
            );
        },
    )
}

#[test]
fn private() {
    case(|| {
        let block = alloc(1000);
        block.fill(1);
        let code = in_child(|| {
            block.expect(
                1,
                "The child must have a copy of its parent's heap: map it with MAP_PRIVATE, without \
                             MADV_WIPEONFORK.",
            );
            block.fill(2);
            0
        });
        check!(
            code == 0,
            "A forked child could not write to a block of its parent. Map blocks with MAP_PRIVATE, \
                           readable and writable."
        );
        block.expect(
            1,
            "A forked child has written to its copy. The heap must be private (MAP_PRIVATE).",
        );
    })
}

#[test]
fn a_smaller_reservation_if_addresses_are_limited() {
    case(|| {
        // 256 MiB fit, and leave some addresses for other mappings of the answer.
        limit_addresses_to(320 * MIB);
        check!(
            try_alloc(&ALLOC, layout(100, ALIGN)).is_some() && ALLOC.heap_range().is_some(),
            "With 320 MiB of address space left (RLIMIT_AS), mmap cannot reserve 64 GiB, and alloc returned null. Halve the \
             size and try again."
        );
        for _ in 0..1000 {
            alloc(10_000).touch_ends();
        }
    })
}

#[test]
fn a_reservation_shorter_than_a_step() {
    case(|| {
        // The last one is not a whole number of pages.
        for reserve in [64 * KIB, STEP + 64 * KIB, 2 * STEP + 1000] {
            let allocator = Box::leak(Box::new(ThresholdAlloc::new(Config {
                reserve,
                ..Config::new()
            })));
            let layout = layout(1000, ALIGN);
            let in_heap = |block: &Block| block.is_in(&allocator.heap_range().unwrap_or_default());
            let first = try_alloc(allocator, layout).filter(in_heap);
            check!(
                first.is_some(),
                "The configuration reserves {}, and the first small block is not in the heap. Use a reservation \
                 of less than 128 KiB, too: the last move of the break is as long as the reservation allows.",
                amount(reserve)
            );
            // Until the heap is full.
            for _ in 0..reserve / 1000 {
                match try_alloc(allocator, layout).filter(in_heap) {
                    Some(block) => block.fill(1),
                    None => break,
                }
            }
            let len = heap_of(allocator).len();
            check!(
                len > reserve - 64 * KIB,
                "The configuration reserves {}, and blocks of 1000 bytes were allocated until the heap was full. Then \
                 heap_range() returned a heap of {}. The last move of the break is as long as the reservation allows.",
                amount(reserve),
                amount(len)
            );
        }
    })
}

/// Limits the address space (RLIMIT_AS) to `more` bytes beyond what is mapped now.
fn limit_addresses_to(more: usize) {
    let limit = (mapped_by_this_process() + more) as libc::rlim_t;
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: `limit` outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "setrlimit(RLIMIT_AS) failed");
    judge::rebase_state();
}

#[test]
fn accessible_up_to_the_break() {
    case(|| {
        for size in [1, 100, 5000, 100_000, STEP, 3 * STEP + 100, MIB] {
            // Several, so that the break moves.
            for seed in 0..4 {
                alloc_from(&ALL_IN_HEAP, layout(size, ALIGN)).fill(seed);
                expect_accessible_up_to_the_break(&heap_of(&ALL_IN_HEAP));
            }
        }
        // Huge pages are a right choice for an allocator.
        let heap = heap_of(&ALL_IN_HEAP);
        expect_plain(
            "The heap",
            pointer_to(heap.start),
            heap.len(),
            Kind::MayBeHuge,
        );
    })
}

/// Fails the case unless the heap is accessible.
fn expect_accessible(heap: &Range<usize>) {
    check!(
        !heap.is_empty(),
        "A small block is live, and heap_range() returned an empty range. Take small blocks from the heap, below its break."
    );
    for (byte, name) in [
        (heap.start, "The heap's first byte"),
        (heap.end - 1, "The last byte before the heap's break"),
    ] {
        let permissions = permissions(pointer_to(byte));
        check!(
            permissions.read && permissions.write,
            "{name} is not readable and writable. heap_range() must return the accessible part of the reservation: \
             store a new break only after mprotect has succeeded."
        );
        check!(
            !permissions.execute,
            "{name} is executable. Leave out PROT_EXEC."
        );
    }
}

/// Fails the case unless the heap is accessible up to its break and not beyond. The break must not be the end of the
/// reservation, where another mapping may begin.
fn expect_accessible_up_to_the_break(heap: &Range<usize>) {
    expect_accessible(heap);
    let beyond = permissions(pointer_to(heap.end));
    check!(
        beyond.mapped,
        "The byte at the heap's break is not mapped, so the kernel may place another mapping there, and the heap cannot grow \
         in place. Keep the addresses beyond the break reserved, with PROT_NONE."
    );
    check!(
        !beyond.read && !beyond.write,
        "The byte at the heap's break is accessible. heap_range() must end where the accessible part ends, and beyond \
         the break the reservation must be PROT_NONE."
    );
}

#[test]
fn grows_in_place() {
    watched(
        || {
            alloc(100).touch_ends();
            let mut before = heap();
            let first_break = before.end;
            let start = before.start;
            watch(|| {
                for _ in 0..8 * MIB / 8000 {
                    alloc(8000).touch_ends();
                    let now = heap();
                    let step = now.end.saturating_sub(before.end);
                    check!(
                        now.start == start && now.end >= before.end,
                        "The heap moved or shrank when a block of 8000 bytes was allocated. It must grow at its end \
                         only."
                    );
                    // The first step may be shorter, if steps end at round addresses.
                    check!(
                        step == 0 || step >= STEP || before.end == first_break,
                        "The break moved up by {}; expected at least 128 KiB, because each step is a system call. \
                         Move it in steps of 128 KiB or more.",
                        amount(step)
                    );
                    before = now;
                }
            });
            check!(
                heap().len() >= 8 * MIB,
                "8 MiB of small blocks are live, and heap_range() returned a heap of {}; expected at least 8 MiB.",
                amount(heap().len())
            );
        },
        |seen| {
            let elsewhere = seen
                .calls("mmap")
                .iter()
                .any(|call| call.args[3] as i32 & libc::MAP_FIXED == 0);
            check!(
                !elsewhere,
                "The heap grew by a new mapping, which may be anywhere. Reserve the addresses once, and move the break there."
            );
            let calls = seen.transcript().lines().count();
            // A table outside the heap may grow with it, so a step takes up to three calls.
            let most = 3 * (8 * MIB / STEP);
            check!(
                calls <= most,
                "The heap grew by 8 MiB in {calls} system calls; expected at most {most}. Move the break in larger steps."
            );
        },
    )
}

#[test]
fn long_blocks_move_the_break_as_far() {
    case(|| {
        for size in [100_000, STEP - 1, STEP, STEP + 5000, 200_000, 3 * STEP] {
            let allocator: &ThresholdAlloc =
                Box::leak(Box::new(ThresholdAlloc::new(ALL_IN_HEAP_CONFIG)));
            alloc_from(allocator, layout(100, ALIGN)).touch_ends();
            let first_break = heap_of(allocator).end;
            let mut before = first_break;
            // Short blocks in between leave room below the break for a part of the next long one.
            for size in [size, 30_000].repeat(15) {
                alloc_from(allocator, layout(size, ALIGN)).touch_ends();
                let now = heap_of(allocator).end;
                let step = now.saturating_sub(before);
                // The first step may be shorter, if steps end at round addresses.
                check!(
                    step == 0 || step >= STEP || before == first_break,
                    "For a block of {}, the break moved up by {}; expected at least 128 KiB, because each step is a \
                     system call. Move it in steps of 128 KiB or more, also if a part of the block fits below it.",
                    amount(size),
                    amount(step)
                );
                before = now;
            }
        }
    })
}

#[test]
fn aligned() {
    case(|| {
        let mut blocks = Vec::new();
        for align in (0..=22).map(|power| 1 << power) {
            for size in [1, 3, 24, 1000, 5000] {
                blocks.push(alloc_aligned(size, align));
            }
        }
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn blocks_do_not_overlap() {
    case(|| {
        let mut random = Random(1);
        let mut blocks = Vec::new();
        for size in small_sizes().into_iter().filter(|size| *size <= 10_000) {
            blocks.push(alloc_aligned(size, 1));
            blocks.push(alloc_aligned(size, 1 << random.below(8)));
        }
        blocks
            .extend((0..1500).map(|_| alloc_aligned(1 + random.below(700), 1 << random.below(8))));
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill(seed);
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn up_to_the_break() {
    case(|| {
        // With some of these sizes a block ends at the break, whatever the length of a header.
        let whole = [32, 64, 4 * KIB, 64 * KIB, STEP];
        for size in whole
            .into_iter()
            .flat_map(|size| [0, 8, 16, 24, 48].map(|header| size - header.min(size / 2)))
        {
            let allocator = Box::leak(Box::new(ThresholdAlloc::new(Config {
                threshold: MIB,
                ..SHORT
            })));
            for _ in 0..2 * STEP / size + 1 {
                let block = alloc_from(
                    allocator,
                    layout(size, ALIGN.min(size & size.wrapping_neg())),
                );
                let heap = heap_of(allocator);
                check!(
                    block.range().end <= heap.end,
                    "A block of {} ends {} beyond the break. Move the break before you return a block that ends \
                     beyond it.",
                    amount(size),
                    amount(block.range().end - heap.end)
                );
                block.touch_ends();
            }
        }
    })
}

#[test]
fn lazy() {
    case(|| {
        for _ in 0..80 {
            alloc(100_000);
        }
        let resident = resident_bytes(&heap());
        check!(
            // The header of each of the 80 blocks makes a page resident. With 64 KiB pages, that is most of the heap.
            resident <= (2 * MIB).max(96 * page_size()),
            "8 MB of small blocks were allocated and not accessed, and {} of the heap are resident. Do not populate \
             or write the blocks in alloc.",
            amount(resident)
        );
    })
}

#[test]
fn up_to_the_end_of_the_reservation() {
    case(|| {
        /// Whole pages on every machine, and not a multiple of the steps of the break.
        const RESERVE: usize = 2 * MIB + 64 * KIB;
        static SMALL: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: RESERVE,
            ..Config::new()
        });
        let mut blocks = Vec::new();
        let layout = layout(10_000, ALIGN);
        let first = alloc_from(&SMALL, layout);
        check!(
            first.is_in(&heap_of(&SMALL)),
            "The first small block is not between the heap's start and its break. Take small blocks from the heap, below the \
             break."
        );
        first.fill(0);
        blocks.push(first);
        // Another mapping follows the reservation, so that mprotect does not fail there. An answer may round the reservation
        // up.
        let start = heap_of(&SMALL).start;
        let rounded = [1, STEP, 4 * STEP, MIB, 4 * MIB].map(|step| RESERVE.next_multiple_of(step));
        let beyond = rounded
            .into_iter()
            .find_map(|reserved| map_at(start + reserved, 8 * STEP));
        let most = beyond.map_or(2 * RESERVE, |beyond| beyond.start.addr() - start);
        let expect_at_most = |len: usize| {
            check!(
                len <= most,
                "The configuration reserves 2112 KiB, and heap_range() returned a heap of {}. Stop at the end of the \
                 reservation: beyond it there may be another mapping.",
                amount(len)
            );
        };
        // In a child first, because an allocator that goes on beyond the reservation overwrites any other mapping.
        let child = fork_child(|| {
            for _ in 0..1000 {
                try_alloc(&SMALL, layout).iter().for_each(Block::touch_ends);
            }
        });
        if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
            judge::fail(format!(
                "1000 blocks of 10000 bytes were requested from a reservation of 2112 KiB, and the process was killed \
                 by {signal}; expected null, or a mapping, when the heap is full. The break must not move beyond the \
                 reservation."
            ));
        }
        // Until the heap is full. A later stage returns a mapping then.
        while blocks.len() < 500
            && let Some(block) = try_alloc(&SMALL, layout)
            && block.is_in(&heap_of(&SMALL))
        {
            expect_at_most(heap_of(&SMALL).len());
            block.fill(blocks.len());
            blocks.push(block);
        }
        let len = heap_of(&SMALL).len();
        expect_at_most(len);
        check!(
            len >= RESERVE - STEP,
            "Blocks of 10000 bytes were allocated until a reservation of 2112 KiB was full. Then heap_range() returned a heap \
             of {}; expected 2112 KiB, or up to 128 KiB less.",
            amount(len)
        );
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
        if let Some(beyond) = beyond {
            beyond.expect(
                3,
                "The bytes belong to a mapping beyond the reservation. Stop at its end.",
            );
            // SAFETY: `map_at` mapped these pages, and nothing uses them any more.
            unsafe { libc::munmap(beyond.start.cast(), beyond.size()) };
        }
        // Requests that a full heap cannot satisfy do not damage it.
        for size in [1, 10_000, 100_000] {
            try_alloc(&SMALL, self::layout(size, ALIGN));
        }
        let heap = heap_of(&SMALL);
        expect_accessible(&heap);
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn refused_is_null() {
    case(|| {
        let kept = alloc(1000);
        kept.fill(1);
        for (size, align) in [
            (100, 1 << 47),
            (1, 1 << 62),
            (1000, 1 << 40),
            (100_000, 1 << 61),
        ] {
            let block = try_alloc(&ALLOC, layout(size, align));
            check!(
                block.is_none() || align == 1 << 40,
                "alloc returned a block aligned to {}; expected null, because no address space has room for it. Use \
                 checked arithmetic.",
                amount(align)
            );
        }
        kept.expect(1, OVERLAP);
        let next = alloc(1000);
        next.fill(2);
        kept.expect(1, OVERLAP);
    })
}

#[test]
fn two_allocators() {
    case(|| {
        static OTHER: ThresholdAlloc = ThresholdAlloc::new(SHORT);
        let mut blocks = Vec::new();
        for size in [100, 5000, 100_000, 100, 50_000].repeat(3) {
            for allocator in [&ALLOC, &OTHER] {
                let block = alloc_from(allocator, layout(size, ALIGN));
                check!(
                    block.is_in(&heap_of(allocator)),
                    "Two allocators are in use, and a block of one is outside its heap_range(). Each allocator must \
                     have a separate heap."
                );
                block.fill(blocks.len());
                blocks.push(block);
            }
        }
        let (one, other) = (heap(), heap_of(&OTHER));
        check!(
            one.end <= other.start || other.end <= one.start,
            "The heaps of two allocators overlap. Each allocator must have a separate heap."
        );
        for (seed, block) in blocks.iter().enumerate() {
            block.expect(seed, OVERLAP);
        }
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| {
                for _ in 0..100 {
                    alloc_from(&FEW_ADDRESSES, layout(10_000, ALIGN));
                }
            });
        },
        |seen| {
            check!(
                seen.calls("brk").is_empty(),
                "Your code called brk or sbrk. The break of the process belongs to libc's malloc. Reserve addresses \
                 with PROT_NONE, and keep a separate break there."
            );
            expect_whole_pages(seen);
        },
    )
}

#[test]
fn mmap_fails() {
    judge::refusals(
        &[("mmap", Errno::ENOMEM)],
        |refused| {
            let layout = layout(1000, ALIGN);
            let Some(block) = judge::refuse(|| try_alloc(&ALLOC, layout)) else {
                if refused.is_some_and(|refusal| refusal.lasting) {
                    let next = try_alloc(&ALLOC, layout);
                    let in_heap =
                        |block: &Block| block.is_in(&ALLOC.heap_range().unwrap_or_default());
                    check!(
                        next.is_some_and(|block| in_heap(&block)),
                        "The heap could not be reserved, because each call of mmap failed. Now mmap works again, and the next \
                         small block is {}; expected it in the heap. Try to reserve the heap again in a later call.",
                        if next.is_none() {
                            "null"
                        } else {
                            "outside the heap"
                        }
                    );
                    return;
                }
                judge::fail(
                    "alloc returned null for the first small block; expected a block. If mmap fails, halve the size \
                     of the reservation and try again."
                        .to_owned(),
                );
            };
            block.fill(1);
            alloc(1000).fill(2);
            block.expect(1, OVERLAP);
        },
        |_| (),
    )
}

#[test]
fn mprotect_fails() {
    judge::refusals(
        &[("mprotect", Errno::ENOMEM)],
        |refused| {
            let mut blocks = vec![alloc(1000)];
            blocks[0].fill(0);
            let first_break = heap().end;
            judge::refuse(|| {
                // Until the break has moved. A refusal ends the loop, so that the next check finds its effect.
                for _ in 0..4 * STEP / 50_000 {
                    let before = heap();
                    let block = try_alloc(&ALLOC, layout(50_000, ALIGN));
                    check!(
                        block.is_some() || refused.is_some(),
                        "alloc returned null; expected a block of 50000 bytes."
                    );
                    let after = heap();
                    if after != before {
                        expect_accessible_up_to_the_break(&after);
                        let step = after.end.saturating_sub(before.end);
                        // The first step may be shorter, if steps end at round addresses.
                        check!(
                            step >= STEP || before.end == first_break,
                            "The break moved up by {}; expected at least 128 KiB, also after a call of mprotect that \
                             failed. If mprotect fails, the break stays.",
                            amount(step)
                        );
                    }
                    if let Some(block) = block {
                        block.fill(blocks.len());
                        blocks.push(block);
                    }
                }
            });
            for _ in 0..10 {
                let Some(block) = try_alloc(&ALLOC, layout(50_000, ALIGN)) else {
                    judge::fail(
                        "mprotect works again, and alloc returned null for a block of 50000 bytes; expected a block. Try to \
                         move the break again in each call."
                            .to_owned(),
                    )
                };
                block.fill(blocks.len());
                blocks.push(block);
            }
            check!(
                blocks[blocks.len() - 1].is_in(&heap()),
                "mprotect works again, and a block of 50000 bytes is outside the heap. Try to move the break again in \
                 each call."
            );
            expect_accessible_up_to_the_break(&heap());
            expect_disjoint(&blocks);
            for (seed, block) in blocks.iter().enumerate() {
                block.expect(seed, OVERLAP);
            }
            expect_nothing_lost(&blocks);
        },
        |_| (),
    )
}

/// Fails the case if the heap is longer than these blocks need, after calls that could not move the break. Another
/// allocator, whose calls do not fail, shows what they need. How far its break moves at a time may differ.
fn expect_nothing_lost(blocks: &[Block]) {
    static UNDISTURBED: ThresholdAlloc = ThresholdAlloc::new(Config::new());
    let heap = heap();
    let (mut needed, mut step) = (0, 0);
    for block in blocks.iter().filter(|block| block.is_in(&heap)) {
        alloc_from(&UNDISTURBED, block.layout);
        let before = std::mem::replace(&mut needed, heap_of(&UNDISTURBED).len());
        step = step.max(needed - before);
    }
    check!(
        heap.len() <= needed + step,
        "The heap is {} long, and without the failures its blocks need a heap of {}. An alloc that fails must take no \
         memory: move the break first, and take the block then.",
        amount(heap.len()),
        amount(needed)
    );
}
