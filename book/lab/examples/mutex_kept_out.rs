//! An addition between another process's load and store is lost, unless one mutex in shared memory prevents it.
//!
//! Claims: 25.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED};

/// Adds 1 if the lock is free or there is no lock. Returns whether it did.
fn try_add(counter: &AtomicU32, lock: Option<Lock>) -> bool {
    if lock.is_some_and(|lock| lock.try_lock().is_err()) {
        return false;
    }
    counter.store(counter.load(Relaxed) + 1, Relaxed);
    if let Some(lock) = lock {
        // SAFETY: this thread owns the lock.
        unsafe { lock.unlock() };
    }
    true
}

// ANCHOR: main
/// Adds 1, and lets a child try to add 1 between the load and the store. If the lock kept
/// the child out, adds the child's 1 afterwards. Returns the sum.
fn two_additions(lock: Option<Lock>) -> u32 {
    let [counter, turn] = Memory::Shared.atomics();
    // Fork before locking. Otherwise the child would inherit a locked copy of a lock in
    // private memory.
    let child = Child::start(|| {
        while turn.load(Acquire) == 0 {
            thread::yield_now();
        }
        i32::from(try_add(counter, lock))
    });

    if let Some(lock) = lock {
        lock.lock().expect("lock");
    }
    let loaded = counter.load(Relaxed);
    turn.store(1, Release);
    let child_added = child.exit_code() == 1;
    counter.store(loaded + 1, Relaxed);
    if let Some(lock) = lock {
        // SAFETY: this thread owns the lock.
        unsafe { lock.unlock() };
    }
    assert!(child_added || try_add(counter, lock));
    counter.load(Relaxed)
}
// ANCHOR_END: main

fn main() {
    let lock = |memory| Lock::new(memory, PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_STALLED);
    let none = two_additions(None);
    let private = two_additions(Some(lock(Memory::Private)));
    let shared = two_additions(Some(lock(Memory::Shared)));
    println!("no lock:                1 + 1 = {none}");
    println!("lock in private memory: 1 + 1 = {private}");
    println!("lock in shared memory:  1 + 1 = {shared}");
    assert_eq!([none, private, shared], [1, 1, 2]);
}
