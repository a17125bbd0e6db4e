//! Stage 1: a block at or above the threshold has a mapping of its own, and its memory goes back at once.

use super::*;

/// Not whole pages; a few bytes short, so that a header before the block takes no page more.
const ODD: usize = LARGE - 64;

#[test]
fn usable_to_the_last_byte() {
    case(|| {
        let block = block(ODD);
        for byte in block.ends() {
            let rights = rights(byte);
            check!(
                rights.mapped && rights.read && rights.write,
                "A large block must be readable and writable to its last byte."
            );
            check!(
                !rights.execute,
                "A large block can be executed: leave PROT_EXEC out."
            );
        }
        block.fill(7);
        block.expect(7, OVERLAP);
    })
}

#[test]
fn has_a_mapping_of_its_own() {
    watched(
        || {
            // The first call may set up more than its block.
            free(block(ODD));
            watch(|| {
                let block = block(ODD);
                block.fill(1);
                free(block);
            });
        },
        |seen| {
            let (maps, unmaps) = (seen.calls("mmap").len(), seen.calls("munmap").len());
            check!(
                maps > 0,
                "A large block was given out without an mmap: each must have a mapping of its own."
            );
            check!(
                unmaps > 0,
                "A large block was freed without a munmap: its memory must go back to the kernel at once."
            );
            seen.expect_ledger("large");
            check!(
                maps == 1 && unmaps == 1,
                "A large block took {maps} calls of mmap and {unmaps} of munmap: one of each is enough."
            );
        },
    )
}

#[test]
fn lazy() {
    case(|| {
        let block = block(LARGE);
        let resident = resident_pages(block.start, block.size()) * page_size();
        check!(
            resident <= page_size(),
            "{resident} of a new large block are resident before anything has touched them.",
            resident = amount(resident)
        );
    })
}

#[test]
fn gone_when_freed() {
    case(|| {
        for size in [ODD, LARGE, LARGE + 1] {
            let block = block(size);
            block.fill(1);
            free(block);
            let left = mapped_pages(block.start, block.size());
            check!(
                left == 0,
                "A block of {size} was freed, and {left} of its pages are still mapped: its memory must go \
                 back to the kernel at once, to the last page.",
                size = amount(size)
            );
        }
    })
}

#[test]
fn independent() {
    case(|| {
        let blocks: Vec<_> = (0..100).map(|_| block(LARGE)).collect();
        for (number, block) in blocks.iter().enumerate() {
            for byte in block.ends() {
                // SAFETY: both ends belong to the block.
                unsafe { byte.write(number as u8) };
            }
        }
        for block in blocks.iter().step_by(2) {
            free(*block);
        }
        for (number, block) in blocks.iter().enumerate().skip(1).step_by(2) {
            let mapped = mapped_pages(block.start, block.size());
            check!(
                mapped >= block.size() / page_size(),
                "Freeing one large block unmapped pages of another."
            );
            // SAFETY: both ends belong to the block, and were written above.
            let ends = block.ends().map(|byte| unsafe { byte.read() });
            check!(ends == [number as u8; 2], "{OVERLAP}.");
        }
    })
}

#[test]
fn private() {
    case(|| {
        let block = block(LARGE);
        block.fill(1);
        let code = in_child(|| {
            block.fill(2);
            0
        });
        check!(code == 0, "A forked child must be able to write a block.");
        block.expect(
            1,
            "A forked child wrote to a large block, and its parent sees it",
        );
    })
}

#[test]
fn aligned_beyond_a_page() {
    watched(
        || {
            free(block(LARGE));
            watch(|| {
                for align in [64 * KIB, 2 * MIB] {
                    // Several at once: chance aligns one now and then.
                    let blocks = [(); 4].map(|()| aligned_block(300 * KIB, align));
                    for block in blocks {
                        block.fill(1);
                    }
                    blocks.into_iter().for_each(free);
                }
            });
        },
        |seen| {
            let ledger = seen.ledger();
            let left = ledger
                .lines()
                .find_map(|line| line.strip_prefix("still mapped: "));
            let left = left.unwrap_or_default();
            check!(
                left == "nothing",
                "Blocks aligned to more than a page were freed, and {left} of what was mapped for them is still \
                 there."
            );
        },
    )
}

#[test]
fn refused_is_null() {
    case(|| {
        for size in [1 << 47, 1 << 62, isize::MAX as usize - page_size()] {
            // SAFETY: the size is not 0.
            let start = unsafe { ALLOC.alloc(layout(size, ALIGN)) };
            check!(
                start.is_null(),
                "alloc was asked for {size}, more than any address space holds, and did not give null.",
                size = amount(size)
            );
        }
        block(LARGE).fill(1);
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED);
            watch(|| free(block(NO_PAGES)));
        },
        |seen| {
            for call in seen.calls("munmap") {
                let bytes = call.args[1] as usize;
                check!(
                    (NO_PAGES..NO_PAGES + 64).contains(&bytes) || bytes.is_multiple_of(PRETENDED),
                    "On a machine whose pages are 64 KiB your munmap names neither the block's length nor whole \
                     pages: the page size must come from sysconf."
                );
            }
        },
    )
}

/// The largest page of aarch64.
const PRETENDED: usize = 64 * KIB;

/// Whole pages of no size.
const NO_PAGES: usize = 200_123;
