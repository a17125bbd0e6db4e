//! Code that is executed step by step and stopped at each place where it changes what others can see.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use judge::{Limits, Steps, check, observe};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

const BOTH: &str = "Two threads passed.";

/// Fails if two threads can pass `enter`, which lets one pass.
fn one_passes(enter: fn(&AtomicUsize) -> bool) -> Option<String> {
    let body = || {
        let passed = AtomicUsize::new(0);
        let steps = Steps::of(&passed, || enter(&passed));
        thread::scope(|scope| scope.spawn(|| steps.find()).join()).unwrap();
        for place in 0..judge::places() {
            passed.store(0, SeqCst);
            let (first, second) = thread::scope(|scope| {
                let first = scope.spawn(|| steps.stop_at(place));
                check!(judge::until_stopped(), "The thread did not stop.");
                let second = enter(&passed);
                judge::go_on();
                (first.join().unwrap(), second)
            });
            check!(!(first && second), "{BOTH}");
        }
    };
    observe(Limits::default(), body).sentence()
}

#[test]
fn two_threads_pass_a_check_and_a_count_in_two_steps() {
    let in_two_steps = |passed: &AtomicUsize| {
        let free = passed.load(SeqCst) == 0;
        if free {
            passed.fetch_add(1, SeqCst);
        }
        free
    };
    assert_eq!(one_passes(in_two_steps).as_deref(), Some(BOTH));
}

#[test]
fn one_thread_passes_a_check_and_a_count_in_one_step() {
    let in_one_step = |passed: &AtomicUsize| passed.compare_exchange(0, 1, SeqCst, SeqCst).is_ok();
    assert_eq!(one_passes(in_one_step), None);
}

#[test]
fn a_process_is_killed_between_two_changes_of_shared_memory() {
    let body = || {
        let len = std::num::NonZero::new(8).unwrap();
        let (protection, flags) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        );
        // SAFETY: without MAP_FIXED nothing that exists is touched.
        let memory = unsafe { mmap_anonymous(None, len, protection, flags) }.unwrap();
        // SAFETY: the mapping is aligned, zeroed, and lives until the end of this closure.
        let pair: &[AtomicUsize; 1] = unsafe { memory.cast().as_ref() };
        let [number] = pair;
        let steps = Steps::of(&(), || {
            number.fetch_add(1, SeqCst);
            number.fetch_add(10, SeqCst);
        });
        let child = |f: &dyn Fn()| {
            // SAFETY: the child only runs `f` and exits.
            match unsafe { fork() }.unwrap() {
                ForkResult::Parent { child } => child,
                ForkResult::Child => {
                    f();
                    // SAFETY: `_exit` takes any status.
                    unsafe { nix::libc::_exit(0) }
                }
            }
        };
        waitpid(child(&|| steps.find()), None).unwrap();
        let mut seen = Vec::new();
        for place in 0..judge::places() {
            number.store(0, SeqCst);
            let stopped = child(&|| steps.stop_at(place));
            check!(judge::until_stopped(), "The process did not stop.");
            kill(stopped, Signal::SIGKILL).unwrap();
            waitpid(stopped, None).unwrap();
            seen.push(number.load(SeqCst));
        }
        seen.dedup();
        // SAFETY: the mapping was made above, and nothing refers to it any more.
        unsafe { munmap(memory, 8) }.unwrap();
        check!(seen == [0, 1, 11], "{seen:?}");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

#[test]
fn a_thread_that_ends_before_its_place_is_no_longer_awaited() {
    let body = || {
        let number = AtomicUsize::new(0);
        let steps = Steps::of(&number, || {
            let first = number.load(SeqCst) == 0;
            if first {
                number.fetch_add(1, SeqCst);
            }
        });
        steps.find();
        check!(judge::places() == 2, "{}", judge::places());
        thread::scope(|scope| {
            scope.spawn(|| steps.stop_at(0));
            check!(!judge::until_stopped(), "It stopped.");
        });
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

#[test]
fn a_crash_beside_a_stopped_thread_names_the_thread() {
    let body = || {
        let number = AtomicUsize::new(0);
        let steps = Steps::of(&number, || number.fetch_add(1, SeqCst));
        steps.find_in_thread();
        check!(judge::places() == 2, "{}", judge::places());
        steps.beside(0, || std::process::abort());
    };
    let sentence = "The grader stopped a thread or process inside your code while another one ran. SIGABRT: the \
                    process aborted. Look for a call of abort(), or for a message that a library printed before it \
                    aborted.";
    assert_eq!(
        observe(Limits::default(), body).sentence().as_deref(),
        Some(sentence)
    );
}

#[test]
fn a_second_thread_that_waits_for_the_first_one_lets_it_go_on() {
    let body = || {
        let number = Mutex::new(0);
        let steps = Steps::of(&number, || *number.lock().unwrap() += 1);
        steps.find_in_thread();
        check!(judge::places() >= 3, "{}", judge::places());
        for place in 0..judge::places() {
            steps.beside(place, || *number.lock().unwrap() += 1);
        }
        let added = 1 + 2 * judge::places();
        let sum = *number.lock().unwrap();
        check!(sum == added, "{sum} of {added}");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

#[test]
fn code_that_is_too_long_is_skipped() {
    let body = || {
        let steps = Steps::of(&(), || {
            for number in 0..1_000_000 {
                std::hint::black_box(number);
            }
        });
        steps.find();
        judge::places();
    };
    let sentence =
        "the code executes more than 100,000 instructions, too many to stop at each of them";
    let outcome = observe(Limits::with_steps(), body).sentence();
    assert!(
        outcome
            .as_ref()
            .is_some_and(|outcome| outcome.contains(sentence)),
        "{outcome:?}"
    );
}
