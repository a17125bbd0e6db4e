//! Stage 7, bonus: a program with threads runs on it, and forks.

use super::*;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

/// The program's allocator: the system's, and while `ON` the answer.
struct Switch;

static ON: AtomicBool = AtomicBool::new(false);

/// In front of each block, so that it goes back where it came from.
const FROM: usize = 64;

impl Switch {
    fn with_room(layout: Layout) -> (Layout, usize) {
        let before = FROM.max(layout.align());
        let size = layout.size() + before;
        // SAFETY: the alignment is a layout's own; no case asks for a size near isize::MAX.
        let whole = unsafe { Layout::from_size_align_unchecked(size, layout.align().max(8)) };
        (whole, before)
    }
}

// SAFETY: each block is one of the allocator that its first word names, and is given back to that one.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (whole, before) = Switch::with_room(layout);
        let answers = ON.load(SeqCst);
        let start = match answers {
            // SAFETY: the size is not 0.
            true => unsafe { GlobalAlloc::alloc(&ALLOC, whole) },
            // SAFETY: as above.
            false => unsafe { std::alloc::System.alloc(whole) },
        };
        if start.is_null() {
            return start;
        }
        // SAFETY: the block begins with room for this.
        unsafe { start.cast::<usize>().write(usize::from(answers)) };
        start.wrapping_add(before)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (whole, before) = Switch::with_room(layout);
        let start = block.wrapping_sub(before);
        // SAFETY: `alloc` has written this word.
        match unsafe { start.cast::<usize>().read() } {
            // SAFETY: the block came from there, with this layout.
            0 => unsafe { std::alloc::System.dealloc(start, whole) },
            // SAFETY: as above.
            _ => unsafe { GlobalAlloc::dealloc(&ALLOC, start, whole) },
        }
    }
}

#[global_allocator]
static GLOBAL: Switch = Switch;

/// Begins stage 7: where its functions are not written yet, the case ends here.
fn begin() {
    let layout = layout(100, ALIGN);
    // SAFETY: the size is not 0.
    let start = unsafe { GlobalAlloc::alloc(&ALLOC, layout) };
    let block = checked(start, layout, "GlobalAlloc::alloc");
    block.fill(1);
    // SAFETY: the block came from there, with this layout.
    unsafe { GlobalAlloc::dealloc(&ALLOC, start, layout) };
}

/// Random calls with checks, as one thread of several makes them.
fn work(seed: u64, calls: usize, largest: usize) {
    let mut numbers = Numbers(seed);
    let mut live: [Option<(Block, u8)>; 50] = [None; 50];
    for call in 0..calls {
        let place = &mut live[numbers.below(50)];
        match place.take() {
            Some((block, value)) => {
                block.expect(value, OVERLAP);
                free(block);
            }
            None => {
                let block = block(1 + numbers.below(largest));
                block.fill(call as u8);
                *place = Some((block, call as u8));
            }
        }
    }
    for (block, value) in live.into_iter().flatten() {
        block.expect(value, OVERLAP);
        free(block);
    }
}

#[test]
fn through_the_trait() {
    case(|| {
        begin();
        for size in [1, 100, 10_000, LARGE] {
            let before = layout(size, ALIGN);
            // SAFETY: the size is not 0.
            let start = unsafe { GlobalAlloc::alloc_zeroed(&ALLOC, before) };
            let block = checked(start, before, "GlobalAlloc::alloc_zeroed");
            block.expect(0, "alloc_zeroed must give zeros");
            block.fill(3);
            // SAFETY: the block is live, and the new size is not 0.
            let start = unsafe { GlobalAlloc::realloc(&ALLOC, start, before, 2 * size) };
            let grown = checked(start, layout(2 * size, ALIGN), "GlobalAlloc::realloc");
            let kept = Block {
                layout: before,
                ..grown
            };
            kept.expect(3, "realloc lost what the block held");
            free(grown);
        }
    })
}

#[test]
fn a_program_with_threads() {
    case(|| {
        begin();
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
        // What one thread has allocated another one frees.
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
        let right = table.iter().all(|(key, words)| {
            let (number, item) = (key / 1000, key % 1000);
            let mut words = words.iter().enumerate();
            words.all(|(word, text)| *text == format!("{number}-{item}-{word}"))
        });
        drop(table);
        ON.store(false, SeqCst);
        check!(
            right && !text.is_empty(),
            "A program with four threads ran on your allocator, and its strings are not what it wrote."
        );
    })
}

#[test]
fn four_threads_at_once() {
    case(|| {
        begin();
        thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || work(seed, 10_000, 2000));
            }
        });
        thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || work(seed, 300, 300 * KIB));
            }
        });
        check!(
            ALLOC.stats().mapped_blocks == 0,
            "Four threads have freed all that they had, and stats() counts {} mapped blocks: it is changed by two \
             at once.",
            ALLOC.stats().mapped_blocks
        );
    })
}

#[test]
fn the_cap_holds() {
    case(|| {
        begin();
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        ALLOC.set_max_maps(1);
        free(block(100));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let block = block(LARGE);
                        let mapped = !block.is_in(&reserved());
                        if mapped {
                            let live = LIVE.fetch_add(1, SeqCst) + 1;
                            MOST.fetch_max(live, SeqCst);
                            thread::yield_now();
                            LIVE.fetch_sub(1, SeqCst);
                        }
                        free(block);
                    }
                });
            }
        });
        let most = MOST.load(SeqCst);
        check!(
            most <= 1,
            "With a cap of 1, {most} blocks had a mapping of their own at the same time: count a mapping before \
             you make it."
        );
    })
}

/// More than the heap can come to here: its end moves while this is asked.
fn reserved() -> Range<usize> {
    let start = heap().start;
    start..start + 64 * MIB
}

#[test]
fn a_fork_among_threads() {
    case(|| {
        begin();
        static DONE: AtomicBool = AtomicBool::new(false);
        let stuck = thread::scope(|scope| {
            for seed in 0..3 {
                scope.spawn(move || {
                    while !DONE.load(SeqCst) {
                        work(seed, 500, 2000);
                    }
                });
            }
            let stuck = (0..40).find_map(|_| ends_badly(child_that_allocates()));
            DONE.store(true, SeqCst);
            stuck
        });
        if let Some(status) = stuck {
            check!(
                !matches!(status, WaitStatus::Signaled(_, Signal::SIGALRM, _)),
                "A process forked while another of its threads was inside the allocator, and the child waits for \
                 ever for a lock whose holder was not copied: pthread_atfork lets a fork take the lock first."
            );
            judge::fail(format!(
                "A process with several threads forked, and the child, which only allocates and frees, {}.",
                end(status)
            ));
        }
    })
}

fn child_that_allocates() -> Pid {
    child(|| {
        // SAFETY: ends this process by a signal if it takes too long.
        unsafe { libc::alarm(3) };
        work(99, 50, 2000);
    })
}

fn end(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => format!("died of {signal}"),
        WaitStatus::Exited(_, UNWOUND) => "panicked".to_owned(),
        other => format!("ended with {other:?}"),
    }
}

fn ends_badly(pid: Pid) -> Option<WaitStatus> {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, 0)) => None,
        Ok(status) => Some(status),
        Err(error) => judge::fail(format!("waitpid: {error}")),
    }
}
