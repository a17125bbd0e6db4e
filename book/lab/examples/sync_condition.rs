//! A condition variable must be process-shared to wake a waiter in another process. A killed waiter costs a signal.

use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{self, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED};

/// Checks the result of a pthread function, which returns an error number and does not set errno.
fn check(error: libc::c_int) {
    assert_eq!(error, 0);
}

/// Returns a condition variable in shared memory. `pshared` is the value of pthread_condattr_setpshared(3).
fn condition(pshared: libc::c_int) -> Condition {
    let condition = lab::map_shared(1).cast().as_ptr();
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: `attributes` points to memory for the attributes.
    check(unsafe { libc::pthread_condattr_init(attributes) });
    // SAFETY: the attributes are initialized.
    check(unsafe { libc::pthread_condattr_setpshared(attributes, pshared) });
    // SAFETY: the new page has room for a condition variable, and the attributes are initialized.
    check(unsafe { libc::pthread_cond_init(condition, attributes) });
    condition
}

type Condition = *mut libc::pthread_cond_t;

// ANCHOR: main
/// Starts a child that waits until the returned flag is set.
fn waiter(condition: Condition, mutex: Lock) -> (Child, &'static AtomicU32) {
    let [about_to_wait, ready] = Memory::Shared.atomics();
    let child = Child::start(|| {
        mutex.lock().expect("lock");
        about_to_wait.store(1, Release);
        while ready.load(Relaxed) == 0 {
            // SAFETY: condition and mutex are initialized, and this thread owns the mutex.
            check(unsafe { libc::pthread_cond_wait(condition, mutex.as_ptr()) });
        }
        // SAFETY: this thread owns the mutex.
        unsafe { mutex.unlock() };
        0
    });
    child.wait_until(|| about_to_wait.load(Acquire) == 1 && child.is_sleeping());
    (child, ready)
}

/// Returns whether a signal wakes a child.
fn wakes(condition: Condition, mutex: Lock) -> bool {
    let (child, ready) = waiter(condition, mutex);
    mutex.lock().expect("lock");
    ready.store(1, Relaxed);
    // SAFETY: this thread owns the mutex.
    unsafe { mutex.unlock() };
    // SAFETY: the condition variable is initialized.
    check(unsafe { libc::pthread_cond_signal(condition) });
    // If the signal wakes the child, it does so before it returns.
    let woken = !child.is_sleeping();
    if woken {
        assert_eq!(child.exit_code(), 0);
    }
    woken
}
// ANCHOR_END: main

fn main() {
    let mutex = || {
        Lock::new(
            Memory::Shared,
            PTHREAD_PROCESS_SHARED,
            PTHREAD_MUTEX_STALLED,
        )
    };
    let default = wakes(condition(PTHREAD_PROCESS_PRIVATE), mutex());
    let shared = wakes(condition(PTHREAD_PROCESS_SHARED), mutex());

    let (condition, mutex) = (condition(PTHREAD_PROCESS_SHARED), mutex());
    let (killed, _) = waiter(condition, mutex);
    drop(killed); // kills and reaps it
    let after = [(); 2].map(|()| wakes(condition, mutex));

    let describe = |woken| if woken { "was woken" } else { "keeps sleeping" };
    println!(
        "default condition variable:        the child {}",
        describe(default)
    );
    println!(
        "process-shared condition variable: the child {}",
        describe(shared)
    );
    let [first, second] = after.map(describe);
    println!("after a waiter was killed:         the child {first}, the next one {second}");
    assert_eq!([default, shared], [false, true]);
    assert_eq!(after, [true, false]);
}
