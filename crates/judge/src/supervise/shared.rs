//! What the thread that follows a case shares with the one that watches its limits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits::Stop;

/// The tasks of a case, and the decision to stop it.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Task id → the name of its process.
    live: BTreeMap<i32, String>,
    stop: Option<Stop>,
}

impl Shared {
    /// Adds a task; returns the number of tasks.
    pub fn add(&self, tid: i32, process: &str) -> usize {
        let mut state = self.lock();
        state.live.insert(tid, process.to_owned());
        state.live.len()
    }

    pub fn remove(&self, tid: i32) {
        self.lock().live.remove(&tid);
    }

    /// Replaces all tasks.
    pub fn replace(&self, live: BTreeMap<i32, String>) {
        self.lock().live = live;
    }

    pub fn live(&self) -> BTreeMap<i32, String> {
        self.lock().live.clone()
    }

    /// Stops the case for the first `reason` given, and kills its tasks.
    pub fn stop(&self, reason: Stop) {
        let mut state = self.lock();
        state.stop.get_or_insert(reason);
        for tid in state.live.keys() {
            end(*tid);
        }
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.lock().stop.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the process that task `tid` belongs to. Callers pass only ids that have not been waited for, so that no other
/// process has them.
pub fn end(tid: i32) {
    // kill(2) takes 0 and negative ids for groups.
    if tid > 0 {
        let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
    }
}
