//! Which locks the kernel releases or marks when their owner is killed: record locks and robust mutexes, no others.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Acquire, Release};

use lab::sharing::{Child, Lock, Memory};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{
    self, PTHREAD_MUTEX_ROBUST, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED, SEEK_SET,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pause;

/// Converts the result of a pthread function, which returns its error number and does not set errno.
fn check(result: libc::c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}

// ANCHOR: main
/// Kills a child that has taken a lock. Returns what a second attempt returns, before and
/// after the child's death.
fn outcomes(try_lock: impl Fn() -> Result<(), Errno>) -> [Result<(), Errno>; 2] {
    let [taken] = Memory::Shared.atomics();
    let child = Child::start(|| {
        try_lock().expect("the lock is free");
        taken.store(1, Release);
        loop {
            pause();
        }
    });
    child.wait_until(|| taken.load(Acquire) == 1);
    let before = try_lock();
    drop(child); // kills and reaps it
    [before, try_lock()]
}
// ANCHOR_END: main

/// A semaphore with the value 1.
fn semaphore() -> impl Fn() -> Result<(), Errno> {
    let semaphore: *mut libc::sem_t = lab::map_shared(1).cast().as_ptr();
    // SAFETY: the new page has room for a semaphore.
    Errno::result(unsafe { libc::sem_init(semaphore, 1, 1) }).expect("sem_init");
    // SAFETY: the semaphore is initialized and never destroyed.
    move || Errno::result(unsafe { libc::sem_trywait(semaphore) }).map(drop)
}

fn spinlock() -> impl Fn() -> Result<(), Errno> {
    let lock: *mut libc::pthread_spinlock_t = lab::map_shared(1).cast().as_ptr();
    // SAFETY: the new page has room for a spinlock.
    check(unsafe { libc::pthread_spin_init(lock, PTHREAD_PROCESS_SHARED) }).expect("spinlock");
    // SAFETY: the spinlock is initialized and never destroyed.
    move || check(unsafe { libc::pthread_spin_trylock(lock) })
}

fn read_write_lock() -> impl Fn() -> Result<(), Errno> {
    let lock: *mut libc::pthread_rwlock_t = lab::map_shared(1).cast().as_ptr();
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: `attributes` points to memory for the attributes.
    check(unsafe { libc::pthread_rwlockattr_init(attributes) }).expect("attributes");
    // SAFETY: the attributes are initialized.
    check(unsafe { libc::pthread_rwlockattr_setpshared(attributes, PTHREAD_PROCESS_SHARED) })
        .expect("pshared");
    // SAFETY: the new page has room for the lock, and the attributes are initialized.
    check(unsafe { libc::pthread_rwlock_init(lock, attributes) }).expect("read-write lock");
    // SAFETY: the lock is initialized and never destroyed.
    move || check(unsafe { libc::pthread_rwlock_trywrlock(lock) })
}

fn mutex(robust: libc::c_int) -> impl Fn() -> Result<(), Errno> {
    let mutex = Lock::new(Memory::Shared, PTHREAD_PROCESS_SHARED, robust);
    move || mutex.try_lock()
}

/// A lock of fcntl(2) on a whole file.
fn record_lock() -> impl Fn() -> Result<(), Errno> {
    let file = memfd_create("lock", MFdFlags::MFD_CLOEXEC).expect("memfd_create");
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    move || fcntl(&file, FcntlArg::F_SETLK(&whole)).map(drop)
}

fn main() {
    let table = [
        ("semaphore of 1", outcomes(semaphore())),
        ("spinlock", outcomes(spinlock())),
        ("read-write lock", outcomes(read_write_lock())),
        ("mutex", outcomes(mutex(PTHREAD_MUTEX_STALLED))),
        ("robust mutex", outcomes(mutex(PTHREAD_MUTEX_ROBUST))),
        ("record lock", outcomes(record_lock())),
    ];
    println!("                 owner alive  owner killed");
    for (name, [before, after]) in table {
        let name_of = |result: Result<(), Errno>| match result {
            Ok(()) => "locked".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        println!("{name:16} {:12} {}", name_of(before), name_of(after));
        let expected = match name {
            "robust mutex" => Err(Errno::EOWNERDEAD),
            "record lock" => Ok(()),
            _ => before,
        };
        assert!(before.is_err());
        assert_eq!(after, expected, "{name}");
    }
}
