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
fn empty_in_the_end() {
    case(|| {
        ALLOC.trim();
        for order in ORDERS {
            let mut blocks = alloc_mixed(2 * MIB, 11);
            let full = heap();
            reorder(&mut blocks, order);
            blocks.into_iter().for_each(free);
            ALLOC.trim();
            let left = heap().len();
            check!(
                left <= 64 * KIB,
                "Every block was freed, {order}, and the heap trimmed: {left} of it are left, and at most \
                 64 KiB may be.",
                left = amount(left)
            );
            let resident = resident_bytes(&full);
            check!(
                resident <= 64 * KIB,
                "The break has moved down, and {resident} beyond it are still resident: the kernel must get \
                 the pages back.",
                resident = amount(resident)
            );
            check!(
                !permissions(pointer_to(heap().end)).write,
                "The break has moved down, and what lies beyond it can still be written."
            );
        }
    })
}

#[test]
fn the_end_comes_back_by_itself() {
    case(|| {
        ALLOC.trim();
        let mut blocks = alloc_mixed(16 * MIB, 12);
        let full = heap();
        blocks.reverse();
        blocks.into_iter().for_each(free);
        let left = heap().len();
        check!(
            left <= MIB,
            "16 MiB of small blocks were freed, the last one first, and the heap is still {left} long: where \
             more than 128 KiB lie free at its end, it must give them back by itself, and keep at most 1 MiB.",
            left = amount(left)
        );
        let resident = resident_bytes(&full);
        check!(
            resident <= MIB,
            "The break moved down, and {resident} of the old heap are still resident.",
            resident = amount(resident)
        );
    })
}

#[test]
fn not_at_every_turn() {
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
                "A block of 100000 bytes was allocated and freed 1000 times at the heap's end, with {calls} system \
                 calls: leave some room below the break, or it moves at every turn."
            );
        },
    )
}

#[test]
fn sizes_in_turn() {
    case(|| {
        ALLOC.trim();
        let mut most = 0;
        for round in 0..40 {
            let size = [100, 1000, 40, 5000, 300, 20_000, 64, 2000][round % 8];
            let blocks: Vec<_> = (0..2 * MIB / size).map(|_| alloc(size)).collect();
            blocks.iter().for_each(|block| block.fill(1));
            most = most.max(heap().len());
            blocks.into_iter().for_each(free);
        }
        check!(
            most <= 4 * MIB,
            "2 MiB of blocks of one size were freed, then 2 MiB of another size allocated, and so on: the heap \
             grew to {most}. Memory of one size must become memory of another.",
            most = amount(most)
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
            alloc(100_000).fill(1);
        }
        let moved = heap().len().saturating_sub(before);
        check!(
            moved <= MIB,
            "8000 blocks of 1000 bytes side by side were freed, and 70 of 100000 bytes allocated: the break moved \
             by {moved}, and there was room for them, once neighbours are joined.",
            moved = amount(moved)
        );
        free(guard);
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
            "After 60000 random calls {bytes} are live, in a heap of {length}: {percent} %, and at least \
             70 % must be in use.",
            bytes = amount(bytes),
            length = amount(length)
        );
    })
}

#[test]
fn trim_keeps_what_is_live() {
    case(|| {
        ALLOC.trim();
        let mut blocks = alloc_mixed(MIB, 13);
        for (number, block) in blocks.iter().enumerate() {
            block.fill(number as u8);
        }
        let kept = blocks.split_off(blocks.len() / 2);
        let first = blocks.len();
        blocks.into_iter().for_each(free);
        ALLOC.trim();
        for (number, block) in kept.iter().enumerate() {
            block.expect((first + number) as u8, "trim() touched a live block");
        }
        alloc_mixed(MIB, 14);
        for (number, block) in kept.iter().enumerate() {
            block.expect((first + number) as u8, OVERLAP);
        }
    })
}
