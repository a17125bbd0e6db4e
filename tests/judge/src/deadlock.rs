//! Finds out that nothing in a case can ever run again: each task waits, without a time limit, for another one.

use std::collections::BTreeMap;

use nix::libc;
use nix::unistd::Pid;

use crate::procfs;
use crate::sentence::process_words;

/// What one task waits for. The address tells two locks apart from one look to the next; it is never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    process: String,
    call: i64,
    args: Vec<u64>,
}

/// What each task waits for, or `None` if one of them may still move by itself.
pub fn waits(root: Pid, live: &BTreeMap<i32, String>) -> Option<Vec<Wait>> {
    let mut waits = Vec::new();
    for (&tid, process) in live {
        if tid == root.as_raw() {
            continue; // libtest's main thread: it waits for the case's
        }
        // One that is stopped for the tracer goes on as soon as that one does.
        if !procfs::sleeps(tid)? {
            return None;
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
        // A handler for SIGALRM may be waiting for its timer.
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

/// One line for each task.
pub fn describe(waits: &[Wait]) -> Vec<String> {
    let line = |wait: &Wait| {
        let who = match waits {
            [_] => "your code".to_owned(),
            [first, rest @ ..] if rest.iter().all(|wait| wait.process == first.process) => {
                "a thread".to_owned()
            }
            _ => process_words(&wait.process),
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
