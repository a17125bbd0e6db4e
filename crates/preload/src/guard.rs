//! What is around each call of the answer.

use std::cell::Cell;

thread_local! {
    /// Whether this thread is inside the answer. It has no destructor, so it is accessible until the thread has ended.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call of the answer. If this thread is inside the answer already, calls `nested` instead: libc allocates, for
/// example, when the answer's first access to a thread-local variable registers its destructor.
pub fn enter<R>(call: impl FnOnce() -> R, nested: impl FnOnce() -> R) -> R {
    if INSIDE.replace(true) {
        return nested();
    }
    #[cfg(not(feature = "global"))]
    let _held = lock::hold();
    let result = call();
    INSIDE.set(false);
    result
}

/// A lock around all calls, for an answer without the stage `global`. It is held during a fork, so that the child
/// inherits no lock of the answer that another thread holds.
#[cfg(not(feature = "global"))]
mod lock {
    use std::cell::UnsafeCell;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use nix::libc;

    /// A lock of libc, because the handlers of a fork cannot pass a guard from one to the other.
    struct Lock(UnsafeCell<libc::pthread_mutex_t>);

    // SAFETY: a mutex is made for use by several threads.
    unsafe impl Sync for Lock {}

    static LOCK: Lock = Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

    pub struct Held;

    impl Drop for Held {
        fn drop(&mut self) {
            unlock();
        }
    }

    pub fn hold() -> Held {
        lock();
        register();
        Held
    }

    extern "C" fn lock() {
        // SAFETY: the mutex is initialized and never moves.
        unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
    }

    extern "C" fn unlock() {
        // SAFETY: as above, and this thread has locked it. In a forked child, it is the copy of that thread.
        unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
    }

    /// Registers the handlers at the first call, which the loader makes before any library can register handlers.
    /// Handlers before a fork run in reverse order, so no other one allocates while the lock is held.
    fn register() {
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        if !REGISTERED.swap(true, Relaxed) {
            // SAFETY: the handlers are functions that can run around any fork.
            unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock)) };
        }
    }
}
