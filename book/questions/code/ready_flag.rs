//! Passes a value from one process to another in shared memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub struct Mail {
    value: AtomicU64,
    ready: AtomicBool,
}

impl Mail {
    /// Must be called at most once.
    pub fn send(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        self.ready.store(true, Ordering::Relaxed);
    }

    pub fn receive(&self) -> Option<u64> {
        let ready = self.ready.load(Ordering::Acquire);
        ready.then(|| self.value.load(Ordering::Relaxed))
    }
}
