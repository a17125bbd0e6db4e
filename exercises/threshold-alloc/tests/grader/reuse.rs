//! Stage 3: freed blocks are reused.

use super::*;

/// Allocates and frees a block `count` times. Fails the case if the break moves after the first time.
fn alloc_and_free(size: usize, align: usize, count: usize) {
    free(alloc_aligned(size, align));
    let before = heap();
    for _ in 0..count {
        let block = alloc_aligned(size, align);
        block.fill(1);
        free(block);
    }
    let moved = heap().end.saturating_sub(before.end);
    check!(
        moved == 0,
        "{count} times a block of {size} aligned to {align} was allocated and freed, and the break moved by \
         {moved}: what is freed must be used again.",
        size = amount(size),
        moved = amount(moved),
        align = amount(align)
    );
}

#[test]
fn one_block_ten_thousand_times() {
    case(|| alloc_and_free(100, ALIGN, 10_000))
}

#[test]
fn every_size() {
    case(|| {
        let mut random = Random(3);
        for size in [
            1, 8, 16, 17, 24, 40, 64, 100, 500, 1000, 5000, 60_000, 131_000,
        ] {
            alloc_and_free(size, ALIGN, 200);
            alloc_and_free(1 + random.below(size), ALIGN, 200);
        }
    })
}

#[test]
fn large_alignments_too() {
    case(|| {
        for align in [64, 1024, 64 * KIB] {
            alloc_and_free(100, align, 2000);
        }
    })
}

#[test]
fn freed_in_any_order() {
    case(|| {
        let mut blocks: Vec<_> = (0..1000).map(|_| alloc(200)).collect();
        let before = heap();
        for order in ORDERS {
            reorder(&mut blocks, order);
            for block in blocks.drain(..) {
                free(block);
            }
            blocks.extend((0..1000).map(|_| alloc(200)));
            let moved = heap().end.saturating_sub(before.end);
            check!(
                moved == 0,
                "1000 blocks of 200 bytes were freed, {order}, and 1000 more allocated: the break moved by \
                 {moved}, and there was room for all of them.",
                moved = amount(moved)
            );
        }
    })
}

#[test]
fn no_system_call_when_warm() {
    watched(
        || {
            let sizes = [24, 100, 1000, 20_000];
            for _ in 0..10 {
                sizes.map(alloc).into_iter().for_each(free);
            }
            watch(|| {
                for _ in 0..1000 {
                    sizes.map(alloc).into_iter().for_each(free);
                }
            });
        },
        |seen| {
            let calls = seen.transcript().lines().count();
            check!(
                calls == 0,
                "Small blocks that had all been used before were allocated and freed again, 1000 times, with \
                 {calls} system calls: it takes none."
            );
        },
    )
}

#[test]
fn the_others_keep_their_bytes() {
    case(|| {
        let mut random = Random(5);
        let mut live: Vec<(Block, u8)> = Vec::new();
        for round in 0..20_000usize {
            if live.len() > 200 || (random.below(2) == 0 && !live.is_empty()) {
                let (block, value) = live.swap_remove(random.below(live.len()));
                block.expect(value, OVERLAP);
                free(block);
            } else {
                let block = alloc(1 + random.below(600));
                block.fill(round as u8);
                live.push((block, round as u8));
            }
        }
        for (block, value) in live {
            block.expect(value, OVERLAP);
        }
    })
}

#[test]
fn freed_twice_is_the_end() {
    case(|| {
        let _neighbour = alloc(100);
        let twice = alloc(100);
        let _other = alloc(100);
        free(twice);
        expect_abort(|| free(twice), "A block was freed twice in a row");
    })
}

#[test]
fn random_traces() {
    case(|| {
        free(alloc(100));
        let config = Config {
            reserve: 64 * MIB,
            ..Config::new()
        };
        traces::run(config, traces::SMALL);
    })
}
