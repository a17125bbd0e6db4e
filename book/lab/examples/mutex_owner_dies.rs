//! A mutex stays locked when its owner is killed. Only a robust mutex reports the owner's death.
//!
//! Claims: 25.

use lab::sharing::{Child, Lock, Memory};
use nix::errno::Errno;
use nix::libc::{PTHREAD_MUTEX_ROBUST, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::WaitStatus;

/// Returns a mutex whose owner, a child, was killed while it held the lock.
fn orphan(robust: i32) -> Lock {
    let mutex = Lock::new(Memory::Shared, PTHREAD_PROCESS_SHARED, robust);
    let child = Child::start(|| {
        mutex.lock().expect("lock");
        raise(Signal::SIGKILL).expect("raise");
        0
    });
    assert!(matches!(
        child.wait(),
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    ));
    mutex
}

fn main() {
    // ANCHOR: main
    let plain = orphan(PTHREAD_MUTEX_STALLED).try_lock();

    let mutex = orphan(PTHREAD_MUTEX_ROBUST);
    let first_lock = mutex.lock();
    mutex.consistent().expect("consistent");
    // SAFETY: lock returned EOWNERDEAD, as asserted below, so this thread owns the lock.
    unsafe { mutex.unlock() };
    let repaired = mutex.lock();

    let mutex = orphan(PTHREAD_MUTEX_ROBUST);
    let second_lock = mutex.lock();
    // SAFETY: as above, this thread owns the lock.
    unsafe { mutex.unlock() };
    let forgotten = mutex.lock();
    // ANCHOR_END: main
    println!("not robust:                try again: {plain:?}");
    println!("robust: {first_lock:?}, repaired, then: {repaired:?}");
    println!("robust: {second_lock:?}, unlocked, then: {forgotten:?}");
    assert_eq!(plain, Err(Errno::EBUSY));
    assert_eq!((first_lock, repaired), (Err(Errno::EOWNERDEAD), Ok(())));
    assert_eq!(second_lock, Err(Errno::EOWNERDEAD));
    assert_eq!(forgotten, Err(Errno::ENOTRECOVERABLE));
}
