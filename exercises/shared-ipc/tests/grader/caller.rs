//! The state of the caller's process, which a forked child inherits.

use std::cell::Cell;
use std::io::{self, PipeWriter, Read, Write};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where a child writes what has changed. Its parent closes its copy before it reads.
static REPORT: Mutex<Option<PipeWriter>> = Mutex::new(None);

thread_local! {
    /// Set in the thread that calls the answer.
    static OF_CALLER: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, which runs `compare` in a child of the answer. Fails the case if the child does not have the state of its
/// parent.
pub fn expect_inherited(f: impl FnOnce()) {
    OF_CALLER.set(true);
    change_actions();
    start_timers();
    // Not the name that `std::thread` knows.
    // SAFETY: the name is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"callers_thread".as_ptr()) };
    // SAFETY: umask(2) accesses no memory.
    unsafe { libc::umask(0o027) };
    judge::rebase_state();
    let (mut reader, writer) = io::pipe().expect("a pipe");
    *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    f();
    *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    if !text.is_empty() {
        judge::fail(text);
    }
}

/// Reports, in the child, what differs from its parent's state.
pub fn compare() {
    let report = REPORT.lock().unwrap_or_else(PoisonError::into_inner);
    let change = match OF_CALLER.get() {
        true => judge::change_in_child(),
        false => Some(
            "In the child, the caller's thread-local variables do not have the values that the caller has set. Call the \
             closure in the thread that fork has copied, and in no other one."
                .to_owned(),
        ),
    };
    if let (Some(mut writer), Some(change)) = (report.as_ref(), change) {
        let _ = writer.write_all(change.as_bytes());
    }
}

/// Starts all timers of the process, so that it is seen if one is used for something else. They expire in a day.
fn start_timers() {
    const DAY: libc::time_t = 24 * 60 * 60;
    let zero = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let value = libc::itimerval {
        it_interval: zero,
        it_value: libc::timeval {
            tv_sec: DAY,
            ..zero
        },
    };
    for timer in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        // SAFETY: the value outlives the call, and the timers expire after the case has ended.
        unsafe { libc::setitimer(timer, &raw const value, std::ptr::null_mut()) };
    }
}

/// Ignores or handles every signal in turn, so that each reset to the default action changes something. The handlers have
/// flags and a mask, which signal(2) would not restore.
fn change_actions() {
    extern "C" fn nothing(_: libc::c_int) {}
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR2);
    let handler = SigHandler::Handler(nothing);
    let flags = SaFlags::SA_RESTART | SaFlags::SA_NODEFER;
    let handled = SigAction::new(handler, flags, mask);
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // Faults must end the process.
    let kept = [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGTRAP,
        Signal::SIGABRT,
    ];
    for signal in Signal::iterator().filter(|signal| !kept.contains(signal)) {
        // If SIGCHLD is ignored, the status of a child is lost.
        let action = match signal as i32 % 2 == 0 || signal == Signal::SIGCHLD {
            true => &handled,
            false => &ignored,
        };
        // SAFETY: the handler does nothing, so it is async-signal-safe. The call fails for SIGKILL and SIGSTOP.
        let _ = unsafe { sigaction(signal, action) };
    }
}
