//! A mutex whose owner was killed stays locked, and says so only if it is robust.
//! Claims: 25.

use lab::sharing::{Child, Lock, Memory};
use nix::errno::Errno;
use nix::libc::{PTHREAD_MUTEX_ROBUST, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::WaitStatus;

/// A mutex that a child was killed with.
fn orphan(robust: i32) -> Lock {
    let mutex = Lock::new(Memory::Shared, PTHREAD_PROCESS_SHARED, robust);
    let child = Child::start(|| {
        mutex.lock().expect("lock");
        raise(Signal::SIGKILL).expect("raise");
        0
    });
    assert!(matches!(
        child.end(),
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    ));
    mutex
}

fn main() {
    // ANCHOR: main
    let plain = orphan(PTHREAD_MUTEX_STALLED).try_lock();

    let mutex = orphan(PTHREAD_MUTEX_ROBUST);
    let told = mutex.lock();
    mutex.consistent().expect("consistent");
    // SAFETY: EOWNERDEAD, asserted below, gives the lock to this thread.
    unsafe { mutex.unlock() };
    let repaired = mutex.lock();

    let mutex = orphan(PTHREAD_MUTEX_ROBUST);
    let told_too = mutex.lock();
    // SAFETY: as above.
    unsafe { mutex.unlock() };
    let forgotten = mutex.lock();
    // ANCHOR_END: main
    println!("not robust:                try again: {plain:?}");
    println!("robust: {told:?}, repaired, then: {repaired:?}");
    println!("robust: {told_too:?}, unlocked, then: {forgotten:?}");
    assert_eq!(plain, Err(Errno::EBUSY));
    assert_eq!((told, repaired), (Err(Errno::EOWNERDEAD), Ok(())));
    assert_eq!(told_too, Err(Errno::EOWNERDEAD));
    assert_eq!(forgotten, Err(Errno::ENOTRECOVERABLE));
}
