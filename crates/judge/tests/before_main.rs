//! Code of an answer that runs before `main`, in the judge's own process.

mod common {
    pub mod rerun;
}

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::time::{Duration, Instant};

use common::rerun::rerun;
use nix::libc;

judge::answer!();

/// Names what `constructor` does.
const DOES: &str = "RERUN_CONSTRUCTOR";

// SAFETY: libc calls each function of this section once, before main. `constructor` ignores the arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    let does = std::env::var(DOES).unwrap_or_default();
    match does.as_str() {
        "spins" => loop {
            std::hint::spin_loop();
        },
        "waits" => loop {
            std::thread::park();
        },
        "exits" => std::process::exit(0),
        // SAFETY: `_exit` takes any value.
        "exits at once" => unsafe { libc::_exit(0) },
        "panics" => panic!("in a constructor"),
        // SAFETY: deliberately wrong.
        "crashes" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        "forks" => {
            // SAFETY: the process has one thread.
            let child = unsafe { libc::fork() };
            if child == 0 {
                std::process::exit(0);
            }
            // SAFETY: a null status is permitted.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
        _ => {}
    }
}

/// Runs the calling test again with a constructor. In the process that was started again: `None`.
fn with_constructor(does: &str) -> Option<(Output, String)> {
    let output = rerun(|command| {
        command.env(DOES, does);
    })?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output, text))
}

/// The status of a grader that code before `main` has ended.
const BEFORE_MAIN: i32 = 98;

#[track_caller]
fn could_not_grade(does: &str, what: &str) {
    if let Some((output, text)) = with_constructor(does) {
        assert_eq!(output.status.code(), Some(BEFORE_MAIN), "{text}");
        let sentence = format!(
            "Could not grade: code of the answer that runs before main (.init_array) {what}. Remove it.\n"
        );
        assert_eq!(text, sentence);
    }
}

#[test]
fn a_constructor_that_does_not_end_is_stopped() {
    let begun = Instant::now();
    could_not_grade("spins", "had not ended after 10 s");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_constructor_that_waits_is_stopped() {
    could_not_grade("waits", "had not ended after 10 s");
}

#[test]
fn a_constructor_that_exits_does_not_look_like_a_pass() {
    could_not_grade("exits", "called exit");
}

#[test]
fn a_constructor_that_exits_without_handlers_does_not_look_like_a_pass() {
    could_not_grade("exits at once", "called exit");
}

#[track_caller]
fn crashes(does: &str, signal: libc::c_int, what: &str) {
    if let Some((output, text)) = with_constructor(does) {
        assert_eq!(output.status.signal(), Some(signal), "{text}");
        let sentence = format!(
            "Could not grade: code of the answer that runs before main (.init_array) {what}. Remove it.\n"
        );
        assert!(text.ends_with(&sentence), "{text}");
    }
}

#[test]
fn a_constructor_that_crashes_is_named() {
    crashes("crashes", libc::SIGSEGV, "crashed (SIGSEGV)");
}

#[test]
fn a_constructor_that_panics_is_named() {
    crashes("panics", libc::SIGABRT, "panicked or aborted (SIGABRT)");
}

/// The child of a constructor is not the process whose `main` is awaited.
#[test]
fn a_constructor_may_fork() {
    if let Some((output, text)) = with_constructor("forks") {
        assert!(output.status.success(), "{text}");
        assert!(!text.contains("Could not grade"), "{text}");
    }
}

/// Nothing of the watch is left when `main` begins.
#[test]
fn the_watch_leaves_nothing_behind() {
    let timers = std::fs::read_to_string("/proc/self/timers").unwrap_or_default();
    assert_eq!(timers, "");
    for signal in [libc::SIGABRT, libc::SIGILL, libc::SIGALRM] {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: with a null action the call only stores the present one.
        let got = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
        assert_eq!(got, 0);
        // SAFETY: the call has succeeded.
        let action = unsafe { action.assume_init() };
        assert_eq!(action.sa_sigaction, libc::SIG_DFL, "{signal}");
    }
}

/// std installs its handler of SIGSEGV only where it finds the default action.
#[test]
fn a_stack_overflow_in_a_test_is_still_reported_by_std() {
    #[allow(unconditional_recursion)]
    fn overflow() -> u64 {
        std::hint::black_box(overflow()) + 1
    }
    if let Some((output, text)) = with_constructor("nothing") {
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{text}");
        assert!(text.contains("has overflowed its stack"), "{text}");
        return;
    }
    println!("{}", overflow());
}
