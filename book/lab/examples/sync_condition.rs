//! A condition variable must be process-shared to wake a waiter in another process.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use lab::sharing::{Child, Lock, Memory};
use nix::libc::{self, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED};

/// Checks the result of a pthread function, which returns an error number and does not set errno.
fn check(error: libc::c_int) {
    assert_eq!(error, 0);
}

/// Returns a condition variable in shared memory. `pshared` is the value of pthread_condattr_setpshared(3).
fn condition(pshared: libc::c_int) -> *mut libc::pthread_cond_t {
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

/// Returns whether a signal wakes a child that waits for it.
fn wakes(condition: *mut libc::pthread_cond_t) -> bool {
    // ANCHOR: main
    let [about_to_wait, ready] = Memory::Shared.atomics();
    let mutex = Lock::new(
        Memory::Shared,
        PTHREAD_PROCESS_SHARED,
        PTHREAD_MUTEX_STALLED,
    );
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

    mutex.lock().expect("lock");
    ready.store(1, Relaxed);
    // SAFETY: this thread owns the mutex.
    unsafe { mutex.unlock() };
    // SAFETY: the condition variable is initialized.
    check(unsafe { libc::pthread_cond_signal(condition) });
    // ANCHOR_END: main

    // If the signal wakes the child, it does so before it returns.
    let woken = !child.is_sleeping();
    if woken {
        assert_eq!(child.exit_code(), 0);
    }
    woken
}

fn main() {
    let [default, shared] =
        [PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED].map(|pshared| wakes(condition(pshared)));
    let describe = |woken| {
        if woken {
            "the child was woken"
        } else {
            "the child sleeps on"
        }
    };
    println!("default condition variable:        {}", describe(default));
    println!("process-shared condition variable: {}", describe(shared));
    assert_eq!([default, shared], [false, true]);
}
