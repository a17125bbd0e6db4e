//! Stage 8, bonus: a dynamic threshold, as in glibc.

use super::*;

fn threshold() -> usize {
    ALLOC.stats().threshold
}

/// Fails the case unless the threshold is above `size`, the largest mapped block that was freed.
fn expect_threshold_above(size: usize) {
    check!(
        threshold() > size,
        "The largest mapped block that was freed has {size} bytes, and the threshold is {}; expected a value above that. Move \
         it past each mapped block that is freed, and never down.",
        threshold()
    );
}

#[test]
fn past_a_block_that_was_freed() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        let first = alloc(MIB);
        check!(
            threshold() == 128 * KIB,
            "The threshold moved to {} when a block was allocated. Move it only when a mapped block is freed.",
            threshold()
        );
        free(first);
        check!(
            threshold() > MIB && threshold() <= MIB + 2 * page_size(),
            "A mapped block of 1 MiB was freed, and the threshold is {}; expected a value just above 1048576. Move it \
             to the mapping's length plus 1.",
            threshold()
        );
        check!(
            first.mapped() == 0,
            "A mapped block of 1 MiB was freed, and is still mapped. Unmap it: only later blocks come from the heap."
        );
        let second = alloc(MIB);
        second.fill(1);
        check!(
            second.is_in(&heap()),
            "A mapped block of 1 MiB was freed, and the next block of that size is outside the heap; expected it in \
             the heap."
        );
        let larger = alloc(2 * MIB);
        check!(
            !larger.is_in(&heap()),
            "A block of 2 MiB is in the heap, although no freed block was larger than 1 MiB; expected a separate \
             mapping."
        );
    })
}

#[test]
fn off_by_default() {
    case(|| {
        let first = alloc(MIB);
        free(first);
        ALLOC.set_moving_threshold(false);
        free(alloc(MIB));
        check!(
            threshold() == 128 * KIB,
            "The dynamic threshold is off, but the threshold moved to {}; expected 131072.",
            threshold()
        );
    })
}

#[test]
fn turned_off_again() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        free(alloc(MIB));
        let moved = threshold();
        for on in [false, true] {
            ALLOC.set_moving_threshold(on);
            check!(
                threshold() == moved,
                "set_moving_threshold({on}) changed the threshold from {moved} to {}; expected no change.",
                threshold()
            );
        }
        ALLOC.set_moving_threshold(false);
        free(alloc(4 * MIB));
        check!(
            threshold() == moved,
            "set_moving_threshold(false) was called, a block of 4 MiB was freed, and the threshold moved from {moved} to \
             {}; expected it to stay.",
            threshold()
        );
    })
}

#[test]
fn up_to_32_mib() {
    watched(
        || {
            ALLOC.set_moving_threshold(true);
            for size in [2 * MIB, 9 * MIB, 20 * MIB, 32 * MIB - page_size()] {
                free(alloc(size));
                check!(
                    threshold() > size && threshold() <= size + 2 * page_size(),
                    "A mapped block of {size} bytes was freed, and the threshold is {}; expected a value just above the \
                     block's size.",
                    threshold()
                );
                free(alloc(size));
                watch(|| {
                    for _ in 0..10 {
                        let block = alloc(size);
                        block.touch_ends();
                        check!(
                            block.is_in(&heap()),
                            "A mapped block of {size} bytes was freed, and a later block of that size is outside the \
                             heap; expected it in the heap."
                        );
                        free(block);
                    }
                });
            }
        },
        |seen| {
            let calls = seen.transcript().lines().count();
            check!(
                calls == 0,
                "The threshold moved past blocks of 2, 9, 20 and 32 MiB (less one page), and blocks of these sizes were \
                 allocated and freed 10 times each with {calls} system calls; expected none. Let twice the block's size \
                 stay free at the heap's end, as glibc does."
            );
        },
    )
}

#[test]
fn only_for_mapped_blocks() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        ALLOC.set_max_maps(0);
        free(alloc(MIB));
        check!(
            threshold() == THRESHOLD,
            "A block of 1 MiB in the heap was freed, and the threshold moved to {}. Move it only when a mapped block \
             is freed.",
            threshold()
        );
    })
}

#[test]
fn only_upwards() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        let blocks = [4 * MIB, MIB].map(alloc);
        let in_heap = alloc(1000);
        blocks.into_iter().for_each(free);
        free(in_heap);
        check!(
            threshold() > 4 * MIB,
            "Blocks of 4 MiB and then of 1 MiB were freed, and the threshold is {}; expected a value above 4194304. \
             Never move it down.",
            threshold()
        );
    })
}

#[test]
fn only_upwards_with_two_threads() {
    case(|| {
        // Sizes that the heap need not have room for.
        ALLOC.set_moving_threshold(true);
        free(alloc(200 * KIB));
        let block = Mutex::new(None);
        let freed = Steps::of(&ALLOC, || free(take(&block)));
        let new = |size| {
            ALLOC.set_threshold(THRESHOLD);
            ALLOC.set_moving_threshold(true);
            alloc(size)
        };
        put(&block, new(300 * KIB));
        freed.find_in_thread();
        for place in 0..judge::places() {
            let other = new(600 * KIB);
            put(&block, new(300 * KIB));
            freed.beside(place, move || free(other));
            check!(
                threshold() > 600 * KIB,
                "The grader stopped a thread inside dealloc of a block of 300 KiB while another thread freed one of 600 \
                 KiB. Then the threshold is {}; expected more than 614400. Raise it in one atomic step (fetch_max), or \
                 under a lock.",
                threshold()
            );
        }
    })
}

#[test]
fn not_beyond_32_mib() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        free(alloc(40 * MIB));
        check!(
            threshold() == 128 * KIB,
            "A block of 40 MiB was freed, and the threshold moved to {}. Move it only for blocks of at most 32 MiB.",
            threshold()
        );
        free(alloc(32 * MIB - page_size()));
        check!(
            threshold() > 31 * MIB,
            "A block of 32 MiB less one page was freed, and the threshold is {}; expected more than the block's size.",
            threshold()
        );
    })
}

#[test]
fn set_threshold_turns_it_off() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        ALLOC.set_threshold(200 * KIB);
        check!(
            threshold() == 200 * KIB,
            "After set_threshold(204800), stats().threshold is {}; expected 204800.",
            threshold()
        );
        free(alloc(MIB));
        check!(
            threshold() == 200 * KIB,
            "After set_threshold(204800), the threshold moved to {}. Turn the dynamic threshold off in set_threshold.",
            threshold()
        );
    })
}

#[test]
fn a_bounded_part_stays_free() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        free(alloc(MIB));
        expect_threshold_above(MIB);
        let mut blocks: Vec<_> = (0..16).map(|_| alloc(MIB)).collect();
        blocks.iter().for_each(Block::touch_ends);
        let before = heap().len();
        blocks.reverse();
        blocks.into_iter().for_each(free);
        // If stage 5 is not written, `dealloc` returns nothing.
        let returns = traces::is_written(|| ALLOC.trim());
        let left = heap().len();
        check!(
            !returns || left <= 4 * MIB,
            "The threshold has moved past 1 MiB, blocks of 1 MiB were freed in a heap of {}, and it is still {} long; \
             expected at most 4 MiB. Up to twice the size may stay free at the heap's end; return the rest in dealloc.",
            amount(before),
            amount(left)
        );
    })
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        ALLOC.set_moving_threshold(true);
        traces::run(traces::MOVING.with_earlier_stages());
    })
}

#[test]
fn no_system_call_afterwards() {
    watched(
        || {
            ALLOC.set_moving_threshold(true);
            let smaller = alloc(300 * KIB);
            for _ in 0..3 {
                free(alloc(MIB));
            }
            // The threshold is above this mapped block, which must not change how much stays free.
            free(smaller);
            expect_threshold_above(MIB);
            watch(|| {
                for _ in 0..100 {
                    let block = alloc(MIB);
                    block.touch_ends();
                    free(block);
                }
            });
        },
        |seen| {
            let calls = seen.transcript().lines().count();
            check!(
                calls == 0,
                "The threshold has moved past 1 MiB, a mapped block of 300 KiB was freed, and a block of 1 MiB was allocated \
                 and freed 100 times with {calls} system calls; expected none. Let twice the largest size stay free at the \
                 heap's end."
            );
        },
    )
}
