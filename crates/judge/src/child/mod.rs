//! The child's side: runs the body of one case, says how it ended, and is gone.

mod filter;
pub mod pretend;
pub mod probe;
mod watch;

use std::any::Any;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, process, ptr, thread};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, fork, ftruncate};

pub use watch::watch;

use crate::protocol::{self, EXIT_PIPE_GONE, Ended, Event, Panic, Panicked};

/// How long the end of a case waits for a child that is still running: long enough for one that is about to exit,
/// so that "never waited for" and "still running" do not depend on luck.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the grader foresees panics from here on.
static PANICS_EXPECTED: AtomicBool = AtomicBool::new(false);

/// What a failed check of the grader panics with.
pub struct CheckFailed(pub String);
/// What a probe that cannot answer panics with.
pub struct CannotCheck(pub String);
/// What `in_child` panics with when its child failed.
struct ChildFailed(String);

/// Runs `body` as the case; never returns.
pub fn run(nonce: &str, body: &mut dyn FnMut()) -> ! {
    let me = process::id();
    keep_off_the_stack();
    report_panics(nonce.to_owned(), me);
    forget_output();
    if env::var_os(protocol::TRACED).is_some() {
        filter::install().expect("this kernel takes a seccomp filter");
    }
    watch::hold_still();
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    let panicked = result.is_err();
    std::mem::forget(result); // a payload's destructor is the learner's code: not any more
    let _ = io::stdout().flush();
    let ended = if process::id() == me {
        let (zombies, running) = children();
        Ended::Here {
            panicked,
            zombies,
            running,
        }
    } else {
        Ended::InChild
    };
    let code = match protocol::send(nonce, &Event::Ended(ended)) {
        Ok(()) => 0,
        Err(_) => EXIT_PIPE_GONE,
    };
    exit_now(code)
}

/// Foresees panics from here on: one that is caught no longer fails the case.
pub fn expect_panics() {
    PANICS_EXPECTED.store(true, Ordering::SeqCst);
}

/// Runs `f` in a forked child that always ends in `_exit`, and returns its code.
///
/// # Panics
/// If `f` panics or the child is killed: the case then fails with that.
pub fn in_child(f: impl FnOnce() -> u8) -> u8 {
    let mut f = Some(f);
    run_in_child(&mut || f.take().expect("the child runs once")())
}

fn run_in_child(f: &mut dyn FnMut() -> u8) -> u8 {
    let _ = io::stdout().flush();
    // SAFETY: a case has one thread of its own besides libtest's, which holds no lock while it waits for the case;
    // so the child may allocate and panic as its parent could.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            let _ = io::stdout().flush();
            exit_now(result.map_or(101, i32::from))
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(_, 101)) => failed_in_child("its child panicked".to_owned()),
                Ok(WaitStatus::Exited(_, code)) => return code as u8,
                Ok(WaitStatus::Signaled(_, signal, _)) => failed_in_child(killed_by(signal)),
                other => failed_in_child(format!("its child could not be waited for: {other:?}")),
            }
        },
    }
}

fn killed_by(signal: Signal) -> String {
    format!("a forked child was killed by {signal}")
}

fn failed_in_child(why: String) -> ! {
    panic::panic_any(ChildFailed(why))
}

fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and ends the process without running any handler.
    unsafe { libc::_exit(code) }
}

/// Puts a mapping that nobody may touch below this thread's stack, where the kernel would put the case's next one: a byte
/// too far in that would hit the stack's guard page, and be taken for a stack that overflows.
fn keep_off_the_stack() {
    const LEN: usize = 1 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped. Where it refuses, nothing is lost.
    unsafe { libc::mmap(ptr::null_mut(), LEN, libc::PROT_NONE, flags, -1, 0) };
}

/// What libtest has printed so far is no output of the learner's.
fn forget_output() {
    let _ = io::stdout().flush();
    let _ = ftruncate(io::stdout(), 0);
    // SAFETY: `lseek` on descriptor 1 only moves its offset.
    unsafe { libc::lseek(1, 0, libc::SEEK_SET) };
}

/// From here on a panic prints nothing and is reported at once, before it is caught or aborts.
fn report_panics(nonce: String, first_process: u32) {
    panic::set_hook(Box::new(move |info| {
        let (what, message) = classify(info);
        let panic = Panic {
            what,
            message: protocol::shortened(&message),
            at: info.location().map_or_else(String::new, |location| {
                format!("{}:{}", location.file(), location.line())
            }),
            in_child: process::id() != first_process,
            expected: PANICS_EXPECTED.load(Ordering::SeqCst),
        };
        let _ = protocol::send(&nonce, &Event::Panicked(panic));
    }));
}

fn classify(info: &PanicHookInfo) -> (Panicked, String) {
    let payload: &dyn Any = info.payload();
    if let Some(CheckFailed(sentence)) = payload.downcast_ref() {
        (Panicked::Check, sentence.clone())
    } else if let Some(CannotCheck(reason)) = payload.downcast_ref() {
        (Panicked::Skip, reason.clone())
    } else if let Some(ChildFailed(why)) = payload.downcast_ref() {
        (Panicked::InChild, why.clone())
    } else {
        let message = info
            .payload_as_str()
            .unwrap_or("(a panic without a message)");
        // `todo!()` has no payload type of its own; this is how core words it.
        if message.starts_with("not yet implemented") {
            (Panicked::NotStarted, message.to_owned())
        } else {
            (Panicked::Other, message.to_owned())
        }
    }
}

/// Children that have ended without being waited for, and whether one is still running.
fn children() -> (u32, bool) {
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(5);
    loop {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, look) {
            Ok(WaitStatus::StillAlive) if waited < PATIENCE => {
                thread::sleep(step);
                waited += step;
            }
            Ok(WaitStatus::StillAlive) => return (0, true),
            Ok(_) => return (reap_all(), false),
            Err(_) => return (0, false),
        }
    }
}

fn reap_all() -> u32 {
    let mut count = 0;
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {
        count += 1;
    }
    count
}
