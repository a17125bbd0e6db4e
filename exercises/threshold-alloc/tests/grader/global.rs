//! Stage 7, bonus: `GlobalAlloc`, threads and fork.

use std::alloc::GlobalAlloc;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

/// The program's global allocator: `ALLOC` while `ON` is set, otherwise the system allocator.
struct Switch;

static ON: AtomicBool = AtomicBool::new(false);

/// Whether this process ends when a call of `ALLOC` calls the global allocator.
static EXITS_IF_CALLED: AtomicBool = AtomicBool::new(false);

/// Whether a call of `ALLOC` has called the global allocator.
static CALLED_ITSELF: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread is inside a call of `ALLOC`.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call of `ALLOC`.
fn inside<R>(call: impl FnOnce() -> R) -> R {
    INSIDE.set(true);
    let result = call();
    INSIDE.set(false);
    result
}

/// The minimum size of the header in front of each block. Its first word records which allocator the block is from.
const HEADER: usize = 64;

impl Switch {
    /// Returns `layout` with a header in front, and the offset of the block behind it. `None` if that is too large.
    fn with_header(layout: Layout) -> Option<(Layout, usize)> {
        let offset = HEADER.max(layout.align());
        let size = layout.size().checked_add(offset)?;
        let total = Layout::from_size_align(size, layout.align().max(8)).ok()?;
        Some((total, offset))
    }
}

// SAFETY: each block comes from the allocator that its header names, and goes back to the same one.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((total, offset)) = Switch::with_header(layout) else {
            return std::ptr::null_mut();
        };
        let mut on = ON.load(SeqCst);
        if on && INSIDE.get() {
            if EXITS_IF_CALLED.load(SeqCst) {
                exit_now(ALLOCATED);
            }
            // The system allocator serves this call, which would otherwise recurse without end.
            CALLED_ITSELF.store(true, SeqCst);
            on = false;
        }
        let start = match on {
            // SAFETY: the size is not 0, because of the header.
            true => inside(|| unsafe { GlobalAlloc::alloc(&ALLOC, total) }),
            // SAFETY: as above.
            false => unsafe { std::alloc::System.alloc(total) },
        };
        if start.is_null() {
            return start;
        }
        // SAFETY: the header has room for an aligned word.
        unsafe { start.cast::<usize>().write(usize::from(on)) };
        start.wrapping_add(offset)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((total, offset)) = Switch::with_header(layout) else {
            // `alloc` returned null for this layout. A panic would unwind out of the allocator.
            std::process::abort();
        };
        let start = block.wrapping_sub(offset);
        // SAFETY: `alloc` wrote this word.
        match unsafe { start.cast::<usize>().read() } {
            // SAFETY: the block is from this allocator, with this layout.
            0 => unsafe { std::alloc::System.dealloc(start, total) },
            // SAFETY: as above.
            _ => inside(|| unsafe { GlobalAlloc::dealloc(&ALLOC, start, total) }),
        }
    }
}

#[global_allocator]
static GLOBAL: Switch = Switch;

/// Allocates and frees one block through `GlobalAlloc`. Ends the case here if stage 7 is not written yet.
fn expect_global_alloc() {
    let layout = layout(100, ALIGN);
    // SAFETY: `layout` returns no layout of size 0.
    let start = unsafe { GlobalAlloc::alloc(&ALLOC, layout) };
    let block = expect_block(start, layout, "GlobalAlloc::alloc");
    block.fill(1);
    // SAFETY: the block is from this allocator, with this layout.
    unsafe { GlobalAlloc::dealloc(&ALLOC, start, layout) };
}

/// Makes random calls and checks the contents of every block. Several threads may run this at the same time.
fn random_calls(seed: u64, calls: usize, largest: usize) {
    let mut random = Random(seed);
    let mut live: [Option<(Block, usize)>; 50] = [None; 50];
    for call in 0..calls {
        let slot = &mut live[random.below(50)];
        match slot.take() {
            Some((block, seed)) => {
                block.expect(seed, OVERLAP);
                free(block);
            }
            None => {
                let block = alloc(1 + random.below(largest));
                block.fill(call);
                *slot = Some((block, call));
            }
        }
    }
    for (block, seed) in live.into_iter().flatten() {
        block.expect(seed, OVERLAP);
        free(block);
    }
}

#[test]
fn through_the_trait() {
    case(|| {
        expect_global_alloc();
        for (size, new) in [1, 100, 10_000, LARGE]
            .into_iter()
            .flat_map(|size| [(size, 2 * size), (size, 2 * size + 1)])
        {
            let old_layout = layout(size, ALIGN);
            // SAFETY: `layout` returns no layout of size 0.
            let start = unsafe { GlobalAlloc::alloc_zeroed(&ALLOC, old_layout) };
            let block = expect_block(start, old_layout, "GlobalAlloc::alloc_zeroed");
            block.expect_zeros("GlobalAlloc::alloc_zeroed");
            block.fill(3);
            // SAFETY: the block is live, and the new size is not 0.
            let start = unsafe { GlobalAlloc::realloc(&ALLOC, start, old_layout, new) };
            let grown = expect_block(start, layout(new, ALIGN), "GlobalAlloc::realloc");
            let kept = grown.prefix(size);
            kept.expect(3, "realloc must keep the contents.");
            check!(
                grown.mapped() >= new,
                "GlobalAlloc::realloc to {} returned a block of which only a part is mapped. Pass on the new size.",
                amount(new)
            );
            // SAFETY: the block is live, and this is its layout.
            unsafe { GlobalAlloc::dealloc(&ALLOC, grown.start, grown.layout) };
        }
        expect_nothing_mapped(&ALLOC);
    })
}

#[test]
fn frees_through_the_trait() {
    case(|| {
        expect_global_alloc();
        let before = heap();
        for size in [100, 60_000].repeat(500) {
            let layout = layout(size, ALIGN);
            // SAFETY: `layout` returns no layout of size 0.
            let start = unsafe { GlobalAlloc::alloc(&ALLOC, layout) };
            let block = expect_block(start, layout, "GlobalAlloc::alloc");
            // SAFETY: the block is from this allocator, with this layout.
            unsafe { GlobalAlloc::dealloc(&ALLOC, block.start, layout) };
        }
        let moved = heap().end.saturating_sub(before.end);
        check!(
            moved <= 256 * KIB,
            "1000 blocks were allocated and freed through GlobalAlloc, one after the other, and the break moved up by {}; \
             expected at most 256 KiB. Free the block in GlobalAlloc::dealloc.",
            amount(moved)
        );
    })
}

#[test]
fn aborts_without_allocating() {
    case(|| {
        expect_global_alloc();
        expect_abort(
            "A block of the program's global allocator",
            || alloc(100),
            |block| {
                EXITS_IF_CALLED.store(true, SeqCst);
                ON.store(true, SeqCst);
                inside(|| free(block));
            },
        );
    })
}

#[test]
fn aborts_without_a_lock_of_std() {
    case(|| {
        expect_global_alloc();
        static DONE: AtomicBool = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let holder = thread::spawn(move || {
            let _stdout = std::io::stdout().lock();
            sender.send(()).unwrap();
            while !DONE.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        receiver.recv().unwrap();
        let child = fork_child(|| {
            traces::expect_progress_every(traces::LIMIT);
            let block = alloc(100);
            free(block);
            free(block);
        });
        let status = waitpid(child, None);
        DONE.store(true, SeqCst);
        holder.join().unwrap();
        check!(
            !status.is_ok_and(traces::hangs),
            "A block was freed twice in a row while another thread was printing, and dealloc neither aborted nor \
             returned. println! locks stdout, and its buffer is allocated. Write a fixed message with write(2), and call \
             abort."
        );
    })
}

#[test]
fn a_program_with_threads() {
    case(|| {
        expect_global_alloc();
        ON.store(true, SeqCst);
        let (sender, receiver) = mpsc::channel();
        let threads: Vec<_> = (0..4u64)
            .map(|number| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for item in 0..300u64 {
                        let words: Vec<String> = (0..item % 20)
                            .map(|word| format!("{number}-{item}-{word}"))
                            .collect();
                        sender.send((number * 1000 + item, words)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        // This thread frees what the others have allocated.
        let mut table: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (key, words) in receiver {
            table.insert(key, words);
            if table.len() > 500 {
                table.pop_first();
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let text: String = table.values().flatten().map(String::as_str).collect();
        let intact = table.iter().all(|(key, words)| {
            let (number, item) = (key / 1000, key % 1000);
            let mut words = words.iter().enumerate();
            words.all(|(word, text)| *text == format!("{number}-{item}-{word}"))
        });
        drop(table);
        ON.store(false, SeqCst);
        check!(
            !CALLED_ITSELF.load(SeqCst),
            "As the program's global allocator, your allocator called itself inside alloc or dealloc. Use nothing there that \
             allocates: no String, no Vec, no format!, no println!."
        );
        check!(
            intact && !text.is_empty(),
            "A program with four threads used the allocator, and the contents of its strings changed. Protect the \
             heap with a lock."
        );
    })
}

#[test]
fn four_threads_at_once() {
    case(|| {
        expect_global_alloc();
        in_threads(4, |seed| random_calls(seed as u64, 6000, 2000));
        // With a low threshold, mapped blocks cost few page faults.
        ALLOC.set_threshold(20_000);
        in_threads(4, |seed| random_calls(seed as u64, 150, 60_000));
        check!(
            ALLOC.stats().mapped_blocks == 0,
            "Four threads have freed all of their blocks, and stats().mapped_blocks is {}; expected 0. Change the counter \
             in one atomic step.",
            ALLOC.stats().mapped_blocks
        );
    })
}

#[test]
fn the_cap_holds() {
    case(|| {
        expect_global_alloc();
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        ALLOC.set_max_maps(1);
        free(alloc(100));
        in_threads(4, |_| {
            for _ in 0..50 {
                let block = alloc(LARGE);
                if !block.is_in(&reserved()) {
                    let live = LIVE.fetch_add(1, SeqCst) + 1;
                    MOST.fetch_max(live, SeqCst);
                    thread::yield_now();
                    LIVE.fetch_sub(1, SeqCst);
                }
                free(block);
            }
        });
        let most = MOST.load(SeqCst);
        check!(
            most <= 1,
            "With a cap of 1, {most} blocks were mapped at the same time. Compare the count with the cap and raise it \
             in one atomic step, before you call mmap."
        );
    })
}

/// Returns a range that includes the heap, although other threads move the break.
fn reserved() -> Range<usize> {
    let start = heap().start;
    start..start + 64 * MIB
}

type Code = fn(&ThresholdAlloc) -> Vec<Block>;

/// Allocates blocks from the heap.
fn allocate(allocator: &ThresholdAlloc) -> Vec<Block> {
    let sizes = [100, 50_000, 100_000, 1000].into_iter();
    sizes
        .map(|size| alloc_from(allocator, layout(size, ALIGN)))
        .collect()
}

/// Allocates blocks from the heap, and frees some of them.
fn allocate_and_free(allocator: &ThresholdAlloc) -> Vec<Block> {
    let mut blocks = allocate(allocator);
    free_to(allocator, blocks.remove(1));
    free_to(allocator, blocks.remove(0));
    blocks.extend(allocate(allocator));
    blocks
}

/// An allocator that no thread has used before. It is never dropped, so the process's handlers for fork may keep its
/// address.
pub fn fresh() -> &'static ThresholdAlloc {
    Box::leak(Box::new(ThresholdAlloc::new(SHORT)))
}

#[test]
fn two_threads_in_the_heap() {
    case_with(Limits::with_steps(), || {
        expect_global_alloc();
        // Without a heap, the code reserves one first.
        let codes: [(Code, bool); 3] = [
            (allocate, true),
            (allocate_and_free, true),
            (allocate, false),
        ];
        for (code, has_heap) in codes {
            let new = || {
                let allocator = fresh();
                if has_heap {
                    free_to(allocator, alloc_from(allocator, layout(1, 1)));
                }
                allocator
            };
            let steps = |allocator| Steps::of(allocator, move || code(allocator));
            steps(new()).find_in_thread();
            for place in 0..judge::places() {
                let allocator = new();
                let (one, other) = steps(allocator).beside(place, || code(allocator));
                expect_separate(allocator, &[one, other].concat());
            }
        }
    })
}

/// Fails the case unless the blocks, which two threads have allocated, are separate blocks of the heap. Frees them.
fn expect_separate(allocator: &ThresholdAlloc, blocks: &[Block]) {
    const WHEN: &str =
        "The grader stopped a thread inside the allocator while another thread used it. Then";
    let heap = heap_of(allocator);
    for (index, block) in blocks.iter().enumerate() {
        check!(
            !blocks[..index].iter().any(|other| other.overlaps(block)),
            "{WHEN} two live blocks overlap. Protect the heap with a lock."
        );
        check!(
            block.is_in(&heap) && block.range().end <= heap.end,
            "{WHEN} a block of {} is outside the heap. Protect the heap with a lock.",
            amount(block.size())
        );
    }
    for (seed, block) in blocks.iter().enumerate() {
        block.fill(seed);
    }
    for (seed, block) in blocks.iter().enumerate() {
        block.expect(seed, OVERLAP);
        free_to(allocator, *block);
    }
}

#[test]
fn two_threads_with_mappings() {
    case_with(Limits::with_steps(), || {
        expect_global_alloc();
        let others = || {
            [1, 2, 3].map(|seed| {
                let block = alloc(150 * KIB);
                block.fill(seed);
                block
            })
        };
        let allocated = Steps::of(&ALLOC, || alloc_aligned(150 * KIB, 64 * KIB));
        free(allocated.find_in_thread());
        for place in 0..judge::places() {
            let (block, others) = allocated.beside(place, others);
            block.fill(4);
            for (seed, other) in [1, 2, 3].into_iter().zip(others) {
                check!(
                    other.mapped() >= other.size(),
                    "While one thread allocated an aligned block, pages of another thread's block were unmapped. \
                     Unmap only pages that the mapping of this block contains."
                );
                other.expect(seed, OVERLAP);
                free(other);
            }
            block.expect(4, OVERLAP);
            free(block);
        }
        let block = Mutex::new(None);
        let aligned = || alloc_aligned(150 * KIB, 64 * KIB);
        let freed = Steps::of(&ALLOC, || free(take(&block)));
        put(&block, aligned());
        freed.find_in_thread();
        for place in 0..judge::places() {
            put(&block, aligned());
            let blocks = others();
            let again = move || {
                blocks.map(|other| {
                    free(other);
                    let block = alloc(150 * KIB);
                    block.fill(5);
                    block
                })
            };
            let ((), others) = freed.beside(place, again);
            for other in others {
                check!(
                    other.mapped() >= other.size(),
                    "While one thread freed a block, pages of another thread's block were unmapped. Call munmap once, \
                     for the block's own pages."
                );
                other.expect(5, OVERLAP);
                free(other);
            }
        }
    })
}

#[test]
fn a_fork_while_a_thread_is_inside() {
    case_with(Limits::with_steps(), || {
        expect_global_alloc();
        let steps = |allocator| {
            Steps::of(allocator, move || {
                free(alloc(LARGE));
                free_to(allocator, alloc_from(allocator, layout(100_000, ALIGN)));
            })
        };
        steps(fresh()).find_in_thread();
        for place in 0..judge::places() {
            let allocator = fresh();
            let forks = || failure(fork_child_that_allocates(allocator));
            let ((), failed) = steps(allocator).beside(place, forks);
            fail_if_child_failed(failed);
        }
    })
}

/// Gives other threads time to call the allocator before a fork. The handlers that an answer registers later run before
/// this one. If they have locked the allocator, it must still be locked.
extern "C" fn wait_before_fork() {
    thread::sleep(Duration::from_micros(200));
}

#[test]
fn a_fork_among_threads() {
    case(|| {
        // SAFETY: the handler may run before any fork.
        unsafe { libc::pthread_atfork(Some(wait_before_fork), None, None) };
        expect_global_alloc();
        let allocator = fresh();
        static DONE: AtomicBool = AtomicBool::new(false);
        /// Whether the threads allocate. They pause while a child runs.
        static ACTIVE: AtomicBool = AtomicBool::new(false);
        let failed = thread::scope(|scope| {
            let threads = [0, 1].map(|seed| {
                scope.spawn(move || {
                    while !DONE.load(SeqCst) {
                        match ACTIVE.load(SeqCst) {
                            true => random_calls(seed, 100, 2000),
                            false => thread::sleep(Duration::from_micros(50)),
                        }
                    }
                })
            });
            let failed = (0..12).find_map(|_| {
                ACTIVE.store(true, SeqCst);
                thread::sleep(Duration::from_micros(200));
                let child = fork_child_that_allocates(allocator);
                ACTIVE.store(false, SeqCst);
                failure(child)
            });
            DONE.store(true, SeqCst);
            threads.into_iter().for_each(join);
            failed
        });
        fail_if_child_failed(failed);
    })
}

fn fail_if_child_failed(failed: Option<WaitStatus>) {
    if let Some(status) = failed {
        check!(
            !traces::hangs(status),
            "A process forked while another of its threads was inside the allocator, and the child's calls of the \
             allocator did not return. A lock that another thread holds stays locked in the child: hold \
             the lock during the fork (pthread_atfork)."
        );
        judge::fail(format!(
            "A process with several threads forked, and its child, which only allocated and freed blocks, {}. Hold \
             the lock during the fork (pthread_atfork), so that the child gets a consistent heap.",
            describe(status)
        ));
    }
}

fn fork_child_that_allocates(allocator: &ThresholdAlloc) -> Pid {
    fork_child(|| {
        traces::expect_progress_every(traces::LIMIT);
        random_calls(99, 50, 2000);
        free(alloc(LARGE));
        free_to(allocator, alloc_from(allocator, layout(1000, ALIGN)));
    })
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        WaitStatus::Exited(_, PANICKED) => "panicked".to_owned(),
        other => format!("ended with {other:?}"),
    }
}

/// Waits for the child. Returns its status unless it exited with 0.
pub fn failure(pid: Pid) -> Option<WaitStatus> {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, 0)) => None,
        Ok(status) => Some(status),
        Err(error) => judge::fail(format!("waitpid: {error}")),
    }
}
