//! Stage 1: large blocks are separate mappings, which are unmapped as soon as the block is freed.

use super::*;

/// Not a multiple of the page size. It leaves room for a header in front of the block without another page.
const ODD: usize = LARGE - 64;

/// A large block that fills faster, for cases that run many times.
const SHORTER: usize = 150 * KIB;

/// Not a multiple of any page size.
pub const ODD_FOR_ALL: usize = 200_123;

#[test]
fn usable_to_the_last_byte() {
    case(|| {
        for (seed, size) in large_sizes().into_iter().enumerate() {
            let block = alloc(size);
            for (byte, name) in block.ends().into_iter().zip(["first", "last"]) {
                let permissions = permissions(byte);
                let size = amount(size);
                check!(
                    permissions.mapped && permissions.read && permissions.write,
                    "The {name} byte of a block of {size} is not mapped readable and writable. Map whole pages for \
                     all of it, with PROT_READ | PROT_WRITE."
                );
                check!(
                    !permissions.execute,
                    "A block of {size} is mapped executable. Leave out PROT_EXEC."
                );
            }
            block.fill(seed);
            block.expect(seed, OVERLAP);
            // Huge pages are a right choice for an allocator.
            expect_plain("A large block", block.start, size, Kind::MayBeHuge);
        }
    })
}

#[test]
fn private() {
    case(|| {
        let block = alloc(LARGE);
        block.fill(1);
        let code = in_child(|| {
            block.expect(1, "The child must have a copy of its parent's block: map it with MAP_PRIVATE, without \
                             MADV_WIPEONFORK.");
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
            "A forked child has written to its copy. The mapping must be private (MAP_PRIVATE).",
        );
    })
}

#[test]
fn a_separate_mapping() {
    watched(
        || {
            // The first call may also set up the allocator.
            free(alloc(ODD));
            watch(|| {
                [THRESHOLD, THRESHOLD + 1]
                    .map(alloc)
                    .into_iter()
                    .for_each(free)
            });
            let block = watch(|| alloc(ODD));
            block.fill(1);
            watch(|| free(block));
        },
        |seen| {
            let calls = seen.calls("mmap");
            // With MAP_FIXED, mmap may move the break of the heap.
            let new = calls
                .iter()
                .filter(|call| call.args[3] as i32 & libc::MAP_FIXED == 0);
            let (maps, unmaps) = (new.count(), seen.calls("munmap").len());
            check!(
                maps > 0,
                "alloc returned a large block without calling mmap. Each large block must have a separate mapping."
            );
            check!(
                unmaps > 0,
                "dealloc freed a large block without calling munmap. Unmap its mapping in dealloc."
            );
            // An answer that rounds up may have to cut some mappings.
            check!(
                maps == 3 && (3..=5).contains(&unmaps),
                "Blocks of 128 KiB, 131073 bytes and 524224 bytes were allocated and freed with {maps} calls of mmap \
                 and {unmaps} calls of munmap; expected 3 of each, one for each block."
            );
            seen.expect_ledger("large");
        },
    )
}

#[test]
fn lazy() {
    case(|| {
        for align in [ALIGN, MIB] {
            let block = alloc_aligned(LARGE, align);
            let resident = block.resident();
            check!(
                resident <= page_size(),
                "Before the first access to a new block of 512 KiB, {} of it are resident; expected at most one page. \
                 Do not populate or write the pages in alloc.",
                amount(resident)
            );
        }
    })
}

#[test]
fn aligned_beyond_a_page() {
    case(|| {
        const SIZE: usize = 200 * KIB;
        free(alloc(LARGE));
        let mut blocks = Vec::with_capacity(33);
        let before = mapped_by_this_process();
        // The large alignments first, because blocks are seldom aligned to these by chance.
        for power in (0..=10).rev() {
            blocks.extend([(); 3].map(|()| alloc_aligned(SIZE, (4 * KIB) << power)));
        }
        let mapped = mapped_by_this_process().saturating_sub(before);
        // A header and guard pages may take some more.
        let most = 33 * (SIZE.next_multiple_of(page_size()) + 4 * page_size());
        check!(
            mapped <= most,
            "33 blocks of 200 KiB, aligned to 4 KiB up to 4 MiB, are live, and more than {} are mapped for \
             them. Unmap what is before and after an aligned block.",
            amount(most)
        );
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill_parts(seed);
        }
        for (seed, block) in blocks.iter().enumerate() {
            block.expect_parts(seed, OVERLAP);
        }
    })
}

#[test]
fn gone_when_freed() {
    case(|| {
        let sizes = large_sizes().into_iter().map(|size| (size, ALIGN));
        let aligned = [64 * KIB, 2 * MIB].map(|align| (300 * KIB, align));
        free(alloc(LARGE));
        for (size, align) in sizes.chain(aligned) {
            let before = mapped_by_this_process();
            let block = alloc_aligned(size, align);
            block.touch_ends();
            free(block);
            let left = block.mapped();
            check!(
                left == 0,
                "A block of {} was freed, and {} of it are still mapped. Pass munmap all of the block's pages.",
                amount(size),
                amount(left)
            );
            let advice = match align <= page_size() {
                true => "Unmap as many bytes as you mapped.",
                false => "Unmap what is before and after an aligned block, too.",
            };
            check!(
                mapped_by_this_process() <= before,
                "A block of {}, aligned to {}, was allocated and freed, and some of the memory that was mapped for it \
                 is still mapped. {advice}",
                amount(size),
                amount(align)
            );
        }
    })
}

#[test]
fn freed_without_a_touch() {
    case(|| {
        for size in [MIB, 16 * MIB] {
            let block = alloc(size);
            let ((), taken) = with_faults(|| free(block));
            check!(
                taken <= 2,
                "A block of {} was freed that nobody had touched, and dealloc touched its pages; expected at most 2 page \
                 faults. Do not write to memory that is about to be unmapped.",
                amount(size)
            );
        }
    })
}

#[test]
fn neighbours_survive() {
    case(|| {
        let sizes = large_sizes().into_iter().map(|size| (size, ALIGN));
        let aligned = [64 * KIB, 2 * MIB].map(|align| (300 * KIB, align));
        for (size, align) in sizes.chain(aligned) {
            let upper = alloc_aligned(size, align);
            upper.fill_parts(1);
            let block = alloc_aligned(size, align);
            let page = page_size();
            let pages = block.start.addr() / page * page..block.range().end.next_multiple_of(page);
            let neighbours = [pages.start - page, pages.end].map(|start| map_at(start, page));
            free(block);
            let size = amount(size);
            for neighbour in neighbours.into_iter().flatten() {
                check!(
                    neighbour.mapped() == page,
                    "A block of {size} was freed, and a page next to it, which belongs to another mapping, was \
                     unmapped, too. Pass munmap only the block's own pages."
                );
                neighbour.expect(
                    3,
                    "The bytes belong to a mapping next to a block that was freed. Change only the \
                                     block's own pages.",
                );
                // SAFETY: the page was mapped by `map_at`, and is no longer used.
                unsafe { libc::munmap(neighbour.start.cast(), page) };
            }
            check!(
                upper.mapped() >= upper.size(),
                "A block of {size} was freed, and pages of another block of that size were unmapped. Pass munmap only \
                 the block's own pages."
            );
            upper.expect_parts(
                1,
                "Another block was freed, which must not change this one.",
            );
            free(upper);
        }
    })
}

#[test]
fn independent() {
    case(|| {
        let blocks: Vec<_> = (0..30)
            .map(|number| alloc(THRESHOLD + 3000 * number))
            .collect();
        expect_disjoint(&blocks);
        for (seed, block) in blocks.iter().enumerate() {
            block.fill_parts(seed);
        }
        for block in blocks.iter().step_by(2) {
            free(*block);
        }
        for (seed, block) in blocks.iter().enumerate().skip(1).step_by(2) {
            check!(
                block.mapped() >= block.size(),
                "Every other one of 30 large blocks was freed, and pages of a live block were unmapped. Pass munmap \
                 only the block's own pages."
            );
            block.expect_parts(seed, OVERLAP);
        }
    })
}

#[test]
fn longer_than_4_gib() {
    case(|| {
        for size in [4 * GIB + 1, 4 * GIB + LARGE, 8 * GIB + MIB] {
            // The case may not map as much, so null is right. A length that was cut off to 32 bits is not.
            let layout = layout(size, ALIGN);
            let child = fork_child(|| {
                try_alloc(&ALLOC, layout);
            });
            if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
                judge::fail(format!(
                    "A process that may not have so much memory allocated a block of {}, and was killed by {signal} \
                     in alloc. Check the results of mmap and mprotect, and return null if they fail.",
                    amount(size)
                ));
            }
            let Some(block) = try_alloc(&ALLOC, layout) else {
                continue;
            };
            check!(
                block.mapped() >= size,
                "alloc returned a block of {}, of which only a part is mapped. Compute lengths in a usize.",
                amount(size)
            );
            // A later stage may take the block from the heap, where an mprotect of that length fails.
            for byte in block.ends() {
                let permissions = permissions(byte);
                check!(
                    permissions.read && permissions.write,
                    "A process that may not have so much memory allocated a block of {}, which is not readable and \
                     writable. Check the results of mmap and mprotect, and return null if they fail.",
                    amount(size)
                );
            }
            block.touch_ends();
            free(block);
        }
    })
}

#[test]
fn refused_is_null() {
    case(|| {
        let page = page_size();
        let most = isize::MAX as usize;
        let layouts = [
            (1 << 47, ALIGN),
            (1 << 62, ALIGN),
            (most - page, ALIGN),
            (most - ALIGN + 1, ALIGN),
            (most, 1),
            (most - page + 1, page),
            (LARGE, 1 << 47),
            (1 << 61, 1 << 61),
            (LARGE, 1 << 62),
        ];
        for (size, align) in layouts {
            let block = try_alloc(&ALLOC, layout(size, align));
            check!(
                block.is_none(),
                "alloc returned a block of {}, aligned to {}; expected null, because no address space has room for \
                 it. Use checked arithmetic.",
                amount(size),
                amount(align)
            );
        }
        alloc(LARGE).fill(1);
    })
}

#[test]
fn unsafe_functions() {
    case(|| {
        free(alloc(LARGE));
        type Allocator = &'static ThresholdAlloc;
        let dealloc = judge::is_safe_fn!(ThresholdAlloc::dealloc, fn(Allocator, *mut u8, Layout));
        expect_unsafe(&[("dealloc", dealloc)], FOREIGN_POINTER);
        let alloc = judge::is_safe_fn!(ThresholdAlloc::alloc, fn(Allocator, Layout) -> *mut u8);
        expect_unsafe(&[("alloc", alloc)], EMPTY_LAYOUT);
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| free(alloc(ODD_FOR_ALL)));
        },
        |seen| {
            for call in seen.calls("munmap") {
                let bytes = call.args[1] as usize;
                check!(
                    (ODD_FOR_ALL..ODD_FOR_ALL + 64).contains(&bytes)
                        || bytes.is_multiple_of(PRETENDED_PAGE),
                    "With pages of 64 KiB, munmap was called with a length of {} for a block of 200123 bytes; expected the \
                     block's length or whole pages. Ask sysconf(_SC_PAGESIZE) for the page size.",
                    amount(bytes)
                );
            }
        },
    )
}

#[test]
fn aligned_by_chance() {
    watched(
        || {
            // As the lengths differ, some mappings are at multiples of 128 KiB.
            pretend_large_pages();
            watch(|| {
                let sizes = [192, 256, 192, 256, 320, 192].map(|kib| kib * KIB);
                let blocks = sizes.map(|size| alloc_aligned(size, 128 * KIB));
                check!(
                    blocks.iter().all(|block| block.mapped() >= block.size()),
                    "mmap returned an address that was aligned already, and the block ends beyond its mapping. Skip \
                     nothing before the block then."
                );
                expect_disjoint(&blocks);
                blocks.into_iter().for_each(free);
            });
        },
        |seen| {
            let bytes = |name| -> usize {
                let calls = seen.calls(name).into_iter();
                calls
                    .filter(|call| call.result.is_ok())
                    .map(|call| (call.args[1] as usize).next_multiple_of(PRETENDED_PAGE))
                    .sum()
            };
            let left = bytes("mmap").saturating_sub(bytes("munmap"));
            check!(
                left == 0,
                "Six blocks of 192 to 320 KiB, aligned to 128 KiB, were allocated and freed, and {} that alloc mapped for them \
                 are still mapped. Unmap what is before and after a block, also if mmap's address is aligned already.",
                amount(left)
            );
            seen.expect_nothing_left();
        },
    )
}

#[test]
fn mmap_fails() {
    judge::refusals(
        &[("mmap", Errno::ENOMEM), ("mmap", Errno::EAGAIN)],
        |refused| {
            free(alloc(LARGE));
            watch(|| {
                for (seed, align) in [ALIGN, MIB].into_iter().enumerate() {
                    let layout = layout(SHORTER, align);
                    let block = judge::refuse(|| try_alloc(&ALLOC, layout));
                    check!(
                        block.is_some() || refused.is_some(),
                        "alloc returned null, although no call failed; expected a block of 150 KiB."
                    );
                    // A later stage may take the block from the heap.
                    if let Some(block) = block {
                        block.fill(seed);
                        block.expect(seed, OVERLAP);
                        free(block);
                    }
                    let next = alloc(SHORTER);
                    next.fill(5);
                    free(next);
                }
            });
        },
        |_| (),
    )
}

#[test]
fn munmap_fails() {
    judge::refusals(
        &[("munmap", Errno::ENOMEM)],
        |_| {
            free(alloc(LARGE));
            // An answer may take a block from the heap if the pages beside it cannot be unmapped. The heap stays reserved.
            if traces::is_written(|| free(alloc(1))) {
                free(alloc(1));
            }
            watch(|| {
                for align in [ALIGN, 4 * MIB] {
                    let others = [1, 2].map(|seed| {
                        let other = alloc(SHORTER);
                        other.fill(seed);
                        other
                    });
                    judge::refuse(|| {
                        // alloc unmaps what is before and after an aligned block.
                        if let Some(block) = try_alloc(&ALLOC, layout(SHORTER, align)) {
                            block.fill(3);
                            block.expect(3, OVERLAP);
                            free(block);
                        }
                    });
                    // A later stage may take a block from the heap, where a free list may be in it.
                    let untouched = alloc_aligned(SHORTER, align);
                    // Memory that munmap has refused to unmap may serve a later block.
                    let before = untouched.resident();
                    judge::refuse(|| free(untouched));
                    let more = untouched.resident().saturating_sub(before);
                    check!(
                        more <= page_size(),
                        "A block of 150 KiB was freed that nobody had touched, and {} of it became resident; expected at most \
                         one page. If munmap fails, leave the memory as it is: do not access the pages of a mapped block.",
                        amount(more)
                    );
                    for (seed, other) in [1, 2].into_iter().zip(others) {
                        other.expect(seed, OVERLAP);
                        free(other);
                    }
                }
                let next = alloc(SHORTER);
                next.fill(5);
                free(next);
            });
        },
        |seen| {
            let which = "it had unmapped already, or never mapped";
            expect_only_own_pages_unmapped(seen, "alloc or dealloc", which);
            seen.expect_nothing_left();
        },
    )
}

/// madvise(2) does not free locked pages.
#[test]
fn munmap_of_a_locked_block_fails() {
    judge::refusals(
        &[("munmap", Errno::ENOMEM)],
        |_| {
            let block = alloc(SHORTER);
            // SAFETY: mlock changes no contents.
            if unsafe { libc::mlock(block.start.cast(), 1) } == -1 {
                judge::skip("RLIMIT_MEMLOCK does not permit to lock a page");
            }
            judge::refuse(|| free(block));
            // SAFETY: as above. It fails if the block is unmapped.
            unsafe { libc::munlock(block.start.cast(), 1) };
            let next = alloc(SHORTER);
            next.fill(5);
            free(next);
        },
        |_| (),
    )
}
