//! Stage 9, bonus: a cache for each thread, so that small blocks need no lock.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::global::{self, Code, failure};
use super::*;

/// The bytes that each thread may cache.
const LIMIT: usize = 16 * KIB;

fn enable_cache() {
    ALLOC.set_thread_cache(LIMIT);
}

/// Puts 10 blocks of 100 bytes into this thread's cache.
fn fill_cache() {
    let blocks = [(); 10].map(|()| alloc(100));
    blocks.into_iter().for_each(free);
}

#[test]
fn waits_for_no_lock() {
    case(|| {
        enable_cache();
        // However often a block enters and leaves the cache, it must not fill up.
        for _ in 0..LIMIT {
            free(alloc(100));
        }
        fill_cache();
        let waited = waits_for_a_stopped_thread(40);
        check!(
            !waited,
            "One thread was stopped inside the allocator, and a second thread waited for it, although the second \
             thread had freed blocks of the size that it requested. Serve requests from the thread's cache without a \
             lock."
        );
    })
}

#[test]
fn counts_what_it_holds() {
    case(|| {
        let allocator = global::fresh();
        allocator.set_thread_cache(LIMIT);
        let (before, after) = thread::scope(|scope| {
            join(scope.spawn(|| {
                let before = room_for_blocks(allocator);
                fill_and_empty_the_cache(allocator);
                (before, room_for_blocks(allocator))
            }))
        });
        check!(
            before / 2 <= after && after / 2 <= before,
            "With a thread cache of 16 KiB, a thread's cache had room for {before} blocks of 100 bytes. The thread freed blocks \
             and allocated slightly shorter ones, in turn, and emptied the cache by further calls of alloc. Then the cache had \
             room for {after} blocks of 100 bytes; expected about as many as before. When a block leaves the cache, subtract \
             exactly the bytes that were added for it."
        );
    })
}

/// Frees blocks of 100 bytes, and returns how many of them this thread's cache keeps: those that another thread does not
/// get. The cache is empty before and afterwards.
fn room_for_blocks(allocator: &'static ThresholdAlloc) -> usize {
    let count = 2 * LIMIT / 100;
    let alloc = |count| -> Vec<_> {
        (0..count)
            .map(|_| alloc_from(allocator, layout(100, ALIGN)))
            .collect()
    };
    let freed = alloc(count);
    for block in &freed {
        free_to(allocator, *block);
    }
    let others = thread::scope(|scope| join(scope.spawn(|| alloc(2 * count))));
    let is_kept = |block: &&Block| !others.iter().any(|other| other.overlaps(block));
    let kept = freed.iter().filter(is_kept).count();
    alloc(count);
    kept
}

/// Lets blocks enter this thread's cache, and leave it for shorter layouts, if an answer keeps both in one list.
fn fill_and_empty_the_cache(allocator: &ThresholdAlloc) {
    let alloc = |size| alloc_from(allocator, layout(size, ALIGN));
    let free = |block| free_to(allocator, block);
    for round in 0..4000 {
        for long in [200, 1100, 2500] {
            free(alloc(long));
            free(alloc(long - [16, 48, 96][round % 3]));
        }
    }
    // An answer may take a longer block only if no other is cached, so take many.
    for round in 0..120 {
        for long in [200, 1100, 2500] {
            let count = LIMIT / 4 * 3 / long;
            let blocks: Vec<_> = (0..count).map(|_| alloc(long)).collect();
            blocks.into_iter().for_each(free);
            // These stay live.
            (0..2 * count).for_each(|_| {
                alloc(long - [16, 48, 96][round % 3]);
            });
        }
    }
    // More blocks of each size than the cache can hold. They stay live, so the cache is empty.
    for size in (1..=250).map(|units| 16 * units) {
        (0..LIMIT / size + 1).for_each(|_| {
            alloc(size);
        });
    }
}

/// Returns whether a thread waits although its cache is filled, while another thread is stopped inside the allocator.
///
/// This runs in a child, which ends if it hangs.
fn waits_for_a_stopped_thread(times: usize) -> bool {
    let pid = fork_child(|| {
        traces::expect_progress_every(traces::LIMIT);
        allocate_beside_a_stopped_thread(times);
    });
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, 0)) => false,
        Ok(status) if traces::hangs(status) => true,
        status => judge::fail(format!(
            "Two threads allocated and freed blocks, one with its thread cache, and the process {}.",
            status.map_or_else(|error| error.to_string(), describe)
        )),
    }
}

/// Where the stopped thread writes a byte, and where it waits for one: descriptors of two pipes.
static REPORT: AtomicI32 = AtomicI32::new(-1);
static RELEASE: AtomicI32 = AtomicI32::new(-1);

/// A signal handler that stops its thread until it is released.
extern "C" fn wait_until_released(_: libc::c_int) {
    let mut byte = 0_u8;
    // SAFETY: write(2) is async-signal-safe, and reads one byte.
    unsafe { libc::write(REPORT.load(SeqCst), (&raw const byte).cast(), 1) };
    // SAFETY: read(2) is async-signal-safe, and writes one byte.
    unsafe { libc::read(RELEASE.load(SeqCst), (&raw mut byte).cast(), 1) };
}

/// Stops a thread that only allocates and frees, `times` times, and allocates each time while it is stopped.
fn allocate_beside_a_stopped_thread(times: usize) {
    static DONE: AtomicBool = AtomicBool::new(false);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let (mut reports, report) = io::pipe().unwrap();
    let (released, mut release) = io::pipe().unwrap();
    REPORT.store(report.as_raw_fd(), SeqCst);
    RELEASE.store(released.as_raw_fd(), SeqCst);
    let handler = wait_until_released as extern "C" fn(libc::c_int);
    // SAFETY: the handler is async-signal-safe: it uses only atomics, read(2) and write(2).
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // An answer may discard the cache when it forks.
    fill_cache();
    let (sender, receiver) = mpsc::channel();
    let other = thread::spawn(move || {
        // SAFETY: pthread_self(3) always succeeds.
        sender.send(unsafe { libc::pthread_self() }).unwrap();
        while !DONE.load(SeqCst) {
            // Too large for the cache, so each call takes the lock.
            free(alloc(2 * LIMIT));
            CALLS.fetch_add(1, SeqCst);
        }
    });
    let other_id = receiver.recv().unwrap();
    for _ in 0..times {
        traces::progress();
        // A signal that is sent too early would stop the thread where it was stopped before.
        let calls = CALLS.load(SeqCst);
        while CALLS.load(SeqCst) == calls {
            // Without a sleep the other thread would run for a whole time slice.
            thread::sleep(Duration::from_micros(20));
        }
        // SAFETY: the thread has not been joined, so its id is valid.
        unsafe { libc::pthread_kill(other_id, libc::SIGUSR1) };
        reports.read_exact(&mut [0]).unwrap();
        for _ in 0..10 {
            let block = alloc(100);
            block.fill(1);
            free(block);
        }
        release.write_all(&[0]).unwrap();
    }
    DONE.store(true, SeqCst);
    join_thread(other);
}

#[test]
fn bounded() {
    case(|| {
        enable_cache();
        let most = most_moved();
        let moved = moved_beside_a_hoarder(|| ());
        check!(
            moved <= most,
            "With a thread cache of 16 KiB, one thread freed 10000 blocks of 200 bytes, and another thread allocated \
             10000 more. The break moved up by {}; expected at most {}. Return to the heap what the cache may \
             not keep.",
            amount(moved),
            amount(most)
        );
    })
}

#[test]
fn off_with_a_limit_of_0() {
    case(|| {
        ALLOC.set_thread_cache(0);
        let allocate = || (0..1000).map(|_| alloc(200)).collect::<Vec<_>>();
        let mut blocks = allocate();
        let before = heap().end;
        // Each of these threads lives on, and what it frees is little: the break may move down and up with much.
        let hoarders: Vec<_> = (0..16)
            .map(|_| {
                let freed = std::mem::take(&mut blocks);
                let (done, is_done) = mpsc::channel();
                let (end, ended) = mpsc::channel::<()>();
                let hoarder = thread::spawn(move || {
                    freed.into_iter().for_each(free);
                    done.send(()).unwrap();
                    let _ = ended.recv();
                });
                let hoarder = wait_for(&is_done, hoarder);
                blocks = allocate();
                (end, hoarder)
            })
            .collect();
        let most = most_moved();
        let moved = heap().end.saturating_sub(before);
        for (end, hoarder) in hoarders {
            drop(end);
            join_thread(hoarder);
        }
        check!(
            moved <= most,
            "With a thread cache of 0 bytes, 16 threads freed 1000 blocks of 200 bytes each, and after each of them another \
             thread allocated as many. The break moved up by {}; expected at most {}. With a limit of 0, return every \
             block to the heap.",
            amount(moved),
            amount(most)
        );
    })
}

#[test]
fn bounded_anew() {
    case(|| {
        ALLOC.set_thread_cache(MIB);
        let most = most_moved();
        let moved = moved_beside_a_hoarder(enable_cache);
        check!(
            moved <= most,
            "set_thread_cache changed the limit from 1 MiB to 16 KiB. Then one thread, which had used its cache before, \
             freed 10000 blocks of 200 bytes, and another thread allocated 10000 more. The break moved up by {}; expected \
             at most {}. The new limit holds for every thread.",
            amount(moved),
            amount(most)
        );
    })
}

/// Waits until a thread has sent something. If it has panicked instead, so does this one.
fn wait_for(receiver: &mpsc::Receiver<()>, thread: JoinHandle<()>) -> JoinHandle<()> {
    if receiver.recv().is_err() {
        join_thread(thread);
        judge::fail("A thread that freed blocks ended before it had freed all of them.".to_owned());
    }
    thread
}

/// Frees blocks in a thread that lives on, and allocates as many in this one. Returns by how much the break moves up.
/// The other thread has freed one block before it calls `change`.
fn moved_beside_a_hoarder(change: fn()) -> usize {
    let (sender, receiver) = mpsc::channel::<Block>();
    let (done, is_done) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let hoarder = thread::spawn(move || {
        receiver.iter().take(1).for_each(free);
        change();
        receiver.into_iter().for_each(free);
        done.send(()).unwrap();
        let _ = ended.recv();
    });
    let blocks: Vec<_> = (0..10_000).map(|_| alloc(200)).collect();
    let before = heap().end;
    for block in blocks {
        if sender.send(block).is_err() {
            break; // The other thread has panicked.
        }
    }
    drop(sender);
    let hoarder = wait_for(&is_done, hoarder);
    let blocks: Vec<_> = (0..10_000).map(|_| alloc(200)).collect();
    let moved = heap().end.saturating_sub(before);
    blocks.into_iter().for_each(free);
    drop(end);
    join_thread(hoarder);
    moved
}

#[test]
fn bounded_for_all_sizes_together() {
    case(|| {
        const LIMIT: usize = 256 * KIB;
        ALLOC.set_thread_cache(LIMIT);
        let (sender, receiver) = mpsc::channel::<Vec<Block>>();
        let (done, is_done) = mpsc::channel();
        let mut hoarder = thread::spawn(move || {
            for blocks in receiver {
                blocks.into_iter().for_each(free);
                done.send(()).unwrap();
            }
        });
        let (mut moved, mut highest) = (0, 0);
        for size in [50, 100, 150, 200, 300, 400, 600, 800] {
            let new = || -> Vec<_> { (0..2 * LIMIT / size).map(|_| alloc(size)).collect() };
            let end = |blocks: &[Block]| blocks.iter().map(|block| block.range().end).max();
            let blocks = new();
            highest = highest.max(end(&blocks).unwrap_or(0));
            let start = blocks.iter().map(|block| block.range().start).min();
            let each = (end(&blocks).unwrap_or(0) - start.unwrap_or(0)) / blocks.len();
            let before = heap().end;
            let _ = sender.send(blocks);
            hoarder = wait_for(&is_done, hoarder);
            // They stay live, so that the heap has nothing else that is free.
            let last = end(&new()).unwrap_or(0);
            // The break may move by more than a block needs, and memory that is still unused may be taken first.
            let grown = heap().end.saturating_sub(before);
            // A block may take more memory than its size, and the cache may count its size only.
            moved += grown.min(last.saturating_sub(highest)) * size / each;
            highest = highest.max(last);
        }
        drop(sender);
        join_thread(hoarder);
        check!(
            moved <= 3 * LIMIT,
            "With a thread cache of 256 KiB, one thread freed 512 KiB of blocks of each of 8 sizes, and another thread \
             allocated as many again. The heap grew by {}; expected at most 768 KiB. Count the bytes of all cached \
             blocks together.",
            amount(moved / KIB * KIB)
        );
    })
}

/// Fails the case unless a full heap, in which this many blocks were freed, has room for as many again.
fn expect_back(allocator: &ThresholdAlloc, layout: Layout, freed: usize, what: &str, why: &str) {
    let back = the_rest(allocator, layout).len();
    check!(
        back >= freed,
        "{what}. Another thread then got {back} of these {freed} blocks from the heap, which was full before; expected all \
         of them. {why}"
    );
}

#[test]
fn no_block_beyond_the_limit() {
    case(|| {
        let layout = layout(200, ALIGN);
        // Less than one block.
        for limit in [1, 199] {
            let (allocator, blocks) = full(layout);
            allocator.set_thread_cache(limit);
            let threads = 8;
            let (freed, counted) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
            thread::scope(|scope| {
                for block in blocks.into_iter().take(threads) {
                    let (freed, counted) = (&freed, &counted);
                    scope.spawn(move || {
                        free_to(allocator, block);
                        freed.wait();
                        counted.wait();
                    });
                }
                freed.wait();
                let back = the_rest(allocator, layout).len();
                counted.wait();
                check!(
                    back >= threads,
                    "With a thread cache of {}, each of 8 threads freed a block of 200 bytes in a full heap. Another thread \
                     then got {back} of these 8 blocks; expected all of them. Compare the limit with the bytes that the \
                     cache would hold, the new block included.",
                    amount(limit)
                );
            });
        }
    })
}

#[test]
fn returned_although_the_cache_is_off() {
    case(|| {
        const WHY: &str = "A cache that is off may still hold blocks, and they belong to the heap.";
        let layout = layout(200, ALIGN);
        let count = 20;
        let cached = move || {
            let (allocator, blocks) = full(layout);
            allocator.set_thread_cache(LIMIT);
            let few = blocks.into_iter().take(count);
            few.for_each(|block| free_to(allocator, block));
            allocator.set_thread_cache(0);
            allocator
        };
        let allocator = join_thread(thread::spawn(cached));
        let what =
            "A thread cached 20 blocks of 200 bytes, the limit was set to 0, and the thread ended";
        expect_back(allocator, layout, count, what, WHY);
        if !traces::trims() {
            return;
        }
        let allocator = cached();
        allocator.trim();
        let what = "A thread cached 20 blocks of 200 bytes, the limit was set to 0, and the thread called trim()";
        join_thread(thread::spawn(move || {
            expect_back(allocator, layout, count, what, WHY);
        }));
    })
}

/// Blocks of another allocator that a thread-local variable frees when its thread ends.
struct Rest(Cell<Option<(&'static ThresholdAlloc, Vec<Block>)>>);

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some((allocator, blocks)) = self.0.take() {
            blocks
                .into_iter()
                .for_each(|block| free_to(allocator, block));
        }
    }
}

thread_local! {
    static REST_BEFORE: Rest = const { Rest(Cell::new(None)) };
    static REST_AFTER: Rest = const { Rest(Cell::new(None)) };
}

#[test]
fn a_thread_that_ends_caches_nothing() {
    case(|| {
        let layout = layout(200, ALIGN);
        let (allocator, blocks) = full(layout);
        allocator.set_thread_cache(LIMIT);
        // The destructors of the variables run before and after that of the cache, in an order that std chooses.
        let parts = [0..20, 20..40, 40..60].map(|part| blocks[part].to_vec());
        let [before, inside, after] = parts;
        join_thread(thread::spawn(move || {
            REST_BEFORE.with(|rest| rest.0.set(Some((allocator, before))));
            inside
                .into_iter()
                .for_each(|block| free_to(allocator, block));
            REST_AFTER.with(|rest| rest.0.set(Some((allocator, after))));
        }));
        let what = "A thread cached 20 blocks of 200 bytes, and while it ended, destructors of two thread-local variables freed \
                    40 more";
        let why = "Once the thread's cache is destroyed, return blocks to the heap.";
        expect_back(allocator, layout, 60, what, why);
    })
}

#[test]
fn a_header_that_two_threads_change() {
    case(|| {
        enable_cache();
        fill_cache();
        let new = |allocator, size| alloc_from(allocator, layout(size, ALIGN));
        let prepare = || {
            let allocator = global::fresh();
            allocator.set_thread_cache(2000);
            let [before, block, after] = [3000, 100, 100].map(|size| new(allocator, size));
            after.fill(2);
            // The cache has no room for it, so the heap knows that the memory before the block is free.
            free_to(allocator, before);
            (allocator, block, after)
        };
        // Where an answer may keep a header: the tracer watches only its address.
        type Header = [AtomicUsize; 16];
        let header = |block: Block| {
            let start = block.start.wrapping_sub(64).cast::<Header>();
            // SAFETY: the memory belongs to the heap, before and in the block, and is never unmapped.
            unsafe { &*start }
        };
        let (allocator, block, _) = prepare();
        let freed = Mutex::new(Some(block));
        Steps::of(header(block), || free_to(allocator, take(&freed))).find_in_thread();
        let free_beside = |place| {
            let (allocator, block, after) = prepare();
            let freed = Mutex::new(Some(block));
            let steps = Steps::of(header(block), || free_to(allocator, take(&freed)));
            let ((), taken) = steps.beside(place, || {
                let taken = new(allocator, 3000);
                taken.fill(1);
                taken
            });
            // The first thread has ended, so its cached block is back in the heap.
            let others = [100, 3000, 100].map(|size| new(allocator, size));
            others.iter().for_each(|other| other.fill(3));
            taken.expect(1, OVERLAP);
            after.expect(2, OVERLAP);
            expect_disjoint(&[&others[..], &[taken, after]].concat());
            others
                .into_iter()
                .chain([taken, after])
                .for_each(|block| free_to(allocator, block));
        };
        for place in 0..judge::places() {
            let failed = failure(fork_child(|| free_beside(place)));
            check!(
                failed.is_none(),
                "The grader stopped a thread that freed a block into its cache, while another thread allocated the free \
                 memory before that block. Then the process crashed, or a block was overwritten. Both threads change the \
                 block's header: do that under the lock, or in atomic steps."
            );
        }
    })
}

/// Allocates and frees when its thread ends.
struct Late;

impl Drop for Late {
    fn drop(&mut self) {
        let block = alloc(100);
        block.fill(1);
        free(block);
    }
}

thread_local! {
    static EARLIER: Late = const { Late };
    static LATER: Late = const { Late };
}

#[test]
fn used_while_a_thread_ends() {
    case(|| {
        enable_cache();
        fill_cache();
        let child = fork_child(|| {
            let thread = thread::spawn(|| {
                // Whichever is destroyed first: one of the two uses the allocator after its cache is gone.
                EARLIER.with(|_| ());
                fill_cache();
                LATER.with(|_| ());
            });
            join_thread(thread);
        });
        let how = match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => return,
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            _ => "panicked".to_owned(),
        };
        judge::fail(format!(
            "A destructor of a thread-local variable allocated and freed a block while its thread ended, and the process \
             {how}. Where the thread's cache is destroyed already, use the heap: LocalKey::try_with does not panic."
        ));
    })
}

#[test]
fn a_thread_that_ends_returns_its_blocks() {
    case(|| {
        enable_cache();
        let round = || {
            let blocks: Vec<_> = (0..100).map(|_| alloc(150)).collect();
            blocks.into_iter().for_each(free);
        };
        join_thread(thread::spawn(round));
        let before = heap().end;
        for _ in 0..30 {
            join_thread(thread::spawn(round));
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= 128 * KIB,
            "30 threads, one after the other, allocated and freed 100 blocks each, and the break moved up by {}; \
             expected at most 128 KiB. Return a thread's cached blocks to the heap when it ends.",
            amount(moved)
        );
    })
}

#[test]
fn a_thread_returns_the_blocks_of_each_allocator() {
    case(|| {
        let allocators = [(); 3].map(|()| global::fresh());
        for allocator in allocators {
            allocator.set_thread_cache(LIMIT);
        }
        let trims = traces::trims();
        let fill = move || {
            for allocator in allocators {
                let layout = layout(150, ALIGN);
                let blocks: Vec<_> = (0..90).map(|_| alloc_from(allocator, layout)).collect();
                blocks
                    .into_iter()
                    .for_each(|block| free_to(allocator, block));
            }
        };
        join_thread(thread::spawn(fill));
        let before = allocators.map(|allocator| heap_of(allocator).end);
        for _ in 0..30 {
            join_thread(thread::spawn(fill));
        }
        for (allocator, before) in allocators.into_iter().zip(before) {
            let moved = heap_of(allocator).end.saturating_sub(before);
            check!(
                moved <= 128 * KIB,
                "30 threads, one after the other, allocated and freed 90 blocks of each of three allocators, and the break of \
                 one of them moved up by {}; expected at most 128 KiB. When a thread ends, return the cached blocks of every \
                 allocator that it has used.",
                amount(moved)
            );
        }
        if !trims {
            return;
        }
        fill();
        for allocator in allocators {
            allocator.trim();
            let left = heap_of(allocator).len();
            check!(
                left <= 64 * KIB,
                "A thread had cached blocks of three allocators, and trim() of one of them left a heap of {}; expected at most \
                 64 KiB. Return this thread's cached blocks of that allocator to its heap in trim().",
                amount(left)
            );
        }
    })
}

#[test]
fn a_thread_that_ends_returns_every_size() {
    case(|| {
        // Room for everything that a thread frees.
        ALLOC.set_thread_cache(8 * MIB);
        let round = || {
            let sizes = (1..=128).map(|units| units * 16);
            let blocks = sizes.flat_map(|size| (0..16 * KIB / size).map(move |_| alloc(size)));
            let blocks: Vec<_> = blocks.collect();
            blocks.into_iter().for_each(free);
        };
        join_thread(thread::spawn(round));
        let before = heap().end;
        for _ in 0..20 {
            join_thread(thread::spawn(round));
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= 128 * KIB,
            "20 threads, one after the other, allocated and freed 16 KiB of blocks of each size from 16 to 2048 bytes, and \
             the break moved up by {}; expected at most 128 KiB. Return the cached blocks of every size to the heap when a \
             thread ends.",
            amount(moved)
        );
    })
}

#[test]
fn freed_by_another_thread() {
    case(|| {
        enable_cache();
        let (sender, receiver) = mpsc::channel::<(Block, usize)>();
        thread::scope(|scope| {
            let consumer = scope.spawn(move || {
                for (block, seed) in receiver {
                    block.expect(seed, OVERLAP);
                    free(block);
                }
            });
            let mut random = Random(41);
            for number in 0..10_000 {
                let block = alloc(1 + random.below(300));
                block.fill(number);
                if sender.send((block, number)).is_err() {
                    break; // A check has failed in the other thread.
                }
            }
            drop(sender);
            join(consumer);
        });
    })
}

#[test]
fn separate_for_each_allocator() {
    case(|| {
        static OTHER: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: 64 * MIB,
            ..Config::new()
        });
        enable_cache();
        OTHER.set_thread_cache(LIMIT);
        fill_cache();
        for _ in 0..10 {
            let block = alloc_from(&OTHER, layout(100, ALIGN));
            check!(
                block.is_in(&OTHER.heap_range().unwrap_or_default()),
                "An allocator returned a block from the heap of another allocator. Keep separate caches for different \
                 allocators, or cache the blocks of one only."
            );
        }
    })
}

#[test]
fn beside_others() {
    case(|| {
        enable_cache();
        fill_cache();
        type Allocator = &'static ThresholdAlloc;
        fn six_blocks(allocator: Allocator, limit: usize) -> Vec<Block> {
            let new = |size| alloc_from(allocator, layout(size, ALIGN));
            let before = new(3000);
            let blocks = [100; 6].map(new);
            // The heap joins the blocks with this one.
            free_to(allocator, before);
            allocator.set_thread_cache(limit);
            blocks.to_vec()
        }
        fn free_all(allocator: Allocator, blocks: Vec<Block>) -> Vec<Block> {
            let free = |block| free_to(allocator, block);
            blocks.into_iter().for_each(free);
            Vec::new()
        }
        // With room for all blocks, nothing waits for a lock before the cache returns them.
        let code = |name, calls| Code {
            name,
            prepare: |allocator| six_blocks(allocator, 2000),
            calls,
            check: |_| (),
            free: |allocator, block| free_to(allocator, block),
        };
        let full = Code {
            prepare: |allocator| six_blocks(allocator, 300),
            ..code("dealloc with a full thread cache", free_all)
        };
        global::stop_inside(&full, false);
        global::stop_another(&full);
        if traces::trims() {
            let trims = code("trim with cached blocks", |allocator, blocks| {
                free_all(allocator, blocks);
                allocator.trim();
                Vec::new()
            });
            global::stop_inside(&trims, false);
            global::stop_another(&trims);
        }
        let ends = |allocator, blocks| {
            thread::scope(|scope| join(scope.spawn(|| free_all(allocator, blocks))))
        };
        global::stop_another(&code("the destructor of its thread cache", ends));
    })
}

#[test]
fn trim_empties_the_cache() {
    case(|| {
        enable_cache();
        let blocks: Vec<_> = (0..5000).map(|_| alloc(100)).collect();
        // The blocks at the end of the heap are freed first, so the cache keeps these.
        blocks.into_iter().rev().for_each(free);
        ALLOC.trim();
        let left = heap().len();
        check!(
            left <= 64 * KIB,
            "Every block was freed, and trim() left a heap of {}; expected at most 64 KiB. Return this thread's \
             cached blocks to the heap in trim().",
            amount(left)
        );
        fill_cache();
        check!(
            !waits_for_a_stopped_thread(15),
            "After trim(), one thread was stopped inside the allocator, and a second thread waited for it, although \
             the second thread had freed blocks of the size that it requested. The cache must still work after \
             trim()."
        );
    })
}

#[test]
fn alignments() {
    case(|| {
        enable_cache();
        let mut random = Random(43);
        let mut blocks = Vec::new();
        for _ in 0..20 {
            // The same sizes with other alignments, from a cache that has them.
            for size in [1, 16, 24, 40, 100, 200, 500] {
                for align in [1, ALIGN, 32, 64, 256, 4 * KIB] {
                    let block = alloc_aligned(size, align);
                    block.fill(blocks.len());
                    blocks.push(block);
                }
            }
            expect_disjoint(&blocks);
            for (seed, block) in blocks.iter().enumerate() {
                block.expect(seed, OVERLAP);
            }
            random.shuffle(&mut blocks);
            blocks.drain(..).for_each(free);
        }
    })
}

#[test]
fn a_longer_block_after_a_shorter_one() {
    case(|| {
        enable_cache();
        let blocks = || {
            reuse::longer_after_shorter(ALIGN);
            reuse::longer_after_shorter(1);
        };
        // The cached blocks return to the heap when the thread ends, and are reused from there.
        let child = fork_child(|| {
            thread::scope(|scope| join(scope.spawn(blocks)));
            blocks();
        });
        if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
            judge::fail(format!(
                "A thread freed blocks of all sizes up to 300 bytes, allocated slightly longer ones, and ended. Then \
                 the process was killed by {signal}. A block from the cache must be long enough for the new layout."
            ));
        }
        blocks();
    })
}

#[test]
fn a_double_free_aborts() {
    case(|| {
        enable_cache();
        for_each_place(&|what, block| expect_abort_if_freed_twice(what, block));
    })
}

/// Like `reuse::for_each_place`, for blocks that a thread cache takes, or has no room for.
pub fn for_each_place(f: &dyn Fn(&str, &dyn Fn() -> Block)) {
    for size in [1, 100, 5000] {
        let what = format!("With a thread cache, a block of {}", amount(size));
        f(&what, &|| {
            enable_cache();
            alloc(size)
        });
        let what = format!(
            "With a thread cache that has others of its size, a block of {}",
            amount(size)
        );
        f(&what, &|| {
            enable_cache();
            let blocks = [(); 3].map(|()| alloc(size));
            free(blocks[0]);
            free(blocks[1]);
            blocks[2]
        });
    }
    // One of these numbers fills the cache, whatever the heap adds to a block.
    for before in LIMIT / 1000 - 4..=LIMIT / 1000 {
        let what = "With a thread cache that it filled, a block of 1000 bytes";
        f(what, &|| {
            enable_cache();
            let blocks: Vec<_> = (0..before).map(|_| alloc(1000)).collect();
            let block = alloc(1000);
            blocks.into_iter().for_each(free);
            block
        });
    }
}

/// Whether thread caches are written.
pub fn is_written() -> bool {
    traces::is_written(enable_cache)
}

#[test]
fn not_for_blocks_from_the_threshold_on() {
    case(|| {
        enable_cache();
        fill_cache();
        ALLOC.set_threshold(100);
        let block = alloc(100);
        check!(
            !block.is_in(&heap()),
            "A thread freed blocks of 100 bytes, which its cache keeps. Then the threshold was set to 100, and a new \
             block of 100 bytes is in the heap; expected a separate mapping. Compare the size with the threshold \
             before you use the cache."
        );
        free(block);
        ALLOC.set_threshold(101);
        let block = alloc(100);
        check!(
            block.is_in(&heap()),
            "A mapped block of 100 bytes was freed, the threshold was set to 101, and a new block of 100 bytes is a \
             mapping; expected it in the heap. Cache blocks of the heap only."
        );
        free(block);
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn random_traces() {
    case_with(traces::limits(), || {
        enable_cache();
        free(alloc(100));
        traces::run(traces::CACHE.with_earlier_stages());
    })
}

#[test]
fn random_traces_with_settings() {
    case_with(traces::limits(), || {
        enable_cache();
        free(alloc(100));
        traces::run(traces::CACHE_SETTINGS.with_earlier_stages());
        traces::run(traces::CACHE_FULL.with_earlier_stages());
    })
}
