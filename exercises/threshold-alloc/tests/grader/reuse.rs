//! Stage 3: freed blocks are reused.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::*;

/// Allocates and frees a block `count` times. Fails the case if the break moves after the first time.
fn alloc_and_free(size: usize, align: usize, count: usize) {
    free(alloc_aligned(size, align));
    let before = heap();
    for _ in 0..count {
        let block = alloc_aligned(size, align);
        block.touch_ends();
        free(block);
    }
    let moved = heap().end.saturating_sub(before.end);
    check!(
        moved == 0,
        "A block of {}, aligned to {}, was allocated and freed {count} times, and the break moved up by {}; expected \
         it to stay. Reuse freed memory.",
        amount(size),
        amount(align),
        amount(moved)
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
        for (align, count) in [(64, 2000), (1024, 2000), (64 * KIB, 1000), (MIB, 100)] {
            alloc_and_free(100, align, count);
        }
    })
}

#[test]
fn every_size_between_live_blocks() {
    case(|| {
        for align in [1, ALIGN, 256] {
            let blocks: Vec<_> = small_sizes()
                .into_iter()
                .map(|size| [(); 3].map(|()| alloc_aligned(size, align)))
                .collect();
            for (seed, [before, block, after]) in blocks.iter().enumerate() {
                for block in [before, block, after] {
                    block.fill(seed);
                }
            }
            // Every free block is between two live ones. The new blocks may take any of them.
            blocks.iter().for_each(|[_, block, _]| free(*block));
            let again: Vec<_> = blocks
                .iter()
                .rev()
                .map(|[_, block, _]| alloc_aligned(block.size(), align))
                .collect();
            again.iter().for_each(|block| block.fill(5));
            for (seed, [before, _, after]) in blocks.iter().enumerate() {
                for block in [before, after] {
                    block.expect(seed, OVERLAP);
                }
            }
            again.iter().for_each(|block| block.expect(5, OVERLAP));
            for (again, [before, _, after]) in again.iter().zip(&blocks) {
                for block in [before, after, again] {
                    free(*block);
                }
            }
        }
    })
}

#[test]
fn every_free_place_between_live_blocks() {
    case(|| {
        for size in [
            24, 100, 600, 1000, 1100, 1500, 2000, 5000, 7000, 20_000, 50_000, 100_000,
        ] {
            let count = (2 * MIB / size).clamp(20, 400);
            let pairs: Vec<_> = (0..count).map(|_| (alloc(size), alloc(24))).collect();
            let before = heap().end;
            pairs.iter().for_each(|(block, _)| free(*block));
            let again: Vec<_> = (0..count).map(|_| alloc(size)).collect();
            let moved = heap().end.saturating_sub(before);
            check!(
                moved == 0,
                "{count} blocks of {} were freed, with a live block behind each of them, and as many of the same size were \
                 allocated. The break moved up by {}; expected it to stay. Reuse each free place, also for exactly the size \
                 that it has.",
                amount(size),
                amount(moved)
            );
            expect_disjoint(&again);
            let live = pairs.into_iter().map(|(_, live)| live);
            again.into_iter().chain(live).for_each(free);
        }
    })
}

#[test]
fn a_longer_block_after_a_shorter_one() {
    case(|| longer_after_shorter(ALIGN))
}

/// Frees a block before a live one, and allocates a longer block, for which the free place may be too short.
pub fn longer_after_shorter(align: usize) {
    for size in 1..300 {
        for longer in [size + 1, size + 8, size + 15] {
            let short = alloc_aligned(size, align);
            let neighbour = alloc_aligned(size, align);
            neighbour.fill(size);
            free(short);
            let long = alloc_aligned(longer, align);
            long.fill(1);
            neighbour.expect(size, OVERLAP);
            free(long);
            free(neighbour);
        }
    }
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
                "1000 blocks of 200 bytes were freed {order}, and 1000 more were allocated. The break moved up by {}; \
                 expected it to stay. Reuse all freed blocks, in whatever order they were freed.",
                amount(moved)
            );
        }
        expect_disjoint(&blocks);
    })
}

#[test]
fn no_system_call_when_warm() {
    watched(
        || {
            let sizes = [1, 24, 100, 1000, 4 * KIB, 20_000];
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
                "Small blocks of six sizes that had been used before were allocated and freed 1000 times, with \
                 {calls} system calls; expected none. Reuse freed blocks without a system call."
            );
        },
    )
}

/// A free place between live blocks cannot become a part of the heap's end, so an answer may treat it differently from the
/// last block.
#[test]
fn no_system_call_between_live_blocks() {
    watched(
        || {
            let sizes = [24, 1000, 5000, 20_000, 60_000, 90_000, 120_000];
            let mut rows = sizes.map(|size| [(); 5].map(|()| alloc(size)));
            let mut round = || {
                for row in &rows {
                    row[1..4].iter().for_each(|block| free(*block));
                }
                for (row, size) in rows.iter_mut().zip(sizes) {
                    for block in &mut row[1..4] {
                        *block = alloc(size);
                        block.touch_ends();
                    }
                }
            };
            (0..5).for_each(|_| round());
            watch(|| (0..10).for_each(|_| round()));
        },
        |seen| {
            if let [first, ..] = seen.all_calls() {
                judge::fail(format!(
                    "Three adjacent blocks between two live ones, of each of seven sizes up to 120000 bytes, were freed and \
                     allocated again 10 times, and the allocator called {}; expected no system call. Return memory to the \
                     kernel at the heap's end only, and keep the pages of other free memory.",
                    first.name
                ));
            }
        },
    )
}

#[test]
fn no_system_call_of_any_kind_when_warm() {
    case(|| {
        let sizes = [1, 24, 100, 1000, 20_000];
        let warm = || (0..10).for_each(|_| sizes.map(alloc).into_iter().for_each(free));
        warm();
        if let Some(number) = system_call_in(warm, || {
            for _ in 0..100 {
                sizes.map(alloc).into_iter().for_each(free);
            }
        }) {
            judge::fail(format!(
                "Small blocks of sizes that had been used before were allocated and freed, and the allocator made a system call \
                 ({}); expected none. Calls that change no memory cost as much as others.",
                name_of_call(number)
            ));
        }
    })
}

/// Names a system call. Its number differs between processors.
fn name_of_call(number: usize) -> String {
    let name = match number as libc::c_long {
        libc::SYS_getpid => "getpid",
        libc::SYS_gettid => "gettid",
        libc::SYS_sched_yield => "sched_yield",
        libc::SYS_futex => "futex",
        libc::SYS_getrandom => "getrandom",
        libc::SYS_rt_sigprocmask => "rt_sigprocmask",
        libc::SYS_mincore => "mincore",
        libc::SYS_membarrier => "membarrier",
        libc::SYS_clock_nanosleep => "clock_nanosleep",
        libc::SYS_write => "write",
        _ => return format!("number {number}, see <sys/syscall.h>"),
    };
    name.to_owned()
}

/// Where a child writes the number of its system call. The case shares this page with it.
static TRAPPED: AtomicPtr<AtomicUsize> = AtomicPtr::new(std::ptr::null_mut());

/// The handler of SIGSYS.
extern "C" fn trapped(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    /// The part of siginfo_t that is valid for SIGSYS, which libc does not declare.
    #[repr(C)]
    struct Trap {
        signal: [libc::c_int; 4],
        address: usize,
        number: libc::c_int,
    }
    // SAFETY: the kernel passes a siginfo_t, and this is its layout for SIGSYS on 64-bit machines.
    let number = unsafe { (*info.cast::<Trap>()).number };
    // SAFETY: the page is mapped before the handler is installed.
    let place = unsafe { &*TRAPPED.load(Relaxed) };
    place.store(number as usize, Relaxed);
    exit_now(TRAPPED_CALL);
}

/// The exit status of a child that made a system call.
const TRAPPED_CALL: i32 = 7;

/// Runs `prepare` and then `calls` in a forked child. Returns the number of the first system call that `calls` makes,
/// also if the judge does not record that one.
fn system_call_in(prepare: impl FnOnce(), calls: impl FnOnce()) -> Option<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 64, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "no shared memory");
    TRAPPED.store(page.cast(), Relaxed);
    let child = fork_child(|| {
        prepare();
        if trap_system_calls() {
            calls();
        }
    });
    let made = waitpid(child, None) == Ok(WaitStatus::Exited(child, TRAPPED_CALL));
    // SAFETY: the page is mapped, and the child has ended.
    let number = unsafe { (*page.cast::<AtomicUsize>()).load(Relaxed) };
    // SAFETY: nothing uses the page any more.
    unsafe { libc::munmap(page, 64) };
    made.then_some(number)
}

/// From now on each system call of this process except exit_group(2) calls `trapped`. Returns `false` if the kernel does
/// not allow that.
fn trap_system_calls() -> bool {
    // SAFETY: all zeros is an empty signal set and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler = trapped as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler uses an atomic and `_exit`.
    unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    let statement = |code: u32, k: u32, jt: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    // The number of the call is the first word of seccomp_data.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_exit_group as u32,
            1,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_TRAP, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: no memory is involved.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let filter = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program outlives the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program) };
    unprivileged == 0 && set == 0
}

/// An allocator is a Rust value, which safe code may move. Its blocks stay where they are.
#[test]
fn moved_between_calls() {
    case(|| {
        let first = Box::leak(Box::new(ThresholdAlloc::new(SHORT)));
        let sizes = [100, 3000, 100, 40_000, 500];
        let new = |allocator: &ThresholdAlloc, size| alloc_from(allocator, layout(size, ALIGN));
        let live = sizes.map(|size| {
            let [block, freed, _other] = [(); 3].map(|()| new(first, size));
            free_to(first, freed);
            block.fill(size);
            block
        });
        // The first place stays valid, because handlers of fork may use it, and contains an allocator without a heap.
        let moved = std::mem::replace(first, ThresholdAlloc::new(SHORT));
        let second: &ThresholdAlloc = Box::leak(Box::new(moved));
        let child = fork_child(|| {
            traces::expect_progress_every(traces::LIMIT);
            let blocks: Vec<_> = sizes
                .repeat(3)
                .into_iter()
                .map(|size| new(second, size))
                .collect();
            let all = [&live[..], &blocks[..]].concat();
            let overlap =
                |index: usize, block: &Block| all[..index].iter().any(|one| one.overlaps(block));
            if all
                .iter()
                .enumerate()
                .any(|(index, block)| overlap(index, block))
            {
                exit_now(SAME_BLOCK);
            }
            all.into_iter().for_each(|block| free_to(second, block));
        });
        let how = match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => return,
            Ok(WaitStatus::Exited(_, SAME_BLOCK)) => "two of its live blocks overlapped".to_owned(),
            Ok(status) => format!("the process {}", describe(status)),
            Err(error) => judge::fail(format!("waitpid: {error}")),
        };
        judge::fail(format!(
            "An allocator with live and free blocks was moved to another address, and used there. Then {how}. Keep no \
             pointer to the allocator, or to a part of it such as the head of a list."
        ));
    })
}

/// A neighbour of a block that is freed twice.
#[derive(Clone, Copy, PartialEq)]
pub enum Neighbour {
    None,
    Live,
    Free,
}

#[test]
fn a_double_free_aborts() {
    case(|| {
        // Ends the case here if a stage before this one is not written yet. The children have separate heaps.
        ALLOC.heap_range();
        for_each_place(&|what, block| expect_abort_if_freed_twice(what, block));
    })
}

/// Calls `f` with a description of each place where a block can be in the heap, and with a function that allocates
/// such a block. An answer may detect a double free in another branch for each of them.
pub fn for_each_place(f: &dyn Fn(&str, &dyn Fn() -> Block)) {
    for (size, align) in [
        (100, ALIGN),
        (1, ALIGN),
        (5000, ALIGN),
        (100_000, ALIGN),
        (100, 256),
    ] {
        for (before, first) in [
            (Neighbour::Live, "in the middle of the heap"),
            (Neighbour::None, "at the start of the heap"),
            (Neighbour::Free, "after a free block"),
        ] {
            for (after, last) in [
                (Neighbour::Live, "before a live block"),
                (Neighbour::None, "the last one of the heap"),
                (Neighbour::Free, "before a free block"),
            ] {
                let what = format!("A block of {}, {first} and {last},", amount(size));
                f(&what, &|| {
                    block_between(layout(size, align), size, before, after)
                });
            }
        }
    }
}

/// Returns a block with neighbours of this size in the heap, if the heap places blocks in order.
pub fn block_between(layout: Layout, size: usize, before: Neighbour, after: Neighbour) -> Block {
    let align = layout.align();
    let new = |neighbour| (neighbour != Neighbour::None).then(|| alloc_aligned(size, align));
    let earlier = [new(before), new(before)];
    let block = alloc_from(&ALLOC, layout);
    let later = [new(after), new(after)];
    if before == Neighbour::Free {
        earlier[1].into_iter().for_each(free);
    }
    if after == Neighbour::Free {
        later[0].into_iter().for_each(free);
    }
    block
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        free(alloc(100));
        traces::run(traces::SMALL);
        traces::run(traces::LONG);
    })
}
