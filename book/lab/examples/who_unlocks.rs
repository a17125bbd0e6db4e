//! A mutex has an owner, who must unlock it. A semaphore has none: anybody may post it.

use std::mem::MaybeUninit;
use std::thread;

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc;

/// Converts the result of a pthread function, which returns its error number.
fn check(result: libc::c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}

/// Locks an error-checking mutex, then unlocks it in another thread and locks it again in this one.
fn unlock_elsewhere() -> (Result<(), Errno>, Result<(), Errno>) {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    let mutex: *mut libc::pthread_mutex_t = Memory::Private.map(1).cast().as_ptr();
    // SAFETY: `attributes` points to memory for the attributes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) }).expect("init");
    let kind = libc::PTHREAD_MUTEX_ERRORCHECK;
    // SAFETY: the attributes are initialized.
    check(unsafe { libc::pthread_mutexattr_settype(attributes, kind) }).expect("settype");
    // SAFETY: the new page has room for a mutex, and the attributes are initialized.
    check(unsafe { libc::pthread_mutex_init(mutex, attributes) }).expect("mutex");
    let address = mutex.expose_provenance();
    // ANCHOR: main
    // SAFETY: the mutex is initialized and never destroyed, here and below.
    check(unsafe { libc::pthread_mutex_lock(mutex) }).expect("lock");
    let other = thread::spawn(move || {
        let mutex = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: as above. An error-checking mutex refuses other threads.
        check(unsafe { libc::pthread_mutex_unlock(mutex) })
    });
    let by_another = other.join().expect("the thread");
    // SAFETY: as above. An error-checking mutex refuses its owner.
    let twice = check(unsafe { libc::pthread_mutex_lock(mutex) });
    // ANCHOR_END: main
    (by_another, twice)
}

/// Waits for a semaphore that a child posts.
fn post_elsewhere() -> Result<(), Errno> {
    let semaphore: *mut libc::sem_t = Memory::Shared.map(1).cast().as_ptr();
    // SAFETY: the new page has room for a semaphore.
    Errno::result(unsafe { libc::sem_init(semaphore, 1, 0) }).expect("sem_init");
    // SAFETY: the semaphore is initialized and never destroyed.
    let child = Child::start(|| unsafe { libc::sem_post(semaphore) });
    // SAFETY: as above.
    let waited = Errno::result(unsafe { libc::sem_wait(semaphore) });
    assert_eq!(child.exit_code(), 0);
    waited.map(drop)
}

fn main() {
    let posted = post_elsewhere();
    let (by_another, twice) = unlock_elsewhere();
    println!(
        "mutex, unlocked by another thread: {:?}",
        by_another.unwrap_err()
    );
    println!("mutex, locked twice by its owner: {:?}", twice.unwrap_err());
    println!("semaphore, posted by another process: {posted:?}");
    assert_eq!(by_another, Err(Errno::EPERM));
    assert_eq!(twice, Err(Errno::EDEADLK));
    assert_eq!(posted, Ok(()));
}
