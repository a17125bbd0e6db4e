//! An addition between another's load and its store is lost, unless one lock in shared memory keeps it out.
//! Claims: 25.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED};

/// Adds 1 if the lock is free, or if there is none; whether it did.
fn added(number: &AtomicU32, lock: Option<Lock>) -> bool {
    if lock.is_some_and(|lock| lock.try_lock().is_err()) {
        return false;
    }
    number.store(number.load(Relaxed) + 1, Relaxed);
    if let Some(lock) = lock {
        // SAFETY: this thread has locked it.
        unsafe { lock.unlock() };
    }
    true
}

// ANCHOR: main
/// Adds 1, and between load and store lets a child try to add 1, too. If the child was
/// kept out, its 1 is added afterwards.
fn two_additions(lock: Option<Lock>) -> u32 {
    let [number, turn] = Memory::Shared.numbers();
    // Forked before this process locks: otherwise it would have a locked copy of a
    // lock in private memory.
    let child = Child::start(|| {
        while turn.load(Acquire) == 0 {
            thread::yield_now();
        }
        i32::from(added(number, lock))
    });

    if let Some(lock) = lock {
        lock.lock().expect("lock");
    }
    let loaded = number.load(Relaxed);
    turn.store(1, Release);
    let done = child.status() == 1;
    number.store(loaded + 1, Relaxed);
    if let Some(lock) = lock {
        // SAFETY: this thread has locked it.
        unsafe { lock.unlock() };
    }
    assert!(done || added(number, lock));
    number.load(Relaxed)
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
