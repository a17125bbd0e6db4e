//! Stage 9, bonus: a thread takes and frees small blocks without the lock.

use super::*;
use std::sync::mpsc;
use std::thread;

const LIMIT: usize = 16 * KIB;

fn on() {
    ALLOC.set_thread_cache(LIMIT);
}

#[test]
fn waits_for_no_lock() {
    case(|| {
        on();
        // Warm: from here on this thread has what it needs.
        let blocks = [(); 10].map(|()| block(100));
        blocks.into_iter().for_each(free);
        let waited = in_child_with_a_stopped_thread();
        check!(
            !waited,
            "A thread was stopped inside the allocator, and another one waited for it, though it had a block of \
             that size in its cache: a cached pair needs no lock."
        );
    })
}

/// Whether a warm pair waits while another thread stands still inside the allocator. A child that hangs is ended by
/// its alarm.
fn in_child_with_a_stopped_thread() -> bool {
    let pid = child(|| {
        // SAFETY: ends this process by a signal if it takes too long.
        unsafe { libc::alarm(8) };
        stop_and_go(40);
    });
    !matches!(waitpid(pid, None), Ok(WaitStatus::Exited(_, 0)))
}

static STOP: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Stands still, wherever it was, until it may go on.
extern "C" fn stand_still(_: libc::c_int) {
    STOPPED.store(true, SeqCst);
    while STOP.load(SeqCst) {
        // SAFETY: poll may be called in a signal handler; here it waits for a millisecond, and for nothing else.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
    }
    STOPPED.store(false, SeqCst);
}

/// Stops a thread that does nothing but allocate, at so many moments, and allocates meanwhile.
fn stop_and_go(times: usize) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let handler = stand_still as extern "C" fn(libc::c_int);
    // SAFETY: the handler uses atomics and poll(2) only.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // Again: a fork takes no thread's cache away, but an answer may begin anew.
    let blocks = [(); 10].map(|()| block(100));
    blocks.into_iter().for_each(free);
    let (sender, receiver) = mpsc::channel();
    let other = thread::spawn(move || {
        // SAFETY: asks for this thread's own name.
        sender.send(unsafe { libc::pthread_self() }).unwrap();
        while !DONE.load(SeqCst) {
            // Larger than a cache may keep.
            free(block(2 * LIMIT));
        }
    });
    let name = receiver.recv().unwrap();
    for _ in 0..times {
        STOP.store(true, SeqCst);
        // SAFETY: the thread has not been joined.
        unsafe { libc::pthread_kill(name, libc::SIGUSR1) };
        while !STOPPED.load(SeqCst) {
            thread::yield_now();
        }
        for _ in 0..10 {
            let block = block(100);
            block.fill(1);
            free(block);
        }
        STOP.store(false, SeqCst);
        while STOPPED.load(SeqCst) {
            thread::yield_now();
        }
    }
    DONE.store(true, SeqCst);
    other.join().unwrap();
}

#[test]
fn bounded() {
    case(|| {
        on();
        let (sender, receiver) = mpsc::channel::<Block>();
        let (done, is_done) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let hoarder = thread::spawn(move || {
            receiver.into_iter().for_each(free);
            done.send(()).unwrap();
            let _ = ended.recv();
        });
        let blocks: Vec<_> = (0..10_000).map(|_| block(200)).collect();
        let before = heap().end;
        for block in blocks {
            sender.send(block).unwrap();
        }
        drop(sender);
        is_done.recv().unwrap();
        let blocks: Vec<_> = (0..10_000).map(|_| block(200)).collect();
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= 256 * KIB,
            "A thread may keep 16 KiB for itself. It was given 10000 blocks of 200 bytes to free, and for 10000 \
             more the break had to move by {moved}.",
            moved = amount(moved)
        );
        blocks.into_iter().for_each(free);
        drop(end);
        hoarder.join().unwrap();
    })
}

#[test]
fn a_thread_that_ends_gives_back() {
    case(|| {
        on();
        let round = || {
            let blocks: Vec<_> = (0..100).map(|_| block(150)).collect();
            blocks.into_iter().for_each(free);
        };
        thread::spawn(round).join().unwrap();
        let before = heap().end;
        for _ in 0..200 {
            thread::spawn(round).join().unwrap();
        }
        let moved = heap().end.saturating_sub(before);
        check!(
            moved <= 128 * KIB,
            "200 threads, one after the other, freed all that they had, and the break moved by {moved}: \
             what a thread has kept must go back when it ends.",
            moved = amount(moved)
        );
    })
}

#[test]
fn freed_by_another_thread() {
    case(|| {
        on();
        let (sender, receiver) = mpsc::channel::<(Block, u8)>();
        thread::scope(|scope| {
            scope.spawn(move || {
                for (block, value) in receiver {
                    block.expect(value, OVERLAP);
                    free(block);
                }
            });
            let mut numbers = Numbers(41);
            for number in 0..20_000usize {
                let block = block(1 + numbers.below(300));
                block.fill(number as u8);
                sender.send((block, number as u8)).unwrap();
            }
            drop(sender);
        });
    })
}

#[test]
fn of_its_own_allocator() {
    case(|| {
        static OTHER: ThresholdAlloc = ThresholdAlloc::new(Config {
            reserve: 64 * MIB,
            ..Config::new()
        });
        on();
        OTHER.set_thread_cache(LIMIT);
        let blocks = [(); 10].map(|()| block(100));
        blocks.into_iter().for_each(free);
        for _ in 0..10 {
            let block = block_of(&OTHER, layout(100, ALIGN));
            check!(
                block.is_in(&OTHER.heap_range().unwrap_or_default()),
                "An allocator gave out a block of another one's heap: this thread's cache has mixed them up."
            );
        }
    })
}

#[test]
fn trim_empties_it() {
    case(|| {
        on();
        let blocks: Vec<_> = (0..5000).map(|_| block(100)).collect();
        // What is kept are the first ones freed: they lie at the end.
        blocks.into_iter().rev().for_each(free);
        ALLOC.trim();
        let left = heap().len();
        check!(
            left <= 64 * KIB,
            "Every block was freed, and the heap trimmed: {left} of it are left. What this thread keeps in \
             its cache must go back, too.",
            left = amount(left)
        );
    })
}

#[test]
fn freed_twice_is_the_end() {
    case(|| {
        on();
        let twice = block(100);
        free(twice);
        expect_abort(|| free(twice), "A block was freed twice in a row");
    })
}
