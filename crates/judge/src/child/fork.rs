//! Runs a grader's closure in a forked child.

use std::convert::Infallible;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::process;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::common::{self, End};
use super::panics::{self, ChildFailed, judge_failed};
use super::{patience, state};

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
    if let Err(error) = common::create() {
        judge_failed(format!("in_child cannot map a shared page: {error}"));
    }
    common::set_end(End::Not);
    // SAFETY: besides this thread there is only libtest's, which holds no lock while it waits for the case. So the
    // child may allocate and panic as its parent could.
    let forked = unsafe { fork() };
    match forked {
        Err(error) => judge_failed(format!("in_child cannot fork: {error}")),
        Ok(ForkResult::Child) => {
            let me = process::id();
            let result = catch_unwind(AssertUnwindSafe(f));
            let _ = io::stdout().flush();
            if process::id() != me {
                panics::report_escape();
                exit_now(0)
            }
            match result {
                Ok(code) => {
                    common::set_end(End::Returned);
                    exit_now(i32::from(code))
                }
                Err(payload) => {
                    panics::report_payload(&*payload);
                    panics::flush();
                    common::set_end(End::Panicked);
                    exit_now(101)
                }
            }
        }
        Ok(ForkResult::Parent { child }) => loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(_, code)) => match common::end() {
                    End::Returned => return code as u8,
                    End::Panicked => failed("A forked child panicked.".to_owned()),
                    End::Not => failed(format!(
                        "A forked child exited with status {code} before the code that it ran returned."
                    )),
                },
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    failed(format!("A forked child was killed by {signal}."))
                }
                Err(Errno::ECHILD) => blame(|| {
                    crate::fail(
                        "waitpid failed with ECHILD for a child that the grader had forked; expected its status. Wait \
                         only for your own children, by their ids."
                            .to_owned(),
                    )
                }),
                other => judge_failed(format!("in_child cannot wait for its child: {other:?}")),
            }
        },
    }
}

fn expect_no_other_thread() {
    // A thread that has been joined may still be listed: `pthread_join` returns before the kernel has removed it.
    let others = patience::await_end(super::other_threads).len();
    if others > 0 {
        blame(|| {
            judge_failed(format!(
                "in_child cannot fork while other threads of the case run ({others})"
            ))
        });
    }
}

/// Fails the case with what the answer has changed. Calls `otherwise` if it has changed nothing.
fn blame(otherwise: impl FnOnce() -> Infallible) -> ! {
    match state::change() {
        Some(sentence) => crate::fail(sentence),
        None => match otherwise() {},
    }
}

fn failed(how: String) -> ! {
    panic_any(ChildFailed(how))
}

pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and ends the process without running any handler.
    unsafe { libc::_exit(code) }
}
