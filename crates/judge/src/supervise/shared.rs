//! What the thread that follows a case shares with the one that watches its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::kill;
use crate::limits::{Places, Stop};
use crate::procfs;

/// The tasks of a case, and the decision to stop it.
#[derive(Debug)]
pub struct Shared {
    /// The case's first process, if the case is not traced.
    untraced: Option<i32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Task id → the name of its process.
    live: BTreeMap<i32, String>,
    /// The largest number of tasks so far.
    most: usize,
    /// The processes that may have set a timer.
    timers: BTreeSet<String>,
    /// The tasks that job control has stopped.
    halted: BTreeSet<i32>,
    /// The number of instructions that were executed step by step, and of the beginnings of such parts.
    steps: usize,
    /// The place up to which the case runs code step by step, and since when.
    places: Option<(Places, Instant)>,
    stop: Option<Stop>,
}

impl Shared {
    pub fn traced() -> Shared {
        Shared {
            untraced: None,
            state: Mutex::default(),
        }
    }

    /// For a case without a tracer, whose first process is `root`.
    pub fn untraced(root: i32) -> Shared {
        Shared {
            untraced: Some(root),
            state: Mutex::default(),
        }
    }

    /// Adds a task; returns the number of tasks.
    pub fn add(&self, tid: i32, process: &str) -> usize {
        let mut state = self.lock();
        state.live.insert(tid, process.to_owned());
        state.most = state.most.max(state.live.len());
        state.live.len()
    }

    pub fn remove(&self, tid: i32) {
        self.lock().live.remove(&tid);
    }

    /// Notes whether job control has stopped the task `tid`.
    pub fn halt(&self, tid: i32, is_halted: bool) {
        let mut state = self.lock();
        match is_halted {
            true => state.halted.insert(tid),
            false => state.halted.remove(&tid),
        };
    }

    pub fn halted(&self) -> BTreeSet<i32> {
        self.lock().halted.clone()
    }

    /// Notes that the case begins to execute code step by step, or has executed another step.
    pub fn step(&self) {
        self.lock().steps += 1;
    }

    /// How many times the case has noted a step: 0 if it executes no code step by step.
    pub fn steps(&self) -> usize {
        self.lock().steps
    }

    /// Notes that the case runs code up to another one of its places.
    pub fn run_to(&self, places: Places) {
        let mut state = self.lock();
        if state.places.is_none_or(|(former, _)| former != places) {
            state.places = Some((places, Instant::now()));
        }
    }

    /// The last place up to which the case has run code, and since when.
    pub fn places(&self) -> Option<(Places, Instant)> {
        self.lock().places
    }

    /// Notes that `process` may have set a timer, which stays possible until it ends.
    pub fn add_timer(&self, process: &str) {
        self.lock().timers.insert(process.to_owned());
    }

    /// Whether a timer may be pending in a process that runs. Without a tracer nobody knows.
    pub fn may_have_timer(&self) -> bool {
        let state = self.lock();
        let has_timer = |process: &String| state.timers.contains(process);
        self.untraced.is_some() || state.live.values().any(has_timer)
    }

    /// Replaces all tasks.
    pub fn replace(&self, live: BTreeMap<i32, String>) {
        let mut state = self.lock();
        state.most = state.most.max(live.len());
        state.live = live;
    }

    /// Whether the case's thread has ended: only libtest's is left.
    pub fn has_lost_its_thread(&self) -> bool {
        let state = self.lock();
        state.live.len() == 1 && state.most > 1
    }

    pub fn live(&self) -> BTreeMap<i32, String> {
        self.lock().live.clone()
    }

    /// Stops the case for the first `reason` given, and kills its tasks.
    pub fn stop(&self, reason: Stop) {
        let mut state = self.lock();
        state.stop.get_or_insert(reason);
        if let Some(root) = self.untraced {
            // `root` has not been waited for, so its id still names its group, which ends at once.
            let _ = killpg(Pid::from_raw(root), Signal::SIGKILL);
        }
        for tid in state.live.keys() {
            match self.untraced {
                None => kill::traced(*tid),
                Some(root) => {
                    let belongs = |pid| procfs::descends_from(pid, root);
                    kill::untraced(*tid, Signal::SIGKILL, belongs);
                }
            }
        }
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.lock().stop.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use nix::libc;

    use super::*;
    use crate::record::process::FIRST;

    fn sleeping(seconds: &str) -> Child {
        Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    /// The answer has waited for its child, and the child's id is reused by a process that does not belong to the case.
    #[test]
    fn an_id_that_was_reused_is_not_killed() {
        let mut root = sleeping("60");
        let mut stranger = sleeping("0.3");
        let [root_id, stranger_id] = [&root, &stranger].map(|child| child.id() as i32);
        let shared = Shared::untraced(root_id);
        shared.add(root_id, FIRST);
        shared.add(stranger_id, "P.1");
        shared.stop(Stop::Memory(1));
        assert_eq!(root.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(stranger.wait().unwrap().success());
    }
}
