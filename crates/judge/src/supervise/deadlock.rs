//! Detects that no task of a case can run again: each waits for another one, without a time limit.
//!
//! A deadlock is reported only if no timer can end the waits. Otherwise the time limit decides.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::unistd::Pid;

use crate::procfs;
use crate::record::process;

/// The time after which a task that waits is looked at again.
const MOMENT: Duration = Duration::from_millis(50);

/// The call in which one task waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    process: String,
    call: i64,
    // What follows is not printed. It differs between two polls if the task has run meanwhile.
    args: Vec<u64>,
    switches: Option<u64>,
}

/// What each task waits for, or `None` if any of them may run again by itself.
pub fn waits(root: Pid, live: &BTreeMap<i32, String>) -> Option<Vec<Wait>> {
    let mut waits = Vec::new();
    for (&tid, process) in live {
        // A task that is stopped for the tracer runs again as soon as the tracer resumes it.
        if !procfs::sleeps(tid)? {
            return None;
        }
        // libtest's main thread sleeps only to wait for the case's thread.
        if tid == root.as_raw() && live.len() > 1 {
            continue;
        }
        let (call, args) = procfs::blocked_in(tid)?;
        let untimed = procfs::is_untimed_wait(call, &args);
        // A timer may still send SIGALRM to a task that has a handler for it.
        let alarm = 1 << (libc::SIGALRM - 1);
        if !untimed || procfs::caught_signals(tid)? & alarm != 0 {
            return None;
        }
        waits.push(Wait {
            process: process.clone(),
            call,
            args,
            switches: procfs::context_switches(tid),
        });
    }
    (!waits.is_empty()).then_some(waits)
}

/// Describes each wait in a line.
pub fn describe(waits: &[Wait]) -> Vec<String> {
    let processes: Vec<&str> = waits.iter().map(|wait| wait.process.as_str()).collect();
    let line = |wait: &Wait| format!("{} {}", who(&wait.process, &processes), waits_in(wait.call));
    waits.iter().map(line).collect()
}

/// What each task of the case waits for, in a line, when the case must be stopped. Empty if any of them runs now or a
/// moment later: a task may wait again and again, for a short time.
pub fn all_wait_for(
    root: Pid,
    live: &BTreeMap<i32, String>,
    halted: &BTreeSet<i32>,
) -> Vec<String> {
    let tasks = live.iter().filter(|(tid, _)| **tid != root.as_raw());
    let switches = || -> Vec<_> {
        let tasks = tasks.clone();
        tasks
            .map(|(tid, _)| procfs::context_switches(*tid))
            .collect()
    };
    let before = switches();
    thread::sleep(MOMENT);
    if switches() != before {
        return Vec::new();
    }
    let processes: Vec<&str> = tasks.clone().map(|(_, process)| process.as_str()).collect();
    let wait = |tid: i32| {
        if halted.contains(&tid) || procfs::is_stopped(tid) {
            return Some("is stopped by a signal".to_owned());
        }
        procfs::sleeps(tid)?.then(|| match procfs::blocked_in(tid) {
            Some((call, _)) => waits_in(call),
            None => "waits".to_owned(),
        })
    };
    let lines: Option<Vec<String>> = tasks
        .map(|(tid, process)| Some(format!("{} {}", who(process, &processes), wait(*tid)?)))
        .collect();
    let mut lines = lines.unwrap_or_default();
    lines.dedup();
    lines
}

/// One of these processes, one a task, in a sentence.
fn who(process: &str, processes: &[&str]) -> String {
    match processes {
        [_] => "your code".to_owned(),
        [first, rest @ ..] if rest.iter().all(|other| other == first) => "a thread".to_owned(),
        _ => process::describe(process),
    }
}

fn waits_in(call: i64) -> String {
    let call = match call {
        libc::SYS_futex => "futex (a lock, a condition variable or a join)",
        libc::SYS_wait4 | libc::SYS_waitid => return "waits for a child".to_owned(),
        libc::SYS_rt_sigsuspend | libc::SYS_rt_sigtimedwait => {
            return "waits for a signal".to_owned();
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pause => return "waits for a signal".to_owned(),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => "nanosleep",
        libc::SYS_read | libc::SYS_readv => "read",
        libc::SYS_write | libc::SYS_writev => "write",
        libc::SYS_recvfrom | libc::SYS_recvmsg => "recv",
        libc::SYS_sendto | libc::SYS_sendmsg => "send",
        libc::SYS_accept | libc::SYS_accept4 => "accept",
        libc::SYS_openat => "open",
        libc::SYS_semop | libc::SYS_semtimedop => "semop",
        libc::SYS_msgrcv => "msgrcv",
        libc::SYS_msgsnd => "msgsnd",
        libc::SYS_mq_timedreceive => "mq_receive",
        libc::SYS_mq_timedsend => "mq_send",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => "poll",
        libc::SYS_ppoll | libc::SYS_pselect6 | libc::SYS_epoll_pwait => "poll",
        libc::SYS_fcntl | libc::SYS_flock => "a file lock",
        // A page fault that userfaultfd(2) has not resolved, for example.
        -1 => return "waits outside of a system call".to_owned(),
        number => return format!("waits in system call {number}"),
    };
    format!("waits in {call}")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use nix::unistd::gettid;

    use super::*;

    /// On a busy machine libtest's thread may hold the lock that the case waits for, and itself wait for a processor.
    #[test]
    fn a_lock_held_by_libtests_running_thread_is_no_deadlock() {
        let lock = Mutex::new(());
        let go_on = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let results = thread::scope(|scope| {
            let root = scope.spawn(|| {
                let held = lock.lock().unwrap();
                sender.send(gettid()).unwrap();
                while !go_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                thread::park();
                drop(held);
            });
            let root_tid = receiver.recv().unwrap();
            scope.spawn(|| {
                sender.send(gettid()).unwrap();
                drop(lock.lock());
            });
            let case_tid = receiver.recv().unwrap();
            let until_asleep = |tid: Pid| {
                while procfs::sleeps(tid.as_raw()) != Some(true) {
                    thread::yield_now();
                }
            };
            let live = [root_tid, case_tid].map(|tid| (tid.as_raw(), "P".to_owned()));
            let live = BTreeMap::from(live);
            until_asleep(case_tid);
            let while_it_runs = waits(root_tid, &live);
            go_on.store(true, Ordering::Relaxed);
            until_asleep(root_tid);
            let while_it_sleeps = waits(root_tid, &live);
            root.thread().unpark();
            [while_it_runs, while_it_sleeps].map(|waits| waits.map(|waits| describe(&waits)))
        });
        let waits =
            vec!["your code waits in futex (a lock, a condition variable or a join)".to_owned()];
        assert_eq!(results, [None, Some(waits)]);
    }
}
