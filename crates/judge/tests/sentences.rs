//! Each way to go wrong has its own sentence. Every case here is hostile on purpose, and bounded.

use std::time::Duration;

use judge::{Limits, observe};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// Compares the sentence that `body` earns with the one expected.
#[track_caller]
fn says(expected: &str, body: impl FnOnce()) {
    says_within(Limits::default(), expected, body);
}

#[track_caller]
fn says_within(limits: Limits, expected: &str, body: impl FnOnce()) {
    let outcome = observe(limits, body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(without_lines(&sentence), expected, "{outcome:#?}");
}

/// Compares the sentence on a touch of memory: without ptrace nobody can say which memory it was.
#[track_caller]
fn says_of_memory(expected: &str, body: impl FnOnce()) {
    let signal = expected.split(": ").next().unwrap();
    let unexplained = format!("{signal}: memory was touched that may not be.");
    match std::env::var_os(NO_PTRACE) {
        None => says(expected, body),
        Some(_) => says(&unexplained, body),
    }
}

const NO_PTRACE: &str = "JUDGE_NO_PTRACE";

#[test]
fn all_of_this_holds_without_ptrace() {
    if std::env::var_os(NO_PTRACE).is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut again = std::process::Command::new(this);
    let output = again.env(NO_PTRACE, "1").output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}");
    assert!(words.contains("\ntest result: ok."), "{words}");
}

/// The line numbers of this file come and go.
fn without_lines(sentence: &str) -> String {
    match sentence.split_once("sentences.rs:") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}sentences.rs:LINE{rest}")
        }
        None => sentence.to_owned(),
    }
}

/// Forks; the child runs `f` and, if it returns, ends with status 0.
fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: the case runs on the only thread of this process that does anything.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            f();
            // SAFETY: `_exit` takes any value.
            unsafe { libc::_exit(0) }
        }
    }
}

fn map(len: usize, protection: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;
const LEN: usize = 512 << 10;

/// Touches memory that it may not: that is the point.
fn poke(address: *mut u8) {
    // SAFETY: none: the kernel must refuse the access, and the process is there to be killed by it.
    unsafe { address.write_volatile(1) }
}

#[test]
fn passes() {
    says("passed", || println!("fine"));
}

#[test]
fn check_fails() {
    says("Two and two are 5.", || {
        judge::check!(2 + 2 == 5, "Two and two are {}.", 5)
    });
}

#[test]
fn not_started() {
    says(
        "Not started: a todo!() at crates/judge/tests/sentences.rs:LINE was reached.",
        || todo!(),
    );
}

#[test]
fn panics() {
    says(
        "The code panicked at crates/judge/tests/sentences.rs:LINE: oh no.",
        || panic!("oh no"),
    );
}

#[test]
fn child_returns() {
    says(
        "A forked child returned from your function instead of ending in _exit: two processes ran the caller's code.",
        || {
            // SAFETY: as in `child`.
            if let ForkResult::Parent { child } = unsafe { fork() }.unwrap() {
                waitpid(child, None).unwrap();
            }
        },
    );
}

#[test]
fn child_panics() {
    says(
        "A forked child panicked at crates/judge/tests/sentences.rs:LINE: in the child.",
        || {
            let child = child(|| panic!("in the child"));
            waitpid(child, None).unwrap();
        },
    );
}

#[test]
fn check_fails_in_child() {
    says("In a forked child: It is wrong.", || {
        judge::in_child(|| judge::fail("It is wrong.".to_owned()));
    });
}

#[test]
fn zombie() {
    says(
        "Your code left a zombie: a child ended, and nobody waited for it.",
        || {
            child(|| ());
        },
    );
}

#[test]
fn left_running() {
    says(
        "Your code left a process running that it had started.",
        || {
            child(|| std::thread::sleep(Duration::from_secs(60)));
        },
    );
}

#[test]
fn left_running_after_setsid() {
    says(
        "Your code left a process running that it had started.",
        || {
            let middle = child(|| {
                nix::unistd::setsid().unwrap();
                child(|| std::thread::sleep(Duration::from_secs(60)));
            });
            waitpid(middle, None).unwrap();
        },
    );
}

#[test]
fn exits_early() {
    says(
        "The process ended with status 0 before the case was over: something called exit().",
        || std::process::exit(0),
    );
}

#[test]
fn panic_lost_in_a_thread() {
    says(
        "Your function returned as if all were well, but a panic at crates/judge/tests/sentences.rs:LINE was lost on the way (in a thread, or in catch_unwind): lost.",
        || {
            let _ = std::thread::spawn(|| panic!("lost")).join();
        },
    );
}

#[test]
fn closes_all_descriptors() {
    says(
        "Your code closed descriptors that it had not opened: the judge's own is gone.",
        || {
            for descriptor in 3..1024 {
                // SAFETY: none is needed by what follows; that is the point.
                unsafe { libc::close(descriptor) };
            }
        },
    );
}

#[test]
fn floods() {
    let limits = Limits {
        file: 1 << 20,
        ..Limits::default()
    };
    says_within(
        limits,
        "Killed by SIGXFSZ: it wrote more into a file, or to its output, than a case may.",
        || loop {
            println!("and on and on");
        },
    );
}

#[test]
fn loops_forever() {
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    says_within(
        limits,
        "Still running after 1 s, and stopped: an endless loop, or a wait that never ends.",
        || loop {
            std::hint::spin_loop();
        },
    );
}

#[test]
fn deadlocks() {
    says(
        "Deadlock: your code waits for a lock (futex), and nothing else runs that could end the wait.",
        || {
            let lock = std::sync::Mutex::new(());
            let first = lock.lock();
            let second = lock.lock();
            drop((first, second));
        },
    );
}

#[test]
fn hogs_shared_memory() {
    let limits = Limits {
        memory: 64 << 20,
        ..Limits::default()
    };
    says_within(
        limits,
        "Stopped with more than 64 MiB of memory resident.",
        || {
            let len = 1 << 30;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), len, BOTH, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            for page in (0..len).step_by(judge::probe::page_size()) {
                poke(start.cast::<u8>().wrapping_add(page));
                if page % (1 << 20) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        },
    );
}

#[test]
fn forks_too_often() {
    // Bounded twice: 40 children at most, each of which only sleeps.
    says(
        "Stopped with more than 32 processes and threads at once: a fork whose child does not end?",
        || {
            for _ in 0..40 {
                child(|| std::thread::sleep(Duration::from_secs(5)));
            }
        },
    );
}

#[test]
fn null_pointer() {
    says_of_memory("Killed by SIGSEGV: a null pointer was used.", || {
        poke(std::ptr::null_mut())
    });
}

#[test]
fn after_unmap() {
    says_of_memory(
        "Killed by SIGSEGV: memory was touched after munmap, 64 KiB from the start of a mapping of 512 KiB.",
        || {
            let start = map(LEN, BOTH);
            // SAFETY: the mapping is this test's own.
            unsafe { libc::munmap(start.cast(), LEN) };
            poke(start.wrapping_add(64 << 10));
        },
    );
}

#[test]
fn read_only() {
    says_of_memory(
        "Killed by SIGSEGV: memory was written that is mapped without PROT_WRITE, at the first byte of a mapping of 512 KiB.",
        || poke(map(LEN, libc::PROT_READ)),
    );
}

#[test]
fn guard_page() {
    says_of_memory(
        "Killed by SIGSEGV: memory was touched that is mapped PROT_NONE, a guard, at the first byte of a mapping of 512 KiB.",
        || poke(map(LEN, libc::PROT_NONE)),
    );
}

#[test]
fn past_the_end() {
    says_of_memory(
        "Killed by SIGSEGV: memory was touched just past the end of a mapping of 512 KiB.",
        || {
            // Where no mapping is: 64 GiB up, far below what the kernel chooses by itself.
            let hint = std::ptr::without_provenance_mut(64 << 30);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: with MAP_FIXED_NOREPLACE nothing that exists is touched.
            let start = unsafe { libc::mmap(hint, LEN, BOTH, flags, -1, 0) };
            assert_eq!(start, hint);
            poke(start.cast::<u8>().wrapping_add(LEN));
        },
    );
}

#[test]
fn stack_overflow() {
    fn deeper(depth: usize) -> usize {
        let local = std::hint::black_box([depth; 1000]);
        if local[0] == usize::MAX {
            0
        } else {
            deeper(depth + 1) + local[999]
        }
    }
    says(
        "The stack overflowed: a recursion without an end, or an array too large for a local variable.",
        || {
            std::hint::black_box(deeper(0));
        },
    );
}

#[test]
fn panics_in_drop_while_it_panics() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in Drop");
        }
    }
    says(
        "The code panicked at crates/judge/tests/sentences.rs:LINE where a panic cannot unwind (in Drop during another \
         panic, or across extern \"C\"), so the process aborted: in Drop.",
        || {
            let _bad = Bad;
            panic!("first");
        },
    );
}

#[test]
fn panics_across_a_c_function() {
    extern "C" fn handler() {
        panic!("in a handler");
    }
    says(
        "The code panicked at crates/judge/tests/sentences.rs:LINE where a panic cannot unwind (in Drop during another \
         panic, or across extern \"C\"), so the process aborted: in a handler.",
        || handler(),
    );
}

#[test]
fn aborts() {
    says("Killed by SIGABRT: something called abort().", || {
        std::process::abort()
    });
}

#[test]
fn kills_itself() {
    says(
        "Killed by SIGKILL: it killed itself, or the machine ran out of memory.",
        || {
            kill(nix::unistd::getpid(), Signal::SIGKILL).unwrap();
        },
    );
}

#[test]
fn past_the_file() {
    says_of_memory(
        "Killed by SIGBUS: the file behind a mapping of 512 KiB ends before the page that was touched, 64 KiB from the start.",
        || {
            // SAFETY: the name is a C string.
            let empty = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start =
                unsafe { libc::mmap(std::ptr::null_mut(), LEN, BOTH, libc::MAP_SHARED, empty, 0) };
            poke(start.cast::<u8>().wrapping_add(64 << 10));
        },
    );
}

#[test]
fn a_foreseen_panic_that_is_caught_passes() {
    says("passed", || {
        judge::expect_panics();
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
    });
}

#[test]
fn a_foreseen_panic_that_is_not_caught_is_a_panic() {
    says(
        "The code panicked at crates/judge/tests/sentences.rs:LINE: on purpose.",
        || {
            judge::expect_panics();
            panic!("on purpose");
        },
    );
}

#[test]
fn a_check_that_fails_hides_a_crash_while_it_unwinds() {
    struct Crash;
    impl Drop for Crash {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    says("Two and two are 5.", || {
        let _crash = Crash;
        judge::fail("Two and two are 5.".to_owned());
    });
}
