//! Code that is executed step by step and stopped at each place where it changes what others can see.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use judge::{Limits, Outcome, Steps, check, observe};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{SigHandler, Signal, kill, raise, signal};
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
                    unsafe { libc::_exit(0) }
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
fn a_thread_that_waits_before_its_place_is_no_longer_awaited() {
    let body = || {
        let (lock, number) = (Mutex::new(()), AtomicUsize::new(0));
        let steps = Steps::of(&number, || {
            drop(lock.lock());
            number.fetch_add(1, SeqCst);
        });
        steps.find();
        let last = judge::places() - 1;
        thread::scope(|scope| {
            let held = lock.lock();
            let first = scope.spawn(|| steps.stop_at(last));
            check!(!judge::until_stopped(), "It stopped.");
            drop(held);
            // It does not stop at its place now.
            check!(first.join().is_ok(), "It panicked.");
        });
        check!(number.into_inner() == 2, "It did not go on.");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

#[test]
fn a_case_that_does_not_let_a_thread_go_on_has_no_endless_loop() {
    let limits = Limits {
        stepped: Duration::from_secs(1),
        ..Limits::default()
    };
    let body = || {
        let number = AtomicUsize::new(0);
        let steps = Steps::of(&number, || number.fetch_add(1, SeqCst));
        steps.find();
        steps.stop_at(0);
    };
    let sentence = observe(limits, body).sentence().unwrap();
    let end = ", so it waited nearly all the time. Look for a wait that does not end.";
    assert!(sentence.ends_with(end), "{sentence}");
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
fn a_change_of_any_static_is_a_place() {
    /// Longer than any page, so that some of it is behind the pages of the file.
    const LEN: usize = 16 << 10;
    static STATICS: [AtomicUsize; LEN] = [const { AtomicUsize::new(0) }; LEN];
    let body = || {
        for number in [0, LEN / 2, LEN - 1] {
            let steps = Steps::of(&(), || STATICS[number].fetch_add(1, SeqCst));
            steps.find();
            check!(judge::places() == 2, "{number}: {}", judge::places());
        }
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
                    aborted. If both change the same memory, protect it with a lock.";
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
    is_too_long(observe(Limits::default(), body));
}

#[test]
fn code_with_too_many_places_is_skipped() {
    let body = || {
        let number = AtomicUsize::new(0);
        let steps = Steps::of(&number, || {
            for _ in 0..1000 {
                number.fetch_add(1, SeqCst);
            }
        });
        steps.find();
        judge::places();
    };
    is_too_long(observe(Limits::default(), body));
}

#[track_caller]
fn is_too_long(outcome: Outcome) {
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(
        sentence.contains("more than 100,000 instructions"),
        "{sentence}"
    );
}

/// Stops code at 100 places, and waits a while at each.
fn many_places(pause: fn(usize)) -> Outcome {
    let limits = Limits {
        stepped: Duration::from_secs(1),
        ..Limits::default()
    };
    let body = move || {
        let state = AtomicUsize::new(0);
        let steps = Steps::of(&state, || {
            (0..50).for_each(|_| _ = state.fetch_add(1, SeqCst))
        });
        steps.find_in_thread();
        for place in 0..judge::places() {
            steps.beside(place, || pause(place));
        }
    };
    observe(limits, body)
}

#[test]
fn a_case_that_has_no_time_for_all_places_is_skipped() {
    let outcome = many_places(|_| thread::sleep(Duration::from_millis(30)));
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(
        sentence.starts_with("Skipped: the case's time was up when the code had been stopped at "),
        "{sentence}"
    );
}

#[test]
fn a_case_that_has_no_time_for_all_steps_is_skipped() {
    let limits = Limits {
        stepped: Duration::from_millis(50),
        ..Limits::default()
    };
    let body = || {
        let steps = Steps::of(&(), || {
            for number in 0..1_000_000 {
                std::hint::black_box(number);
            }
        });
        steps.find();
    };
    let sentence = observe(limits, body).sentence().unwrap_or_default();
    assert!(
        sentence.starts_with("Skipped: the case's time was up when ")
            && sentence.ends_with(" instructions of the code had been executed one by one."),
        "{sentence}"
    );
}

#[test]
fn a_case_that_hangs_at_a_place_fails() {
    let outcome = many_places(|place| {
        let hangs = place == 10;
        thread::sleep(Duration::from_millis(if hangs { 60_000 } else { 1 }));
    });
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(
        sentence.starts_with("The case was still running after 1 s"),
        "{sentence}"
    );
}

/// Stops `code`, which changes `state`, at each place that `find` has found. Returns what `state` was there.
fn at_each_place(state: &AtomicUsize, code: impl Fn() + Sync) -> Vec<usize> {
    let steps = Steps::of(state, code);
    state.store(0, SeqCst);
    steps.find_in_thread();
    let mut seen = Vec::new();
    for place in 0..judge::places() {
        state.store(0, SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| steps.stop_at(place));
            check!(judge::until_stopped(), "Place {place} was not reached.");
            seen.push(state.load(SeqCst));
            // More than malloc hands out without its lock.
            drop(std::hint::black_box(vec![1_u8; 4 << 10]));
            judge::go_on();
        });
    }
    seen.dedup();
    seen
}

/// The kernel traps after each repetition, and a breakpoint stops before the first one.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_repeated_instruction_is_one_step() {
    let body = || {
        let state = AtomicUsize::new(0);
        let seen = at_each_place(&state, || {
            // SAFETY: the instruction writes the eight bytes of `state`, which is shared as an atomic.
            unsafe {
                std::arch::asm!(
                    "rep stosb", inout("rcx") 8_usize => _, inout("rdi") state.as_ptr() => _, in("al") 1_u8,
                    options(nostack, preserves_flags)
                );
            };
            state.store(2, SeqCst);
        });
        check!(seen == [0, 0x0101_0101_0101_0101, 2], "{seen:x?}");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

/// Expects that a case is skipped whose code does what single steps would disturb, and that the code is not disturbed.
#[track_caller]
fn uses_traps(code: fn()) {
    let body = || {
        let steps = Steps::of(&(), code);
        steps.find_in_thread();
        judge::places();
    };
    let sentence = observe(Limits::default(), body).sentence();
    let sentence = sentence.unwrap_or_default();
    assert!(sentence.contains("it uses SIGTRAP or saves"), "{sentence}");
}

/// While the processor takes single steps, `pushf` saves the flag for them.
#[cfg(target_arch = "x86_64")]
#[test]
fn code_that_saves_the_flags_is_skipped() {
    uses_traps(|| {
        let flags: u64;
        // SAFETY: the code saves the flags on the stack, and loads the same flags.
        unsafe { std::arch::asm!("pushfq", "mov {}, [rsp]", "popfq", out(reg) flags) };
        check!(flags & 1 << 8 == 0, "The flag for single steps was saved.");
    });
}

/// The signal that reports a step is also one that code can send and handle.
#[test]
fn code_that_handles_traps_is_skipped() {
    static TRAPS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn trapped(_: i32) {
        TRAPS.fetch_add(1, SeqCst);
    }
    uses_traps(|| {
        let handler = SigHandler::Handler(trapped);
        // SAFETY: the handler only counts.
        let before = unsafe { signal(Signal::SIGTRAP, handler) }.unwrap();
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the trap has a handler.
        unsafe {
            std::arch::asm!("int3")
        };
        raise(Signal::SIGTRAP).unwrap();
        let traps = TRAPS.load(SeqCst);
        let expected = if cfg!(target_arch = "x86_64") { 2 } else { 1 };
        check!(traps == expected, "{traps} traps reached the handler.");
        // SAFETY: the former action is the default.
        unsafe { signal(Signal::SIGTRAP, before) }.unwrap();
    });
}

/// The tracer stops at the exit of some calls, and not of others. The instruction after both is counted in the same way.
#[test]
fn calls_of_all_kinds_are_counted_in_the_same_way() {
    let body = || {
        let state = AtomicUsize::new(0);
        let call = |number: libc::c_long| {
            // SAFETY: the calls get an address that is not aligned, or no arguments, and do nothing.
            unsafe { libc::syscall(number, 1, 1, 0) };
            state.fetch_add(1, SeqCst);
        };
        let seen = at_each_place(&state, || {
            for _ in 0..3 {
                call(libc::SYS_munmap);
                call(libc::SYS_getppid);
            }
        });
        check!(seen == [0, 1, 2, 3, 4, 5, 6], "{seen:?}");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

/// A thread that is stopped in a fork would hold malloc's lock.
#[test]
fn code_is_not_stopped_in_a_fork() {
    let body = || {
        let state = AtomicUsize::new(0);
        let fork_and_wait = || {
            state.fetch_add(1, SeqCst);
            // SAFETY: the child only exits.
            match unsafe { fork() }.unwrap() {
                ForkResult::Parent { child } => {
                    state.fetch_add(1, SeqCst);
                    waitpid(child, None).unwrap();
                }
                // SAFETY: `_exit` takes any status.
                ForkResult::Child => unsafe { libc::_exit(0) },
            }
        };
        let seen = at_each_place(&state, || {
            fork_and_wait();
            fork_and_wait();
        });
        check!(seen == [0, 1, 2, 3, 4], "{seen:?}");
    };
    assert_eq!(observe(Limits::default(), body).sentence(), None);
}

/// The answer can make the call of a mark, too. Without the secret of the case, the tracer ignores it. The first forged
/// mark follows a true one immediately, so that the registers hold what that one has left.
#[test]
fn a_forged_mark_is_ignored() {
    let forge = |mark: usize, value: usize, memory: *const usize| {
        // SAFETY: no kernel has the option. The tracer only reads the memory.
        unsafe { libc::prctl(0x6a75_6467, mark, value, 0_usize, memory) }
    };
    let (steps, end, places, has_stopped) = (8, 9, 11, 12);
    for memory in [[0, usize::MAX], [usize::MAX, 0]] {
        let body = || {
            let answer = judge::watch(|| forge(places, 0, std::ptr::null()));
            check!(answer == -1, "After a mark, the answer was {answer}.");
            forge(steps, usize::MAX, memory.as_ptr());
            forge(end, 0, std::ptr::null());
            for mark in [places, has_stopped] {
                let answer = forge(mark, 0, std::ptr::null());
                check!(answer == -1, "The mark {mark} got the answer {answer}.");
                let error = Errno::last();
                check!(error == Errno::EINVAL, "The mark {mark}: {error}.");
            }
        };
        assert_eq!(observe(Limits::default(), body).sentence(), None);
    }
}
