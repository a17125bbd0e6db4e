//! Stage 1: large blocks are separate mappings, which are unmapped as soon as the block is freed.

use super::*;

/// Not a multiple of the page size. It leaves room for a header in front of the block without another page.
const ODD: usize = LARGE - 64;

/// Not a multiple of any page size.
const ODD_FOR_ALL: usize = 200_123;

#[test]
fn usable_to_the_last_byte() {
    case(|| {
        let block = alloc(ODD);
        for byte in block.ends() {
            let permissions = permissions(byte);
            check!(
                permissions.mapped && permissions.read && permissions.write,
                "A large block must be readable and writable to its last byte."
            );
            check!(
                !permissions.execute,
                "A large block can be executed: leave PROT_EXEC out."
            );
        }
        block.fill(7);
        block.expect(7, OVERLAP);
        // Huge pages are a right choice for an allocator.
        expect_plain("A large block", block.start, block.size(), Kind::MayBeHuge);
    })
}

#[test]
fn has_a_mapping_of_its_own() {
    watched(
        || {
            // The first call may also set up the allocator.
            free(alloc(ODD));
            let block = watch(|| alloc(ODD));
            block.fill(1);
            watch(|| free(block));
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
        let block = alloc(LARGE);
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
            let block = alloc(size);
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
        let blocks: Vec<_> = (0..100).map(|_| alloc(LARGE)).collect();
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
        let block = alloc(LARGE);
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
            free(alloc(LARGE));
            watch(|| {
                for align in [64 * KIB, 2 * MIB] {
                    // Several at a time, because one block may be aligned by chance.
                    let blocks = [(); 4].map(|()| alloc_aligned(300 * KIB, align));
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
            // SAFETY: `layout` returns no layout of size 0.
            let start = unsafe { ALLOC.alloc(layout(size, ALIGN)) };
            check!(
                start.is_null(),
                "alloc was asked for {size}, more than any address space holds, and did not give null.",
                size = amount(size)
            );
        }
        alloc(LARGE).fill(1);
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
                    "On a machine whose pages are 64 KiB your munmap names neither the block's length nor whole \
                     pages: the page size must come from sysconf."
                );
            }
        },
    )
}
