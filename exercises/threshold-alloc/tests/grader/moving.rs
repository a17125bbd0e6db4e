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
            "The threshold moved to {} when a block was allocated: it moves when one is freed.",
            threshold()
        );
        free(first);
        check!(
            threshold() > MIB && threshold() <= MIB + 2 * page_size(),
            "A mapped block of 1 MiB was freed, and the threshold is {}: it must have moved just past that block.",
            threshold()
        );
        check!(
            mapped_pages(first.start, first.size()) == 0,
            "The first block was freed, and is still mapped: only blocks to come are affected."
        );
        let second = alloc(MIB);
        second.fill(1);
        check!(
            second.is_in(&heap()),
            "A mapped block of 1 MiB was freed, so the next one must come from the heap."
        );
        let larger = alloc(2 * MIB);
        check!(
            !larger.is_in(&heap()),
            "A block of 2 MiB is still larger than any that was freed, and must have a mapping of its own."
        );
    })
}

#[test]
fn only_where_it_was_asked_for() {
    case(|| {
        ALLOC.set_moving_threshold(false);
        free(alloc(MIB));
        check!(
            threshold() == 128 * KIB,
            "Nobody has asked for a moving threshold, and it moved to {}.",
            threshold()
        );
    })
}

#[test]
fn only_upwards() {
    case(|| {
        ALLOC.set_moving_threshold(true);
        let blocks = [4 * MIB, MIB].map(alloc);
        blocks.into_iter().for_each(free);
        check!(
            threshold() > 4 * MIB,
            "Blocks of 4 MiB and of 1 MiB were freed, and the threshold is {}: it moves up only.",
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
            "A block of 40 MiB was freed, and the threshold moved to {}: blocks of more than 32 MiB never move it.",
            threshold()
        );
        free(alloc(32 * MIB - page_size()));
        check!(
            threshold() > 31 * MIB,
            "A block of just under 32 MiB was freed, and the threshold is {}.",
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
            "set_threshold(204800) makes the threshold stand still, as mallopt does in glibc, and it moved to {}.",
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
                    block.fill(1);
                    free(block);
                }
            });
        },
        |seen| {
            let calls = seen.transcript().lines().count();
            check!(
                calls == 0,
                "The threshold has moved past 1 MiB, and 100 pairs of that size took {calls} system calls: the \
                 heap must keep as much at its end, or all that was won is lost. glibc keeps twice the threshold."
            );
        },
    )
}
