//! Runs a grader's closure in a forked child.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};
use std::{process, thread};

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::panics::{ChildFailed, judge_failed};
use crate::limits::LIBTEST;
use crate::procfs;

/// How long a thread that has been joined may still be listed: `pthread_join` returns before the kernel has removed it.
const JOINED: Duration = Duration::from_millis(100);

/// Runs `f` in a forked child that always ends in `_exit`, and returns its exit status.
///
/// # Panics
/// If `f` panics or the child is killed: the case then fails with that cause. If the case runs other threads, which a
/// fork must not interrupt, or if fork(2) fails: the case then cannot be graded.
pub fn in_child(f: impl FnOnce() -> u8) -> u8 {
    let mut f = Some(f);
    run(&mut || f.take().expect("the child runs once")())
}

fn run(f: &mut dyn FnMut() -> u8) -> u8 {
    expect_no_other_thread();
    let _ = io::stdout().flush();
    // SAFETY: besides this thread there is only libtest's, which holds no lock while it waits for the case. So the
    // child may allocate and panic as its parent could.
    let forked = unsafe { fork() };
    match forked {
        Err(error) => judge_failed(format!("in_child cannot fork: {error}")),
        Ok(ForkResult::Child) => {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            let _ = io::stdout().flush();
            exit_now(result.map_or(101, i32::from))
        }
        Ok(ForkResult::Parent { child }) => loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(_, 101)) => failed("its child panicked".to_owned()),
                Ok(WaitStatus::Exited(_, code)) => return code as u8,
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    failed(format!("a forked child was killed by {signal}"))
                }
                other => failed(format!("its child could not be waited for: {other:?}")),
            }
        },
    }
}

fn expect_no_other_thread() {
    let begun = Instant::now();
    loop {
        let threads = procfs::threads(process::id() as i32).len();
        if threads <= LIBTEST {
            return;
        }
        if begun.elapsed() > JOINED {
            let others = threads - LIBTEST;
            judge_failed(format!(
                "in_child cannot fork while other threads of the case run ({others})"
            ));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn failed(how: String) -> ! {
    panic::panic_any(ChildFailed(how))
}

pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and ends the process without running any handler.
    unsafe { libc::_exit(code) }
}
