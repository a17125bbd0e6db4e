//! A process-shared mutex serializes two processes: a thousand increments by each of them make 2000.
//!
//! Claims: 25, 28, 29.

use std::sync::atomic::Ordering::Relaxed;

use lab::sharing::{Child, Lock, Memory};
use nix::errno::Errno;
use nix::libc::{PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED};

fn main() {
    // ANCHOR: main
    let [counter] = Memory::Shared.atomics();
    let mutex = Lock::new(
        Memory::Shared,
        PTHREAD_PROCESS_SHARED,
        PTHREAD_MUTEX_STALLED,
    );
    let add_a_thousand = || {
        for _ in 0..1000 {
            mutex.lock().expect("lock");
            // Load and store separately on purpose: only the mutex makes this atomic.
            counter.store(counter.load(Relaxed) + 1, Relaxed);
            // SAFETY: this thread owns the lock.
            unsafe { mutex.unlock() };
        }
    };
    let child = Child::start(|| {
        add_a_thousand();
        0
    });
    add_a_thousand();
    assert_eq!(child.exit_code(), 0);
    println!("{}", counter.load(Relaxed));
    // ANCHOR_END: main
    assert_eq!(counter.load(Relaxed), 2000);

    mutex.lock().expect("lock");
    // SAFETY: glibc does not destroy a locked mutex: the call fails, and the mutex stays valid.
    let locked = unsafe { mutex.destroy() };
    // SAFETY: this thread owns the lock.
    unsafe { mutex.unlock() };
    // SAFETY: the child has ended, and this process does not use the mutex again.
    let unlocked = unsafe { mutex.destroy() };
    println!("destroyed while locked: {locked:?}");
    println!("destroyed after:        {unlocked:?}");
    assert_eq!((locked, unlocked), (Err(Errno::EBUSY), Ok(())));
}
