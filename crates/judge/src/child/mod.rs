//! The child's side: runs the body of one case, reports how it ended, and exits.

mod common;
mod failures;
mod filter;
mod fork;
pub mod interpose;
pub mod neighbours;
pub mod panics;
mod patience;
pub mod pretend;
pub mod probe;
pub mod signals;
mod smaps;
mod state;
pub mod steps;
mod watch;
pub mod window;
pub mod zygote;

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::{env, mem, process, ptr};

use nix::libc;
use nix::sys::stat::fstat;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ftruncate, gettid};

use fork::exit_now;
pub use fork::in_child;
pub use state::{change_in_child, rebase_state};
pub use watch::{note, watch};

use crate::injection::{INJECT, PLAIN, Refusal};
use crate::procfs;
use crate::protocol::{self, Channel, EXIT_SOCKET_GONE, Ended, Event, Mark};

/// Runs `body` as the case; never returns.
pub fn run(channel: Channel, injection: Option<Refusal>, body: &mut dyn FnMut()) -> ! {
    signals::unblock();
    let me = process::id();
    let traced = env::var_os(protocol::TRACED).is_some();
    let injects = env::var(INJECT).is_ok_and(|run| run != PLAIN);
    if injects {
        window::prepare(&channel, injection, traced);
    }
    let socket = identity(channel.fd);
    // Before the guard, which then separates the page from the case's mappings.
    let common = common::create();
    guard_the_stack();
    renounce_privileges();
    panics::report(channel.clone(), me);
    forget_output();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        if let Err(error) = common {
            panics::judge_failed(format!("the kernel mapped no shared page: {error}"));
        }
        if traced && let Err(error) = filter::install(injects) {
            panics::judge_failed(format!("the kernel rejected the seccomp filter: {error}"));
        }
        common::lock();
        state::rebase_state();
        watch::grow_the_heap();
        body();
    }));
    let panicked = result
        .as_ref()
        .err()
        .map(|payload| panics::thrown(&**payload));
    mem::forget(result); // the destructor of a payload is the learner's code, and must not run any more
    let ended = if process::id() == me {
        // A thread that is left may hold the lock of standard output. Then only an unfinished line gets lost.
        if wait_for_threads().is_empty() {
            let _ = io::stdout().flush();
        }
        let (zombies, running) = children();
        panics::flush();
        if panicked.is_none()
            && let Some(sentence) = state::change()
        {
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
    let is_open = socket.is_some() && identity(channel.fd) == socket;
    if is_open && channel.send(&Event::Ended(ended)).is_ok() {
        exit_now(0)
    }
    window::mark(Mark::SocketGone, 0);
    exit_now(EXIT_SOCKET_GONE)
}

/// What the descriptor refers to; `None` if it is not open.
fn identity(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: if the descriptor is closed or another one by then, fstat(2) fails or describes that one.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let file = fstat(fd).ok()?;
    Some((file.st_dev, file.st_ino))
}

/// Gives threads that nobody has joined the time to panic: a panic must not pass or fail by luck. Returns those that are
/// left.
fn wait_for_threads() -> Vec<i32> {
    patience::await_end(other_threads)
}

/// The threads of this process, without this one and libtest's main thread.
fn other_threads() -> Vec<i32> {
    let main = process::id() as i32;
    let mut threads = procfs::threads(main);
    threads.retain(|tid| ![main, gettid().as_raw()].contains(tid));
    threads
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

/// The number of children that have ended without being waited for, and whether one is still running. Waits for those
/// that run, so that the number does not depend on luck.
fn children() -> (u32, bool) {
    let mut ended = 0;
    let running = patience::await_end(|| {
        ended += reap_all();
        let look = ALL | WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, look) {
            Err(_) => Vec::new(),
            Ok(_) => threads_of_children(),
        }
    });
    (ended, !running.is_empty())
}

/// The threads of the children that this process has.
fn threads_of_children() -> Vec<i32> {
    let me = process::id() as i32;
    let parents = procfs::threads(me).into_iter();
    let children = parents.flat_map(|tid| procfs::children(me, tid));
    let threads: Vec<i32> = children.flat_map(procfs::threads).collect();
    match threads.is_empty() {
        // The kernel does not list them. There is no task 0, which counts as one that sleeps.
        true => vec![0],
        false => threads,
    }
}

/// Also a child of clone(2) whose end sends no SIGCHLD.
const ALL: WaitPidFlag = WaitPidFlag::__WALL;

fn reap_all() -> u32 {
    let mut count = 0;
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(ALL | WaitPidFlag::WNOHANG))
    {
        count += 1;
    }
    count
}
