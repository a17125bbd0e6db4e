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
        if INSIDE.get() {
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

/// Makes random calls and checks the contents of every block. Several threads may run this at the same time. If
/// `resizes` is true, `realloc` is one of the calls.
fn random_calls_with(resizes: bool, seed: u64, calls: usize, largest: usize) {
    let mut random = Random(seed);
    let mut live: [Option<(Block, usize)>; 50] = [None; 50];
    for call in 0..calls {
        let slot = &mut live[random.below(50)];
        match slot.take() {
            Some((block, seed)) if resizes && random.below(3) == 0 => {
                block.expect(seed, OVERLAP);
                let resized = realloc(&ALLOC, block, 1 + random.below(largest));
                let kept = resized.prefix(block.size().min(resized.size()));
                kept.expect(seed, "realloc must keep the contents.");
                resized.fill(call);
                *slot = Some((resized, call));
            }
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

/// Makes random calls of `alloc` and `dealloc`.
fn random_calls(seed: u64, calls: usize, largest: usize) {
    random_calls_with(false, seed, calls, largest);
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
fn random_traces() {
    case_with(traces::limits(), || {
        expect_global_alloc();
        traces::run(traces::TRAIT.with_earlier_stages());
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
        let (moved, most) = (heap().end.saturating_sub(before.end), most_moved());
        check!(
            moved <= most,
            "1000 blocks were allocated and freed through GlobalAlloc, one after the other, and the break moved up by {}; \
             expected at most {}. Free the block in GlobalAlloc::dealloc.",
            amount(moved),
            amount(most)
        );
    })
}

/// Calls `f` for each place where a block can be in the heap or, if that is written, in a thread cache.
fn for_each_place(f: &dyn Fn(&str, &dyn Fn() -> Block)) {
    reuse::for_each_place(f);
    if cache::is_written() {
        cache::for_each_place(f);
    }
}

#[test]
fn aborts_without_allocating() {
    case(|| {
        expect_global_alloc();
        for_each_place(&|what, block| {
            expect_abort(what, block, |block| {
                EXITS_IF_CALLED.store(true, SeqCst);
                inside(|| free(block));
            });
        });
    })
}

#[test]
fn aborts_without_a_lock_of_std() {
    case(|| {
        expect_global_alloc();
        static DONE: AtomicBool = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let holder = thread::spawn(move || {
            let _locks = (std::io::stdout().lock(), std::io::stderr().lock());
            sender.send(()).expect("the case waits for it");
            while !DONE.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        receiver.recv().expect("the thread does not panic");
        let failed = Mutex::new(None);
        for_each_place(&|what, block| {
            if failed.lock().expect("nothing panics").is_some() {
                return;
            }
            let child = fork_child(|| {
                traces::expect_progress_every(traces::LIMIT);
                let block = block();
                free(block);
                free(block);
            });
            if waitpid(child, None).is_ok_and(traces::hangs) {
                *failed.lock().expect("nothing panics") = Some(what.to_owned());
            }
        });
        DONE.store(true, SeqCst);
        join_thread(holder);
        if let Some(what) = failed.into_inner().expect("nothing panics") {
            judge::fail(format!(
                "{what} was freed twice in a row while another thread was printing, and dealloc neither aborted nor \
                 returned. println! and eprintln! lock stdout and stderr, and may allocate. Write a fixed message with \
                 write(2), and call abort."
            ));
        }
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
        threads.into_iter().for_each(join_thread);
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

/// Allocates blocks and frees them, in a thread that std may not have started. It must not panic, because C calls it.
extern "C" fn allocate_as_global(_: *mut libc::c_void) -> *mut libc::c_void {
    for (size, align) in [(100, ALIGN), (5000, ALIGN), (LARGE, ALIGN), (100, 256)] {
        let layout = layout(size, align);
        // SAFETY: the size is not 0.
        let new = |()| inside(|| unsafe { GlobalAlloc::alloc(&ALLOC, layout) });
        for block in [(); 40].map(new) {
            if !block.is_null() {
                // SAFETY: the block is live, and has this layout.
                inside(|| unsafe { GlobalAlloc::dealloc(&ALLOC, block, layout) });
            }
        }
    }
    std::ptr::null_mut()
}

#[test]
fn caches_without_allocating() {
    case(|| {
        expect_global_alloc();
        if !cache::is_written() {
            return;
        }
        ALLOC.set_thread_cache(16 * KIB);
        let starts: [(&str, fn()); 2] = [
            ("thread", || {
                let allocates = || {
                    allocate_as_global(std::ptr::null_mut());
                };
                join_thread(thread::spawn(allocates));
            }),
            ("thread that pthread_create(3) had started", || {
                let mut thread = 0;
                let (none, argument) = (std::ptr::null(), std::ptr::null_mut());
                // SAFETY: `thread` outlives the call, and the function needs no argument.
                let created = unsafe {
                    libc::pthread_create(&raw mut thread, none, allocate_as_global, argument)
                };
                assert_eq!(created, 0, "pthread_create failed");
                // SAFETY: the thread is not detached, and nobody else waits for it.
                unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
            }),
        ];
        for (what, start) in starts {
            // In a child, because a panic inside the allocator aborts.
            let child = fork_child(|| {
                start();
                if CALLED_ITSELF.load(SeqCst) {
                    exit_now(ALLOCATED);
                }
            });
            let Some(status) = failure(child) else {
                continue;
            };
            check!(
                status != WaitStatus::Exited(child, ALLOCATED),
                "With a thread cache, a {what} allocated and freed blocks, and alloc or dealloc called the program's global \
                 allocator, which it may be itself. Keep the cache in the blocks, or in a fixed array, not in a Vec or a Box."
            );
            judge::fail(format!(
                "With a thread cache, a {what} allocated and freed blocks, and the process {}. Expected every call to return.",
                describe(status)
            ));
        }
    })
}

#[test]
fn fails_without_allocating() {
    judge::refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
            ("mprotect", Errno::ENOMEM),
            ("mremap", Errno::ENOMEM),
        ],
        |_| {
            expect_global_alloc();
            let (trims, resizes) = (traces::trims(), traces::resizes());
            free(alloc(LARGE));
            judge::refuse(|| {
                // In the heap, where the break moves up and down, and mappings.
                for (size, new, align) in [
                    (100_000, 120_000, ALIGN),
                    (100_000, LARGE, ALIGN),
                    (LARGE, MIB, ALIGN),
                    (LARGE, MIB, MIB),
                    (LARGE, 1000, ALIGN),
                ] {
                    let mut layout = layout(size, align);
                    // SAFETY: the size is not 0.
                    let mut block = inside(|| unsafe { ALLOC.alloc(layout) });
                    if block.is_null() {
                        continue;
                    }
                    if resizes {
                        // SAFETY: the block is live, and the new size is not 0.
                        let moved = inside(|| unsafe { ALLOC.realloc(block, layout, new) });
                        if !moved.is_null() {
                            (block, layout) = (moved, super::layout(new, align));
                        }
                    }
                    // SAFETY: the block is live, and has this layout.
                    inside(|| unsafe { ALLOC.dealloc(block, layout) });
                    if trims {
                        inside(|| ALLOC.trim());
                    }
                }
            });
            check!(
                !CALLED_ITSELF.load(SeqCst),
                "alloc, realloc, dealloc or trim called the program's global allocator, which it may be itself. Use \
                 nothing there that allocates: no String, no Vec, no format!, no println!."
            );
        },
        |_| (),
    )
}

#[test]
fn four_threads_at_once() {
    case(|| {
        expect_global_alloc();
        let resizes = traces::resizes();
        let calls = |seed, calls, largest| random_calls_with(resizes, seed, calls, largest);
        in_threads(4, |seed| calls(seed as u64, 6000, 2000));
        // With a low threshold, mapped blocks cost few page faults.
        ALLOC.set_threshold(20_000);
        in_threads(4, |seed| calls(seed as u64, 150, 60_000));
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
    case(|| {
        expect_global_alloc();
        // Without a heap, the code reserves one first.
        type Allocates = fn(&ThresholdAlloc) -> Vec<Block>;
        let codes: [(Allocates, bool); 3] = [
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
        "The grader stopped a thread inside the allocator while another thread used it.";
    expect_blocks(allocator, blocks, WHEN);
    for block in blocks {
        free_to(allocator, *block);
    }
}

/// Fails the case unless the blocks are separate blocks of the heap. Fills them.
fn expect_blocks(allocator: &ThresholdAlloc, blocks: &[Block], when: &str) {
    let heap = heap_of(allocator);
    for (index, block) in blocks.iter().enumerate() {
        check!(
            !blocks[..index].iter().any(|other| other.overlaps(block)),
            "{when} Then two live blocks overlap. Protect the heap with a lock."
        );
        check!(
            block.is_in(&heap) && block.range().end <= heap.end,
            "{when} Then a block of {} is outside the heap. Protect the heap with a lock.",
            amount(block.size())
        );
    }
    for (seed, block) in blocks.iter().enumerate() {
        block.fill(seed);
    }
    for (seed, block) in blocks.iter().enumerate() {
        block.expect(seed, OVERLAP);
    }
}

/// Code that changes the heap.
pub struct Code {
    /// The functions that it calls, as sentences name them.
    pub name: &'static str,
    /// Prepares a new allocator, and allocates the blocks that `calls` uses.
    pub prepare: fn(&'static ThresholdAlloc) -> Vec<Block>,
    /// Makes the calls. Returns the blocks that are live after them.
    pub calls: fn(&'static ThresholdAlloc, Vec<Block>) -> Vec<Block>,
    /// Checks the contents of these blocks, before anything has been written to them again.
    pub check: fn(&[Block]),
    pub free: fn(&'static ThresholdAlloc, Block),
}

impl Code {
    fn prepared(&self) -> (&'static ThresholdAlloc, Mutex<Vec<Block>>) {
        let allocator = fresh();
        (allocator, Mutex::new((self.prepare)(allocator)))
    }

    fn run(&self, allocator: &'static ThresholdAlloc, blocks: &Mutex<Vec<Block>>) -> Vec<Block> {
        let blocks = std::mem::take(&mut *blocks.lock().expect("no thread panics here"));
        (self.calls)(allocator, blocks)
    }

    /// Fails the case unless the blocks of the code, and those of another thread, are what they must be. Frees them.
    fn expect(
        &self,
        allocator: &'static ThresholdAlloc,
        own: &[Block],
        others: &[Block],
        when: &str,
    ) {
        (self.check)(own);
        expect_blocks(allocator, &[own, others].concat(), when);
        own.iter().for_each(|block| (self.free)(allocator, *block));
        others.iter().for_each(|block| free_to(allocator, *block));
    }
}

/// Stops a thread in `code` while another one runs other code, and the other way round.
fn beside_others(code: &Code) {
    stop_inside(code, true);
    stop_another(code);
}

/// Stops a thread in `code` while another thread allocates and frees and, if `forks` is true, while it forks. Fails the
/// case if one of them gets a wrong block, or the child cannot allocate.
pub fn stop_inside(code: &Code, forks: bool) {
    let Code { name, .. } = code;
    let when = format!(
        "The grader stopped a thread inside {name} while another thread allocated and freed blocks."
    );
    let steps = |allocator, blocks: Mutex<Vec<Block>>| {
        Steps::of(allocator, move || code.run(allocator, &blocks))
    };
    let (allocator, blocks) = code.prepared();
    let own = steps(allocator, blocks).find_in_thread();
    code.expect(allocator, &own, &[], &when);
    for place in 0..judge::places() {
        let (allocator, blocks) = code.prepared();
        let others = || use_heap(allocator);
        let (own, others) = steps(allocator, blocks).beside(place, others);
        code.expect(allocator, &own, &others, &when);
        if !forks {
            continue;
        }
        let (allocator, blocks) = code.prepared();
        let forks = || {
            failure(fork_child(|| {
                child_allocates(allocator);
                (code.calls)(allocator, (code.prepare)(allocator));
            }))
        };
        let (_, failed) = steps(allocator, blocks).beside(place, forks);
        fail_if_child_failed(name, failed);
    }
}

/// Stops a thread that allocates and frees while another one runs `code`. Fails the case if one of them gets a wrong
/// block.
pub fn stop_another(code: &Code) {
    let when = format!(
        "The grader stopped a thread inside alloc or dealloc while another thread was inside {}.",
        code.name
    );
    let steps = |allocator| Steps::of(allocator, move || use_heap(allocator));
    let (allocator, _) = code.prepared();
    steps(allocator).find_in_thread();
    for place in 0..judge::places() {
        let (allocator, blocks) = code.prepared();
        let (others, own) = steps(allocator).beside(place, || code.run(allocator, &blocks));
        code.expect(allocator, &own, &others, &when);
    }
}

/// Allocates blocks that take free memory, and others for which the break moves, and frees one that no cache keeps.
fn use_heap(allocator: &'static ThresholdAlloc) -> Vec<Block> {
    let [one, other, freed, last] = [500, 1000, 100_000, 50_000].map(|size| {
        let block = alloc_from(allocator, layout(size, ALIGN));
        block.touch_ends();
        block
    });
    free_to(allocator, freed);
    vec![one, other, last]
}

/// Allocates four blocks, fills them with the patterns of 0 to 3, and frees the second one.
fn four_blocks(allocator: &'static ThresholdAlloc) -> Vec<Block> {
    let mut blocks: Vec<_> = (0..4)
        .map(|seed| {
            let block = alloc_from(allocator, layout(1000, ALIGN));
            block.fill(seed);
            block
        })
        .collect();
    free_to(allocator, blocks.remove(1));
    blocks
}

/// Resizes a block.
fn realloc(allocator: &ThresholdAlloc, block: Block, size: usize) -> Block {
    // SAFETY: the block is live, and the new size is not 0.
    let start = unsafe { allocator.realloc(block.start, block.layout, size) };
    expect_block(start, layout(size, block.layout.align()), "realloc")
}

#[test]
fn realloc_beside_others() {
    case(|| {
        expect_global_alloc();
        if !traces::resizes() {
            return;
        }
        beside_others(&Code {
            name: "realloc",
            prepare: four_blocks,
            calls: |allocator, blocks| {
                let [first, third, last] = blocks[..] else {
                    unreachable!("four_blocks returns three");
                };
                // It grows over the free block behind it, or moves.
                let first = realloc(allocator, first, 1500);
                // It grows at the end of the heap, and shrinks again.
                let last = realloc(allocator, last, 5000);
                let last = realloc(allocator, last, 200);
                // A live block is behind it.
                let third = realloc(allocator, third, 3000);
                vec![first, third, last]
            },
            check: |blocks| {
                for (block, seed) in blocks.iter().zip([0, 2, 3]) {
                    block.prefix(200).expect(
                        seed,
                        "realloc must keep the contents. Copy them before the old block is free.",
                    );
                }
            },
            free: |allocator, block| free_to(allocator, block),
        });
    })
}

#[test]
fn alloc_zeroed_beside_others() {
    case(|| {
        expect_global_alloc();
        if !traces::resizes() {
            return;
        }
        beside_others(&Code {
            name: "alloc_zeroed",
            prepare: four_blocks,
            calls: |allocator, _| {
                let zeroed = [900, 5000].map(|size| {
                    let layout = layout(size, ALIGN);
                    // SAFETY: `layout` returns no layout of size 0.
                    let start = unsafe { allocator.alloc_zeroed(layout) };
                    expect_block(start, layout, "alloc_zeroed")
                });
                zeroed.to_vec()
            },
            check: |blocks| {
                for block in blocks {
                    block.expect_zeros("alloc_zeroed");
                }
            },
            free: |allocator, block| free_to(allocator, block),
        });
    })
}

#[test]
fn trim_beside_others() {
    case(|| {
        expect_global_alloc();
        if !traces::trims() {
            return;
        }
        beside_others(&Code {
            name: "trim",
            prepare: |allocator| {
                let blocks = four_blocks(allocator);
                let large = [(); 3].map(|()| alloc_from(allocator, layout(100_000, ALIGN)));
                large.iter().for_each(|block| free_to(allocator, *block));
                blocks
            },
            calls: |allocator, blocks| {
                allocator.trim();
                blocks
            },
            check: |blocks| {
                for (block, seed) in blocks.iter().zip([0, 2, 3]) {
                    block.expect(seed, OVERLAP);
                }
            },
            free: |allocator, block| free_to(allocator, block),
        });
    })
}

#[test]
fn two_threads_with_mappings() {
    case(|| {
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
    case(|| {
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
            fail_if_child_failed("the allocator", failed);
        }
    })
}

#[test]
fn a_fork_without_a_heap() {
    case(|| {
        // In a child, so that this process has no heap yet.
        if !traces::is_written(expect_global_alloc) {
            expect_global_alloc();
        }
        let steps = Steps::of(&ALLOC, || free(alloc(LARGE)));
        steps.find_in_thread();
        for place in 0..judge::places() {
            let ((), failed) = steps.beside(place, || failure(fork_child_that_allocates(&ALLOC)));
            fail_if_child_failed("alloc or dealloc of a mapped block", failed);
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
        fail_if_child_failed("the allocator", failed);
    })
}

/// Fails the case if a child failed that was forked while another thread was inside `what`.
fn fail_if_child_failed(what: &str, failed: Option<WaitStatus>) {
    if let Some(status) = failed {
        check!(
            !traces::hangs(status),
            "A process forked while another of its threads was inside {what}, and the child's calls of the allocator \
             did not return. A lock that another thread holds stays locked in the child: hold the lock during the fork \
             (pthread_atfork)."
        );
        judge::fail(format!(
            "A process forked while another of its threads was inside {what}, and the child, which only allocated and \
             freed blocks, {}. Hold the lock during the fork (pthread_atfork), so that the child gets a consistent \
             heap.",
            describe(status)
        ));
    }
}

fn fork_child_that_allocates(allocator: &ThresholdAlloc) -> Pid {
    fork_child(|| child_allocates(allocator))
}

/// What a forked child must be able to do. If a call does not return, the child ends.
fn child_allocates(allocator: &ThresholdAlloc) {
    traces::expect_progress_every(traces::LIMIT);
    random_calls(99, 50, 2000);
    free(alloc(LARGE));
    free_to(allocator, alloc_from(allocator, layout(1000, ALIGN)));
}

/// Waits for the child. Returns its status unless it exited with 0.
pub fn failure(pid: Pid) -> Option<WaitStatus> {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, 0)) => None,
        Ok(status) => Some(status),
        Err(error) => judge::fail(format!("waitpid: {error}")),
    }
}
