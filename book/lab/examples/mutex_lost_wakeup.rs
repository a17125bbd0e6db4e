//! A mutex that was not told that it is shared lets another process wait, and never wakes it.
//! Claims: 25.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Release};

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED};

/// Unlocks when it is dropped.
struct Held(Lock);

impl Held {
    fn new(lock: Lock) -> Held {
        lock.lock().expect("lock");
        Held(lock)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: this thread has locked it.
        unsafe { self.0.unlock() };
    }
}

// ANCHOR: main
/// Lets a child wait for a lock that this process holds, and unlocks it. Returns
/// whether that wakes the child.
fn wakes<H>(lock: impl Fn() -> H) -> bool {
    let [about_to_lock] = Memory::Shared.numbers();
    let held = lock();
    let child = Child::start(|| {
        about_to_lock.store(1, Release);
        drop(lock());
        0
    });
    // From then on there is only one thing to sleep for.
    child.wait_until(|| about_to_lock.load(Acquire) == 1 && child.sleeps());

    drop(held);
    // A wake-up ends that sleep before the unlocking call returns.
    let woken = !child.sleeps();
    // The lock is free, whether the child knows it or not.
    drop(lock());
    if woken {
        assert_eq!(child.status(), 0);
    } else {
        assert!(child.sleeps());
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
    // SAFETY: a page has room for a mutex, and nothing else uses it.
    unsafe { place.write(Mutex::new(())) };
    // SAFETY: it was set up just now, in memory that is never unmapped.
    let language: &Mutex<()> = unsafe { place.as_ref() };

    let default = wakes(pthread(PTHREAD_PROCESS_PRIVATE));
    let language = wakes(|| language.lock().expect("no panic"));
    let shared = wakes(pthread(PTHREAD_PROCESS_SHARED));
    println!("default pthread mutex:    {}", say(default));
    println!("the language's own mutex: {}", say(language));
    println!("process-shared mutex:     {}", say(shared));
    assert_eq!([default, language, shared], [false, false, true]);
}

fn say(woken: bool) -> &'static str {
    match woken {
        true => "the waiter was woken, and got the lock",
        false => "the lock is free, and the waiter sleeps on",
    }
}
