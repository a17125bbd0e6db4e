//! The window of injected calls. The tracer counts most calls in it, and the thread that answers notified calls the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::injection::Refusal;

#[derive(Debug)]
pub struct Window {
    injection: Option<Refusal>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The threads that are in the window.
    open: BTreeSet<i32>,
    counts: BTreeMap<String, usize>,
    injected: bool,
}

impl Window {
    pub fn new(injection: Option<Refusal>) -> Window {
        Window {
            injection,
            state: Mutex::default(),
        }
    }

    /// Notes that the thread `tid` has entered or left the window.
    pub fn set(&self, tid: i32, open: bool) {
        let mut state = self.lock();
        match open {
            true => state.open.insert(tid),
            false => state.open.remove(&tid),
        };
    }

    pub fn contains(&self, tid: i32) -> bool {
        self.lock().open.contains(&tid)
    }

    /// Counts a call, and returns the error with which the plan says that it fails.
    pub fn count(&self, name: &str) -> Option<Errno> {
        let mut state = self.lock();
        let count = state.counts.entry(name.to_owned()).or_default();
        let index = *count;
        *count += 1;
        let injection = self.injection.filter(|planned| planned.hits(name, index));
        injection.map(|injection| injection.errno)
    }

    /// Notes that the injection has taken place.
    pub fn has_injected(&self) {
        self.lock().injected = true;
    }

    /// Whether the injection has taken place.
    pub fn injected(&self) -> bool {
        self.lock().injected
    }

    /// The number of calls so far, by name.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
