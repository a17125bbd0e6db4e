//! The child's side: runs the body of one case, reports how it ended, and exits.

mod filter;
mod fork;
pub mod interpose;
pub mod panics;
pub mod pretend;
pub mod probe;
mod smaps;
mod state;
mod watch;
pub mod window;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use std::{env, mem, process, ptr, thread};

use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::ftruncate;

use fork::exit_now;
pub use fork::in_child;
pub use state::rebase_state;
pub use watch::watch;

use crate::injection::{INJECT, Injection};
use crate::protocol::{self, Channel, EXIT_PIPE_GONE, Ended, Event};

/// How long the end of a case waits for a child that is still running. It is long enough for a child that is about to
/// exit, so that "never waited for" and "still running" do not depend on luck.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs `body` as the case; never returns.
pub fn run(channel: Channel, injection: Option<Injection>, body: &mut dyn FnMut()) -> ! {
    let me = process::id();
    let traced = env::var_os(protocol::TRACED).is_some();
    let injects = env::var_os(INJECT).is_some();
    if injects {
        window::prepare(&channel, injection, traced);
    }
    guard_the_stack();
    renounce_privileges();
    panics::report(channel.clone(), me);
    forget_output();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        if traced && let Err(error) = filter::install(injects) {
            panics::judge_failed(format!("the kernel refuses a seccomp filter: {error}"));
        }
        state::rebase_state();
        watch::grow_the_heap();
        body();
    }));
    let panicked = result.is_err();
    mem::forget(result); // the destructor of a payload is the learner's code, and must not run any more
    let _ = io::stdout().flush();
    let ended = if process::id() == me {
        let (zombies, running) = children();
        if !panicked && let Some(sentence) = state::change() {
            let _ = channel.send(&Event::StateChanged(protocol::shortened(&sentence)));
        }
        Ended::Here {
            panicked,
            zombies,
            running,
        }
    } else {
        Ended::InChild
    };
    if let Some(counts) = window::counts() {
        let _ = channel.send(&Event::Counted(counts));
    }
    let code = match channel.send(&Event::Ended(ended)) {
        Ok(()) => 0,
        Err(_) => EXIT_PIPE_GONE,
    };
    exit_now(code)
}

/// Maps 1 MiB without access below this thread's stack, where the kernel would put the case's next mapping. Otherwise
/// an access past the end of that mapping would hit the stack's guard page and be reported as a stack overflow.
fn guard_the_stack() {
    const LEN: usize = 1 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped. A failure does no harm.
    unsafe { libc::mmap(ptr::null_mut(), LEN, libc::PROT_NONE, flags, -1, 0) };
}

/// Sets no_new_privs, which seccomp filters need, so that it is set with and without them.
fn renounce_privileges() {
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
}

/// Drops what libtest has printed so far, which is no output of the learner's.
fn forget_output() {
    let _ = io::stdout().flush();
    let _ = ftruncate(io::stdout(), 0);
    // SAFETY: `lseek` on descriptor 1 only moves its offset.
    unsafe { libc::lseek(1, 0, libc::SEEK_SET) };
}

/// The number of children that have ended without being waited for, and whether one is still running.
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
