//! Finds and kills the processes that an untraced case has left.
//!
//! A process may leave its group, its session and its parent, and clear its environment. But orphans become children
//! of the nearest subreaper: of the case's first process, and after its end of the judge. They cannot get rid of the
//! case's seccomp filters, by which the judge tells them from its other children.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};

use super::kill;
use crate::procfs;

/// The time after which a process that does not end is given up. It is in an uninterruptible wait.
const KILL_TIME: Duration = Duration::from_secs(5);

/// The first processes of the untraced cases that are running.
static ROOTS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The first processes of the untraced cases. While the lock is held, no child is taken for a stray.
pub fn roots() -> MutexGuard<'static, BTreeSet<i32>> {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process adopt the orphans of its cases.
pub fn adopt_orphans() {
    let (on, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on, zero, zero, zero) };
}

/// Kills what the case with the first process `root`, which has ended and has not been waited for, has left. `tag` is in
/// the environment of its processes. Returns how many processes there were.
pub fn kill_all(root: i32, tag: &[u8]) -> usize {
    let filters = procfs::filters(getpid().as_raw());
    let roots = roots();
    let belongs = |pid: i32| {
        pid != root
            && !procfs::has_ended(pid)
            && (procfs::group_of(pid) == Some(root)
                || procfs::has_in_environment(pid, tag)
                || filters.is_some_and(|own| has_strayed(pid, own, &roots)))
    };
    let group = Pid::from_raw(root);
    // The kernel lets no process of the group fork before it has got the signal, so most fork bombs end here.
    let _ = killpg(group, Signal::SIGSTOP);
    let mut left = BTreeSet::new();
    let deadline = Instant::now() + KILL_TIME;
    // A process that is stopped does not fork, so in the end none is new.
    loop {
        let before = left.len();
        let stopped = |pid: &i32| kill::untraced(*pid, Signal::SIGSTOP, belongs);
        left.extend(procfs::processes().into_iter().filter(stopped));
        if left.len() == before || Instant::now() > deadline {
            break;
        }
    }
    let _ = killpg(group, Signal::SIGKILL);
    for pid in &left {
        kill::untraced(*pid, Signal::SIGKILL, belongs);
    }
    while !left.iter().all(|pid| is_gone(*pid)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    left.len()
}

/// Whether `pid` descends from a child that the judge has adopted from a case, whose first process has ended. `own` is
/// the number of filters of the judge.
fn has_strayed(mut pid: i32, own: usize, roots: &BTreeSet<i32>) -> bool {
    if procfs::filters(pid).is_none_or(|filters| filters <= own) {
        return false;
    }
    let judge = getpid().as_raw();
    loop {
        match procfs::parent_of(pid) {
            Some(parent) if parent == judge => return !roots.contains(&pid),
            Some(parent @ 1..) => pid = parent,
            _ => return false,
        }
    }
}

/// Whether `pid`, which was killed, has ended. Waits for it if the judge has adopted it.
fn is_gone(pid: i32) -> bool {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    procfs::has_ended(pid)
}
