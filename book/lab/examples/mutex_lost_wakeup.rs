//! A mutex that is not process-shared can block a waiter in another process, and never wakes it.
//!
//! Claims: 25.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Release};

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED};

/// Owns the lock, and unlocks it when dropped.
struct Held(Lock);

impl Held {
    fn new(lock: Lock) -> Held {
        lock.lock().expect("lock");
        Held(lock)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: this thread owns the lock.
        unsafe { self.0.unlock() };
    }
}

// ANCHOR: main
/// Holds a lock while a child waits for it, and then unlocks it. Returns whether the
/// unlock wakes the child.
fn wakes<H>(lock: impl Fn() -> H) -> bool {
    let [about_to_lock] = Memory::Shared.atomics();
    let held = lock();
    let child = Child::start(|| {
        about_to_lock.store(1, Release);
        drop(lock());
        0
    });
    // Once the child has set the flag, it can sleep only in the lock call.
    child.wait_until(|| about_to_lock.load(Acquire) == 1 && child.is_sleeping());

    drop(held);
    // If the unlock wakes the child, it does so before it returns.
    let woken = !child.is_sleeping();
    // Locking again shows that the lock is free, even if the child still sleeps.
    drop(lock());
    if woken {
        assert_eq!(child.exit_code(), 0);
    } else {
        assert!(child.is_sleeping());
    }
    woken
}
// ANCHOR_END: main

fn main() {
    let pthread = |shared| {
        let mutex = Lock::new(Memory::Shared, shared, PTHREAD_MUTEX_STALLED);
        move || Held::new(mutex)
    };
    let place = lab::map_shared(1).cast::<Mutex<()>>();
    // SAFETY: the page has room for a mutex, and nothing else accesses it.
    unsafe { place.write(Mutex::new(())) };
    // SAFETY: the mutex was initialized above, in memory that is never unmapped.
    let language: &Mutex<()> = unsafe { place.as_ref() };

    let default = wakes(pthread(PTHREAD_PROCESS_PRIVATE));
    let language = wakes(|| language.lock().expect("no panic"));
    let shared = wakes(pthread(PTHREAD_PROCESS_SHARED));
    println!("default pthread mutex:    {}", describe(default));
    println!("the language's own mutex: {}", describe(language));
    println!("process-shared mutex:     {}", describe(shared));
    assert_eq!([default, language, shared], [false, false, true]);
}

fn describe(woken: bool) -> &'static str {
    match woken {
        true => "the waiter was woken, and got the lock",
        false => "the lock is free, but the waiter keeps sleeping",
    }
}
