//! The state of the caller's process, which a forked child inherits.

use std::io::{self, PipeWriter, Read, Write};
use std::sync::{Mutex, PoisonError};

use nix::libc;

/// Where a child writes what has changed. Its parent closes its copy before it reads.
static REPORT: Mutex<Option<PipeWriter>> = Mutex::new(None);

/// Runs `f`, which runs `compare` in a child of the answer. Fails the case if the child does not have the state of its
/// parent.
pub fn expect_inherited(f: impl FnOnce()) {
    change_actions();
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
    if let (Some(mut writer), Some(change)) = (report.as_ref(), judge::change_in_child()) {
        let _ = writer.write_all(change.as_bytes());
    }
}

/// Ignores or handles every signal in turn, so that each reset to the default action changes something.
fn change_actions() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = nothing as *const () as libc::sighandler_t;
    // SIGCHLD must be neither ignored nor handled: that changes what a wait returns. Faults must end the process.
    let kept = [
        libc::SIGCHLD,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
    ];
    for signal in (1..=64).filter(|signal| !kept.contains(signal)) {
        let action = match signal % 2 {
            0 => handler,
            _ => libc::SIG_IGN,
        };
        // SAFETY: the handler does nothing, so it is async-signal-safe. The call fails for numbers that cannot be
        // handled.
        unsafe { libc::signal(signal, action) };
    }
}
