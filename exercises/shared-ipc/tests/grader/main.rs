//! Grades `shared-ipc`. Each stage is a module, and each test is a case.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use judge::probe::expect_ok_whatever_errno;
use judge::{Errno, Refusal, Steps, case, check, refusals, refuse, watch, watched};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use shared_ipc::Shared;

/// 512 KiB: several pages, whatever the page size is.
type Numbers = [AtomicU64; 64 << 10];

/// Returns a new `Shared<$type>`, or fails the case.
///
/// A generic function would have to name the bound that the learner is asked to find, so this is a macro.
macro_rules! new {
    ($type:ty) => {
        made(Shared::<$type>::new())
    };
}

/// Returns the new value, or fails the case.
fn made<T, S: Deref<Target = T>>(result: io::Result<S>) -> S {
    result.unwrap_or_else(|error| {
        judge::fail(format!(
            "Shared::new() for a value of {} returned the error \"{error}\"; expected Ok.{}",
            judge::amount(size_of::<T>()),
            judge::probe::failed_call(&error)
        ))
    })
}

/// Fails the case unless the error is that of the call that was made to fail.
fn expect_errno(call: &str, error: &io::Error, refused: Option<Refusal>) {
    let Some(refusal) = refused else {
        judge::fail(format!(
            "{call} returned the error \"{error}\"; expected Ok."
        ));
    };
    let expected = io::Error::from(refusal.errno);
    check!(
        error.kind() == expected.kind(),
        "{call} returned the error \"{error}\"; expected that of {}: \"{expected}\".",
        refusal.call
    );
}

/// What a function of the answer has returned, in words.
fn returned<T: Debug>(result: &io::Result<T>) -> String {
    match result {
        Ok(value) => format!("Ok({value:?})"),
        Err(error) => format!("the error \"{error}\""),
    }
}

/// Panics that an answer may treat in different ways: with each kind of payload, and without the panic hook.
const PANICS: [fn(); 4] = [
    || panic!("on purpose"),
    || panic!("with {}", "a String"),
    || panic::panic_any(7),
    || panic::resume_unwind(Box::new(7)),
];

/// Closes standard input, so that the next descriptor of this process is 0.
fn close_standard_input() {
    // SAFETY: close(2) accesses no memory, and nothing in a case reads standard input.
    unsafe { libc::close(0) };
    judge::rebase_state();
}

/// A panic's payload whose destructor panics, too.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the destructor of a panic's payload");
    }
}

/// Calls the answer's function `name` in a destructor that runs because the thread panics. Fails the case unless it
/// returns `expected`.
fn expect_while_unwinding<R: PartialEq + Debug>(
    name: &str,
    expected: R,
    f: impl FnOnce() -> io::Result<R>,
) {
    struct InDrop<'a>(&'a mut dyn FnMut());
    impl Drop for InDrop<'_> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let parent = std::process::id();
    let (mut f, mut result) = (Some(f), None);
    let mut call = || {
        // A second panic would abort the process.
        result = f.take().map(|f| panic::catch_unwind(AssertUnwindSafe(f)));
        if std::process::id() != parent {
            // SAFETY: ends a child that has left the answer's function.
            unsafe { libc::_exit(101) };
        }
    };
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        let _call = InDrop(&mut call);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let Ok(result) = result.expect("the destructor has run") else {
        judge::fail(format!(
            "A destructor called {name} during a panic of the caller's thread, and {name} panicked. In a thread that \
             panics, std::panic::set_hook and take_hook panic."
        ))
    };
    check!(
        result.as_ref().is_ok_and(|value| *value == expected),
        "A destructor called {name} during a panic of the caller's thread, and {name} returned {}; expected \
         Ok({expected:?}). In the child, too, std::thread::panicking() is true then, and std::panic::set_hook panics.",
        returned(&result)
    );
}

/// Calls `f`, which runs code in a child whose panic has a payload that panics when it is dropped. Fails the case if that
/// panic leaves the answer's function.
fn expect_payload_kept<R>(f: impl FnOnce() -> R) -> R {
    expect_panics_stay(
        "The child panicked with a payload whose destructor panics. The child dropped that payload, so the second panic \
         left your function and ran the caller's code. Call _exit before anything drops what catch_unwind has returned.",
        f,
    )
}

/// Calls `f`, which runs code in a child. Fails the case with this sentence if a panic of the child leaves the answer's
/// function.
fn expect_panics_stay<R>(sentence: &str, f: impl FnOnce() -> R) -> R {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let parent = std::process::id();
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    if std::process::id() != parent {
        let _ = (&writer).write_all(b"left");
        // SAFETY: ends a child that has left the answer's function.
        unsafe { libc::_exit(101) };
    }
    drop(writer);
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    check!(text.is_empty(), "{sentence}");
    result.unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// The signals that a child sends to the parent that waits for it.
const INTERRUPTING: [Signal; 7] = [
    Signal::SIGUSR1,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGALRM,
    Signal::SIGCHLD,
];

/// The signals whose handler has run, as bits: bit n for signal n.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Installs handlers without SA_RESTART, so that these signals interrupt system calls.
fn handle_interrupting_signals() {
    extern "C" fn note(signal: libc::c_int) {
        HANDLED.fetch_or(1 << signal, SeqCst);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in INTERRUPTING {
        // SAFETY: the handler only changes an atomic, so it is async-signal-safe.
        unsafe { sigaction(signal, &action) }.expect("sigaction accepts a handler");
    }
    judge::rebase_state();
}

/// Sends the signal to a thread: the one that waits for this child.
fn send_to_thread(process: i32, thread: i32, signal: Signal) {
    // SAFETY: tgkill(2) accesses no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal as i32) };
}

/// Fails the case unless the handlers of all these signals have run. Each was sent while `name` waited for its child.
fn expect_handled(name: &str, signals: &[Signal]) {
    let handled = HANDLED.load(SeqCst);
    let lost = signals
        .iter()
        .find(|signal| handled & (1 << **signal as i32) == 0);
    if let Some(signal) = lost {
        judge::fail(format!(
            "{signal} was sent to the caller while {name} waited for its child, and the caller's handler has not run. \
             Leave the caller's signals to its handlers: do not ignore or take them during the wait."
        ));
    }
}

/// Waits until a child has ended, and leaves its status to others.
fn await_end(child: libc::pid_t) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let _ = waitid(Id::Pid(Pid::from_raw(child)), flags);
}

/// Waits for all children, after a wait of the answer was made to fail.
fn reap() {
    // SAFETY: waitpid(2) accepts a null status.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

mod bound;
mod by_hand;
mod caller;
mod child;
mod output;
mod shared;

judge::answer!();

judge::compile_fail! {
    bound: a_string, a_box, a_reference, a_pointer, a_bool, a_non_zero, a_cell, a_mutex, not_sync, written_through
}
