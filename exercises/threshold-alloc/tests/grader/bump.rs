//! Stage 2: the reserved heap and its break.

use super::*;

#[test]
fn small_blocks_lie_in_the_heap() {
    case(|| {
        for size in [1, 16, 100, 1000, 10_000, 100_000] {
            let block = alloc(size);
            block.fill(1);
            let heap = heap();
            check!(
                block.ends().iter().all(|byte| heap.contains(&byte.addr())),
                "A block of {size} does not lie between the heap's first byte and its break.",
                size = amount(size)
            );
        }
    })
}

#[test]
fn no_heap_before_the_first_small_block() {
    case(|| {
        check!(
            ALLOC.heap_range().is_none(),
            "heap_range() names a heap before the first block: an allocator that is a static must begin with \
             nothing."
        );
        let _small = alloc(100);
        let _ = heap();
    })
}

#[test]
fn a_break_of_its_own() {
    watched(
        || {
            watch(|| {
                for _ in 0..1000 {
                    alloc(1000).fill(1);
                }
            });
        },
        |seen| {
            check!(
                seen.calls("brk").is_empty(),
                "Your heap moves the process's own break. That is libc's malloc's: it crashes where another one \
                 moves it down. Reserve addresses with PROT_NONE, and keep a break in there."
            );
        },
    )
}

#[test]
fn all_of_it_can_be_touched_and_nothing_beyond() {
    case(|| {
        alloc(100).fill(1);
        let heap = heap();
        for (byte, name) in [
            (heap.start, "The heap's first byte"),
            (heap.end - 1, "The last byte before the heap's break"),
        ] {
            let permissions = permissions(pointer_to(byte));
            check!(
                permissions.read && permissions.write,
                "{name} cannot be read and written: heap_range() must name what can be touched, and not all that is \
                 reserved."
            );
            check!(
                !permissions.execute,
                "{name} can be executed: leave PROT_EXEC out."
            );
        }
        let beyond = permissions(pointer_to(heap.end));
        check!(
            !beyond.read && !beyond.write,
            "The byte at the break can be touched: what lies beyond it is reserved with PROT_NONE, so that a \
             write there is a SIGSEGV and not silence."
        );
        // Huge pages are a right choice for an allocator.
        expect_plain(
            "The heap",
            pointer_to(heap.start),
            heap.len(),
            Kind::MayBeHuge,
        );
    })
}

#[test]
fn grows_in_place() {
    watched(
        || {
            alloc(100).fill(1);
            let start = heap().start;
            watch(|| {
                for _ in 0..8 * MIB / 8000 {
                    alloc(8000).fill(1);
                }
            });
            check!(
                heap().start == start,
                "The heap's first byte has moved: its blocks cannot have moved with it."
            );
            check!(
                heap().len() >= 8 * MIB,
                "8 MiB of small blocks are live, and the heap is {} long.",
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
                "The heap grew by a new mapping, which may lie anywhere: reserve its addresses once, and move \
                 the break in there."
            );
            let calls = seen.transcript().lines().count();
            let most = 8 * MIB / (64 * KIB);
            check!(
                calls <= most,
                "The heap grew by 8 MiB in {calls} system calls: move the break in larger steps, so that it takes \
                 at most {most}."
            );
        },
    )
}

#[test]
fn aligned() {
    case(|| {
        for align in (0..=16).map(|power| 1 << power) {
            for size in [3, 24, 1000] {
                alloc_aligned(size, align).fill(1);
            }
        }
    })
}

#[test]
fn blocks_do_not_overlap() {
    case(|| {
        let mut random = Random(1);
        let mut blocks = Vec::new();
        for number in 0..2000 {
            let block = alloc_aligned(1 + random.below(700), 1 << random.below(8));
            block.fill(number as u8);
            blocks.push(block);
        }
        for (number, block) in blocks.iter().enumerate() {
            block.expect(number as u8, OVERLAP);
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
            "8 MB of small blocks were given out and not touched, and {resident} of the heap are resident.",
            resident = amount(resident)
        );
    })
}

#[test]
fn a_smaller_reservation_where_addresses_are_few() {
    case(|| {
        limit_addresses_to(256 * MIB);
        let refused = "The kernel refused to reserve 64 GiB, as it does under a limit of 256 MiB (RLIMIT_AS), and \
                       then there was no heap: halve the size and try again.";
        // SAFETY: `layout` returns no layout of size 0.
        let start = unsafe { ALLOC.alloc(layout(100, ALIGN)) };
        check!(
            !start.is_null() && ALLOC.heap_range().is_some(),
            "{refused}"
        );
        for _ in 0..1000 {
            alloc(10_000).fill(1);
        }
    })
}

/// Limits the address space (RLIMIT_AS) to `more` bytes beyond what is mapped now.
fn limit_addresses_to(more: usize) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm is readable");
    let pages = statm.split(' ').next().and_then(|pages| pages.parse().ok());
    let pages: usize = pages.expect("statm begins with the number of mapped pages");
    let limit = (pages * page_size() + more) as libc::rlim_t;
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
fn private() {
    case(|| {
        let block = alloc(1000);
        block.fill(1);
        let code = in_child(|| {
            block.fill(2);
            0
        });
        check!(code == 0, "A forked child must be able to write a block.");
        block.expect(
            1,
            "A forked child wrote to the heap, and its parent sees it",
        );
    })
}

#[test]
fn asks_the_page_size() {
    watched(
        || {
            pretend::page_size(PRETENDED_PAGE);
            watch(|| {
                for _ in 0..100 {
                    alloc_from(&SHORT, layout(10_000, ALIGN));
                }
            });
        },
        |seen| {
            for call in seen.calls("mprotect") {
                check!(
                    call.args[1].is_multiple_of(PRETENDED_PAGE as u64)
                        && call.args[0].is_multiple_of(PRETENDED_PAGE as u64),
                    "On a machine whose pages are 64 KiB your mprotect does not name whole pages: the page size \
                     must come from sysconf."
                );
            }
        },
    )
}

/// Reserves few enough addresses for the `mmap` of `judge::pretend`.
static SHORT: ThresholdAlloc = ThresholdAlloc::new(Config {
    reserve: 64 * MIB,
    ..Config::new()
});
