//! What the thread that traces a case shares with the one that watches the clock.

use std::collections::BTreeMap;
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits::Stop;

/// The tasks of a case, and the decision to end it.
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
    /// A task is born; how many there are now.
    pub fn born(&self, tid: i32, process: &str) -> usize {
        let mut state = self.lock();
        state.live.insert(tid, process.to_owned());
        state.live.len()
    }

    pub fn gone(&self, tid: i32) {
        self.lock().live.remove(&tid);
    }

    /// Without a tracer: these are the tasks now.
    pub fn replace(&self, live: BTreeMap<i32, String>) {
        self.lock().live = live;
    }

    pub fn live(&self) -> BTreeMap<i32, String> {
        self.lock().live.clone()
    }

    /// Ends the case: the first reason stands, and everything known is killed.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Kills the process that task `tid` belongs to. Its id stays its own until it has been waited for, and only ids
/// that have not been are passed here.
pub fn end(tid: i32) {
    // To kill(2), 0 and below mean a group, or everybody.
    if tid > 0 {
        let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
    }
}
