//! The sentence for each kind of failure. Every case is wrong on purpose, and its resources are limited.

mod common {
    pub mod fork;
}

use std::time::Duration;

use common::fork::child;
use judge::{Limits, observe};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

/// Expects this sentence about `body`; `passed` if there is none.
#[track_caller]
fn earns(expected: &str, body: impl FnOnce()) {
    earns_within(Limits::default(), expected, body);
}

#[track_caller]
fn earns_within(limits: Limits, expected: &str, body: impl FnOnce()) {
    let outcome = observe(limits, body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    let sentence = without_times(&without_lines(&sentence));
    assert_eq!(sentence, expected, "{outcome:#?}");
}

/// Replaces measured times, which are never the same.
fn without_times(sentence: &str) -> String {
    let Some((before, after)) = sentence.split_once(" and had used ") else {
        return sentence.to_owned();
    };
    let before = before.split(", not counting waits").next().unwrap();
    let after = after.split_once(" of CPU time").unwrap().1;
    format!("{before} and had used TIME of CPU time{after}")
}

/// Expects this sentence about an access to memory. Without ptrace the judge does not know the address.
#[track_caller]
fn earns_for_access(expected: &str, body: impl FnOnce()) {
    let signal = expected.split(": ").next().unwrap();
    let unexplained =
        format!("{signal}: an access to memory was invalid, or a process sent the signal.");
    earns_if_traced(expected, &unexplained, body);
}

/// Expects `traced`, or `untraced` without ptrace: then the judge sees less and says less.
#[track_caller]
fn earns_if_traced(traced: &str, untraced: &str, body: impl FnOnce()) {
    match std::env::var_os(NO_PTRACE) {
        None => earns(traced, body),
        Some(_) => earns(untraced, body),
    }
}

const NO_PTRACE: &str = "JUDGE_NO_PTRACE";

#[test]
fn the_sentences_are_true_without_ptrace() {
    if std::env::var_os(NO_PTRACE).is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut again = std::process::Command::new(this);
    let output = again.env(NO_PTRACE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\ntest result: ok."), "{text}");
}

/// Replaces line numbers of this file, which change with every edit.
fn without_lines(sentence: &str) -> String {
    let mut parts = sentence.split("sentences.rs:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        text += &format!("sentences.rs:LINE{rest}");
    }
    text
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

/// Makes an invalid access on purpose.
fn poke(address: *mut u8) {
    // SAFETY: none. The kernel must refuse the access, and the process exists to be killed by it.
    unsafe { address.write_volatile(1) }
}

#[test]
fn passes() {
    earns("passed", || println!("fine"));
}

#[test]
fn check_fails() {
    earns("Two and two are 5.", || {
        judge::check!(2 + 2 == 5, "Two and two are {}.", 5)
    });
}

#[test]
fn not_started() {
    earns(
        "Not started: a todo!() at crates/judge/tests/sentences.rs:LINE was reached.",
        || todo!(),
    );
}

#[test]
fn panics() {
    earns(
        "The code panicked at crates/judge/tests/sentences.rs:LINE: oh no.",
        || panic!("oh no"),
    );
}

#[test]
fn child_returns() {
    earns(
        "A forked child left your function, by returning or by a panic, and ran the caller's code. End it with _exit \
         on every path, also after a panic.",
        || {
            // SAFETY: the case runs on the only active thread of this process.
            if let ForkResult::Parent { child } = unsafe { fork() }.unwrap() {
                waitpid(child, None).unwrap();
            }
        },
    );
}

#[test]
fn child_panics() {
    earns(
        "A forked child panicked at crates/judge/tests/sentences.rs:LINE: in the child.",
        || {
            let child = child(|| panic!("in the child"));
            waitpid(child, None).unwrap();
        },
    );
}

#[test]
fn check_fails_in_child() {
    earns("In a forked child: It is wrong.", || {
        judge::in_child(|| judge::fail("It is wrong.".to_owned()));
    });
}

#[test]
fn zombie() {
    earns(
        "Your code left a zombie: a child that has ended and was not waited for. Call waitpid for each child, or waitid without WNOWAIT.",
        || {
            child(|| ());
        },
    );
}

#[test]
fn left_running() {
    earns(
        "A process that your code had started was still running when the case ended. Wait for it, or end it.",
        || {
            child(|| std::thread::sleep(Duration::from_secs(60)));
        },
    );
}

#[test]
fn left_running_after_setsid() {
    earns(
        "A process that your code had started was still running when the case ended. Wait for it, or end it.",
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
    earns_if_traced(
        "Your code ended the process with status 0 (exit, _exit or exit_group) before the case had ended. Return instead.",
        "The process exited with status 0 before the case had ended; expected your code to return.",
        || std::process::exit(0),
    );
}

#[test]
fn panic_lost_in_a_thread() {
    earns(
        "The case ended normally, although the code had panicked at crates/judge/tests/sentences.rs:LINE (in a thread, or inside catch_unwind). Pass the panic on to the caller. Its message: lost.",
        || {
            let _ = std::thread::spawn(|| panic!("lost")).join();
        },
    );
}

#[test]
fn closes_all_descriptors() {
    earns(
        "Your code closed, replaced or filled a file descriptor that it had not opened: the judge's socket. Use only your own descriptors.",
        || {
            for descriptor in 3..1024 {
                // SAFETY: the code below uses none of them. To close the judge's descriptor is the purpose of this
                // test.
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
    earns_within(
        limits,
        "SIGXFSZ: a write or ftruncate exceeded the limit on the size of a file or of the output.",
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
    earns_within(
        limits,
        "The case was still running after 1 s and had used TIME of CPU time. Look for a loop that does not end, or for too much work.",
        || loop {
            std::hint::spin_loop();
        },
    );
}

#[test]
fn deadlocks() {
    earns_if_traced(
        "Deadlock: your code waits in futex (a lock, a condition variable or a join), and nothing else runs that could end the wait.",
        // The judge does not know then whether a timer is set.
        "The case was still running after 10 s and had used TIME of CPU time: your code waits in futex (a lock, a condition variable or a join).",
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
    earns_within(
        limits,
        "The case was stopped, because more than 64 MiB of its memory was resident.",
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
    // The case bounds itself, too: it has at most 40 children, which only sleep.
    earns(
        "The case was stopped, because it had more than 32 processes and threads at the same time. Look for a fork whose child does not end.",
        || {
            for _ in 0..40 {
                child(|| std::thread::sleep(Duration::from_secs(60)));
            }
        },
    );
}

#[test]
fn null_pointer() {
    earns_for_access("SIGSEGV: a null pointer was dereferenced.", || {
        poke(std::ptr::null_mut())
    });
}

#[test]
fn after_unmap() {
    earns_for_access(
        "SIGSEGV: memory was accessed after it had been unmapped, 64 KiB into a mapping of 512 KiB. Unmap it only when nothing uses it any more.",
        || {
            let start = map(LEN, BOTH);
            // SAFETY: the mapping belongs to this test.
            unsafe { libc::munmap(start.cast(), LEN) };
            poke(start.wrapping_add(64 << 10));
        },
    );
}

#[test]
fn read_only() {
    earns_for_access(
        "SIGSEGV: memory that is mapped without PROT_WRITE was written, at the first byte of a mapping of 512 KiB.",
        || poke(map(LEN, libc::PROT_READ)),
    );
}

#[test]
fn guard_page() {
    earns_for_access(
        "SIGSEGV: memory that is mapped with PROT_NONE was accessed, at the first byte of a mapping of 512 KiB.",
        || poke(map(LEN, libc::PROT_NONE)),
    );
}

#[test]
fn past_the_end() {
    earns_for_access(
        "SIGSEGV: memory was accessed just past the end of a mapping of 512 KiB.",
        || {
            // Nothing is mapped at 64 GiB, far below the addresses that the kernel chooses.
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
    earns_if_traced(
        "The stack overflowed: a recursion is too deep, or a local variable is too large.",
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted.",
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
    earns(
        "The code panicked at crates/judge/tests/sentences.rs:LINE where a panic cannot unwind (in Drop during another \
         panic, or in an extern \"C\" function), so the process aborted: in Drop. Before that, the code had panicked at \
         crates/judge/tests/sentences.rs:LINE: first.",
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
    earns(
        "The code panicked at crates/judge/tests/sentences.rs:LINE where a panic cannot unwind (in Drop during another \
         panic, or in an extern \"C\" function), so the process aborted: in a handler.",
        || handler(),
    );
}

#[test]
fn aborts() {
    earns(
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted.",
        || std::process::abort(),
    );
}

#[test]
fn kills_itself() {
    earns(
        "SIGKILL: a process or a timer sent the signal, RLIMIT_CPU was exceeded, or the machine ran out of memory.",
        || {
            kill(nix::unistd::getpid(), Signal::SIGKILL).unwrap();
        },
    );
}

#[test]
fn past_the_file() {
    earns_for_access(
        "SIGBUS: byte 64 KiB of the file behind a mapping was accessed, but the file is only 0 bytes long.",
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
fn an_expected_panic_that_is_caught_passes() {
    earns("passed", || {
        judge::expect_panics();
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
    });
}

#[test]
fn an_expected_panic_that_is_not_caught_fails() {
    earns(
        "The code panicked at crates/judge/tests/sentences.rs:LINE: on purpose.",
        || {
            judge::expect_panics();
            panic!("on purpose");
        },
    );
}

#[test]
fn a_failed_check_hides_a_crash_while_it_unwinds() {
    struct Crash;
    impl Drop for Crash {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    earns("Two and two are 5.", || {
        let _crash = Crash;
        judge::fail("Two and two are 5.".to_owned());
    });
}
