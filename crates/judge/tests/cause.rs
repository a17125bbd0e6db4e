//! Cases in which one failure leads to another: the sentence names the cause.

mod common {
    pub mod fork;
}

use std::os::unix::process::CommandExt;
use std::panic;
use std::process::Command;
use std::time::Duration;

use common::fork::child;
use judge::{Limits, observe};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::pause;

const NO_PTRACE: &str = "JUDGE_NO_PTRACE";

#[track_caller]
fn earns(expected: &str, body: impl FnOnce()) {
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    let outcome = observe(limits, body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(without_numbers(&sentence), expected, "{outcome:#?}");
}

/// Replaces line numbers of this file, and the measured times, which differ from run to run.
fn without_numbers(sentence: &str) -> String {
    let mut parts = sentence.split("cause.rs:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        text += &format!("cause.rs:LINE{rest}");
    }
    match text.split_once("The case was still running after 1 s") {
        Some((_, after)) => {
            let (_, rest) = after.split_once(" of CPU time").expect("a time");
            format!("The case was still running{rest}")
        }
        None => text,
    }
}

/// Runs its closure when it is dropped.
struct Cleanup(fn());

impl Drop for Cleanup {
    fn drop(&mut self) {
        (self.0)();
    }
}

const WRONG: &str = "It is wrong.";

fn check() {
    judge::fail(WRONG.to_owned());
}

fn caught(f: fn()) {
    let _ = panic::catch_unwind(f);
}

#[test]
fn a_destructor_exits_while_a_failed_check_unwinds() {
    earns(WRONG, || {
        let _cleanup = Cleanup(|| std::process::exit(0));
        check();
    });
}

#[test]
fn a_destructor_waits_for_ever_while_a_failed_check_unwinds() {
    earns(WRONG, || {
        let _cleanup = Cleanup(pause);
        check();
    });
}

#[test]
fn a_destructor_runs_for_ever_while_a_failed_check_unwinds() {
    earns(WRONG, || {
        let _cleanup = Cleanup(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        check();
    });
}

#[test]
fn the_code_catches_a_failed_check() {
    earns(WRONG, || caught(check));
}

#[test]
fn the_code_catches_a_failed_check_and_exits() {
    earns(WRONG, || {
        caught(check);
        std::process::exit(0);
    });
}

#[test]
fn a_thread_that_nobody_joins_fails_a_check() {
    earns(WRONG, || drop(std::thread::spawn(check)));
}

#[test]
fn the_code_catches_a_failed_check_in_a_child() {
    earns("In a forked child: It is wrong.", || {
        judge::in_child(|| {
            caught(check);
            0
        });
    });
}

#[test]
fn the_code_catches_a_skip() {
    earns("Skipped: it cannot be seen.", || {
        caught(|| judge::skip("it cannot be seen"));
    });
}

#[test]
fn the_code_catches_the_failure_of_a_child() {
    earns("In a forked child: It is wrong.", || {
        caught(|| {
            judge::in_child(|| {
                check();
                0
            });
        });
    });
}

#[test]
fn a_program_that_replaces_the_case_runs_for_ever() {
    if std::env::var_os(NO_PTRACE).is_some() {
        return; // without a tracer the judge does not see the call
    }
    let outcome = observe(
        Limits {
            wall: Duration::from_secs(1),
            ..Limits::default()
        },
        || panic!("{}", Command::new("sleep").arg("100").exec()),
    );
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(sentence.starts_with("Your code executed /"), "{outcome:#?}");
}

#[test]
fn a_thread_panics_and_another_waits_for_it() {
    const WAITS: &str = "your code waits in futex (a lock, a condition variable or a join)";
    const PANICKED: &str =
        "Before that, the code had panicked at crates/judge/tests/cause.rs:LINE: nothing to send.";
    let expected = match std::env::var_os(NO_PTRACE) {
        None => {
            format!("Deadlock: {WAITS}, and nothing else runs that could end the wait. {PANICKED}")
        }
        Some(_) => format!("The case was still running: {WAITS}. {PANICKED}"),
    };
    earns(&expected, || {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sends = sender.clone();
        let _thread = std::thread::spawn(move || {
            let byte: u8 = std::hint::black_box(None).expect("nothing to send");
            sends.send(byte).unwrap();
        });
        let _ = receiver.recv();
        drop(sender);
    });
}

#[test]
fn a_panic_that_was_expected_is_no_cause() {
    let expected = match std::env::var_os(NO_PTRACE) {
        None => {
            "Deadlock: your code waits for a signal, and nothing else runs that could end the wait."
        }
        Some(_) => "The case was still running: your code waits for a signal.",
    };
    earns(expected, || {
        judge::expect_panics();
        caught(|| panic!("expected"));
        pause();
    });
}

#[test]
fn a_child_crashes_and_its_parent_waits_for_its_report() {
    if std::env::var_os(NO_PTRACE).is_some() {
        return; // without a tracer the judge does not see how the child ended
    }
    earns(
        "The case was still running: your code waits in read. Before that, a forked child was killed by SIGSEGV: a null \
         pointer was dereferenced.",
        || {
            let (mut reader, _writer) = std::io::pipe().unwrap();
            child(|| {
                // SAFETY: crashing is the purpose.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
            });
            let _ = std::io::Read::read(&mut reader, &mut [0]);
        },
    );
}

#[test]
fn the_thread_of_the_case_ends() {
    earns(
        "The thread that called your code ended before your code had returned; expected it to return. Do not end a thread \
         of your caller (pthread_exit, or the system call exit).",
        || {
            // Without a tracer, the judge looks for threads every 20 ms.
            std::thread::sleep(Duration::from_millis(100));
            // SAFETY: ends this thread only, whose destructors do not matter.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        },
    );
}

#[test]
fn sigchld_is_ignored_before_the_grader_forks() {
    earns(
        "Your code left SIG_IGN installed for SIGCHLD, where it found the default action. Restore the action that \
         sigaction(2) returned when you changed it.",
        || {
            // SAFETY: no handler is installed.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            judge::in_child(|| 0);
        },
    );
}

/// Leaves a thread that holds the lock of standard output.
fn leave_output_locked() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _output = std::io::stdout().lock();
        sender.send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap();
}

#[test]
fn a_thread_that_is_left_has_locked_standard_output() {
    earns(
        "Your code left a thread running that it had started. Join it.",
        leave_output_locked,
    );
}

#[test]
fn a_check_fails_while_a_thread_has_locked_standard_output() {
    earns(WRONG, || {
        leave_output_locked();
        check();
    });
}

/// Writes to all descriptors that the case has inherited, the judge's socket included.
fn write_to_all(bytes: &[u8]) {
    for descriptor in 3..1024 {
        // SAFETY: the pointer and the length describe `bytes`.
        unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
    }
}

#[test]
fn the_code_writes_to_the_judges_socket() {
    earns("passed", || write_to_all(b"half a line"));
}

#[test]
fn a_check_fails_after_the_code_has_written_to_the_judges_socket() {
    earns(WRONG, || {
        write_to_all(b"\xff\n\0half a line");
        check();
    });
}

#[test]
fn the_code_fills_the_judges_socket() {
    earns(
        "Your code closed, replaced or filled a file descriptor that it had not opened: the judge's socket. Use only your \
         own descriptors.",
        || {
            for _ in 0..1000 {
                write_to_all(&[b'x'; 1000]);
            }
            for _ in 0..1000 {
                write_to_all(b"x");
            }
        },
    );
}

#[test]
fn a_child_without_a_signal_for_its_end_is_left() {
    earns(
        "Your code left a zombie: a child that has ended and was not waited for. Call waitpid for each child, or waitid \
         without WNOWAIT.",
        || {
            // SAFETY: as fork(2), but the end of the child sends no signal.
            if unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } == 0 {
                // SAFETY: `_exit` takes any status.
                unsafe { libc::_exit(0) };
            }
        },
    );
}

#[test]
fn two_threads_wake_each_other_for_ever() {
    // The loop runs, but at any moment a thread may wait.
    earns(
        "The case was still running. Look for a loop that does not end, or for too much work.",
        || {
            let (to, from) = std::sync::mpsc::channel();
            let (back, answers) = std::sync::mpsc::channel();
            let _thread = std::thread::spawn(move || {
                for number in from {
                    back.send(number).unwrap();
                }
            });
            loop {
                to.send(1).unwrap();
                answers.recv().unwrap();
            }
        },
    );
}

/// Crashes, after `handler` was installed for the signal.
fn crash_into(handler: extern "C" fn(i32)) {
    let handler = SigHandler::Handler(handler);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers below only make system calls.
    unsafe { sigaction(Signal::SIGSEGV, &action) }.unwrap();
    // SAFETY: crashing is the purpose.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
}

/// Expects a sentence that begins with `begin`, and then tells of the crash.
#[track_caller]
fn earns_after_the_crash(begin: &str, handler: extern "C" fn(i32)) {
    if std::env::var_os(NO_PTRACE).is_some() {
        return; // without a tracer the judge does not see a signal that is handled
    }
    let crash = "Before that, the code had caused SIGSEGV: a null pointer was dereferenced.";
    earns(&format!("{begin} {crash}"), || crash_into(handler));
}

#[test]
fn a_handler_exits_after_a_crash() {
    extern "C" fn exits(_: i32) {
        // SAFETY: `_exit` takes any status.
        unsafe { libc::_exit(0) };
    }
    earns_after_the_crash(
        "Your code ended the process with status 0 (exit, _exit or exit_group) before the case had ended. Return instead.",
        exits,
    );
}

#[test]
fn a_handler_aborts_after_a_crash() {
    extern "C" fn aborts(_: i32) {
        std::process::abort();
    }
    earns_after_the_crash(
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted.",
        aborts,
    );
}

#[test]
fn a_handler_waits_after_a_crash() {
    extern "C" fn waits(_: i32) {
        pause();
    }
    earns_after_the_crash(
        "Deadlock: your code waits for a signal, and nothing else runs that could end the wait.",
        waits,
    );
}

#[test]
fn a_handler_returns_to_a_crash() {
    extern "C" fn returns(_: i32) {}
    earns_after_the_crash(
        "The case was still running. Look for a loop that does not end, or for too much work.",
        returns,
    );
}

#[test]
fn a_panic_in_a_thread_local_destructor() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    thread_local! {
        static PANICS: Panics = const { Panics };
    }
    earns(
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted. Before that, the code had panicked at crates/judge/tests/cause.rs:LINE: in a destructor.",
        || {
            let _ = std::thread::spawn(|| PANICS.with(|_| ())).join();
        },
    );
}

#[test]
fn a_destructor_crashes_while_a_panic_unwinds() {
    let crash = match std::env::var_os(NO_PTRACE) {
        None => "a null pointer was dereferenced.",
        Some(_) => "an access to memory was invalid, or a process sent the signal.",
    };
    let panicked = "Before that, the code had panicked at crates/judge/tests/cause.rs:LINE: first.";
    earns(&format!("SIGSEGV: {crash} {panicked}"), || {
        let _cleanup = Cleanup(|| {
            // SAFETY: crashing is the purpose.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
        });
        panic!("first");
    });
}

#[test]
fn a_destructor_panics_while_a_panic_unwinds() {
    earns(
        "The code panicked at crates/judge/tests/cause.rs:LINE where a panic cannot unwind (in Drop during another panic, \
         or in an extern \"C\" function), so the process aborted: second. Before that, the code had panicked at \
         crates/judge/tests/cause.rs:LINE: first.",
        || {
            let _cleanup = Cleanup(|| panic!("second"));
            panic!("first");
        },
    );
}
