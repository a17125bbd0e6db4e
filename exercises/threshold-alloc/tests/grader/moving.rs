//! Stage 8, bonus: a dynamic threshold, as in glibc.

use super::*;

fn threshold() -> usize {
    ALLOC.stats().threshold
}

#[test]
fn past_a_block_that_was_freed() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        let first = alloc(MIB);
        check!(
            threshold() == 128 * KIB,
            "The threshold moved to {} when a block was allocated. It must move when a block is freed.",
            threshold()
        );
        free(first);
        check!(
            threshold() > MIB && threshold() <= MIB + 2 * page_size(),
            "A mapped block of 1 MiB was freed, and the threshold is {}; expected a value just above 1048576.",
            threshold()
        );
        check!(
            first.mapped() == 0,
            "The first mapped block of 1 MiB was freed, and is still mapped. Only later blocks come from the heap."
        );
        let second = alloc(MIB);
        second.fill(1);
        check!(
            second.is_in(&heap()),
            "A mapped block of 1 MiB was freed, and the next block of that size is not in the heap."
        );
        let larger = alloc(2 * MIB);
        check!(
            !larger.is_in(&heap()),
            "A block of 2 MiB is in the heap, although the largest block that was freed has 1 MiB; expected a separate mapping."
        );
    })
}

#[test]
fn only_where_it_was_asked_for() {
    case(|| {
        let first = alloc(MIB);
        free(first);
        ALLOC.set_moving_threshold(false);
        free(alloc(MIB));
        check!(
            threshold() == 128 * KIB,
            "The dynamic threshold is off, and the threshold moved to {}.",
            threshold()
        );
    })
}

#[test]
fn only_for_mapped_blocks() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        ALLOC.set_max_maps(0);
        free(alloc(MIB));
        check!(
            threshold() == THRESHOLD,
            "A block of 1 MiB in the heap was freed, and the threshold moved to {}. Only mapped blocks move it.",
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
            "Blocks of 4 MiB and then of 1 MiB were freed, and the threshold is {}; expected a value above 4194304. It must only \
             move up.",
            threshold()
        );
    })
}

#[test]
fn not_beyond_32_mib() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        free(alloc(40 * MIB));
        check!(
            threshold() == 128 * KIB,
            "A block of 40 MiB was freed, and the threshold moved to {}. Blocks of more than 32 MiB must not move it.",
            threshold()
        );
        free(alloc(32 * MIB - page_size()));
        check!(
            threshold() > 31 * MIB,
            "A block of 32 MiB less one page was freed, and the threshold is {}; expected a value above that.",
            threshold()
        );
    })
}

#[test]
fn set_by_hand_it_stands_still() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        ALLOC.set_threshold(200 * KIB);
        free(alloc(MIB));
        check!(
            threshold() == 200 * KIB,
            "After set_threshold(204800) the threshold moved to {}. set_threshold must turn the dynamic threshold off.",
            threshold()
        );
    })
}

#[test]
fn no_system_call_afterwards() {
    watched(
        || {
            ALLOC.set_moving_threshold(true);
            for _ in 0..3 {
                free(alloc(MIB));
            }
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
                "The threshold has moved past 1 MiB, and a block of 1 MiB was allocated and freed 100 times with {calls} system \
                 calls; expected none. Leave twice that size free at the heap's end, as glibc does."
            );
        },
    )
}
