//! Detects that no task of a case can run again: each waits for another one, without a time limit.

use std::collections::BTreeMap;

use nix::libc;
use nix::unistd::Pid;

use crate::procfs;
use crate::record::process;

/// The call in which one task waits. Its arguments distinguish two locks between polls; they are not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    process: String,
    call: i64,
    args: Vec<u64>,
}

/// What each task waits for, or `None` if any of them may run again by itself.
pub fn waits(root: Pid, live: &BTreeMap<i32, String>) -> Option<Vec<Wait>> {
    let mut waits = Vec::new();
    for (&tid, process) in live {
        // A task that is stopped for the tracer runs again as soon as the tracer resumes it.
        if !procfs::sleeps(tid)? {
            return None;
        }
        if tid == root.as_raw() {
            continue; // libtest's main thread sleeps only to wait for the case's thread
        }
        let (call, args) = procfs::blocked_in(tid)?;
        let untimed = match call {
            libc::SYS_futex => {
                let operation = *args.get(1)? as i32 & libc::FUTEX_CMD_MASK;
                let waits = [
                    libc::FUTEX_WAIT,
                    libc::FUTEX_WAIT_BITSET,
                    libc::FUTEX_LOCK_PI,
                ];
                waits.contains(&operation) && *args.get(3)? == 0
            }
            libc::SYS_wait4 => *args.get(2)? as i32 & libc::WNOHANG == 0,
            libc::SYS_waitid => *args.get(3)? as i32 & libc::WNOHANG == 0,
            libc::SYS_rt_sigsuspend => true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_pause => true,
            _ => false,
        };
        // A timer may still send SIGALRM to a task that has a handler for it.
        let alarm = 1 << (libc::SIGALRM - 1);
        if !untimed || procfs::caught_signals(tid)? & alarm != 0 {
            return None;
        }
        waits.push(Wait {
            process: process.clone(),
            call,
            args,
        });
    }
    (!waits.is_empty()).then_some(waits)
}

/// Describes each wait in a line.
pub fn describe(waits: &[Wait]) -> Vec<String> {
    let line = |wait: &Wait| {
        let who = match waits {
            [_] => "your code".to_owned(),
            [first, rest @ ..] if rest.iter().all(|wait| wait.process == first.process) => {
                "a thread".to_owned()
            }
            _ => process::describe(&wait.process),
        };
        let what = match wait.call {
            libc::SYS_futex => "waits for a lock (futex)",
            libc::SYS_wait4 | libc::SYS_waitid => "waits for a child",
            _ => "waits for a signal",
        };
        format!("{who} {what}")
    };
    waits.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

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
        let waits = vec!["your code waits for a lock (futex)".to_owned()];
        assert_eq!(results, [None, Some(waits)]);
    }
}
