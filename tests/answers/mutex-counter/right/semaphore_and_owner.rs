//! The lock is an atomic with the owner's thread ID. Waiters sleep in a process-shared semaphore, and look now and then
//! whether the owner has ended.

use std::cell::UnsafeCell;
use std::io;
use std::num::NonZero;
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::gettid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Clean,
    OwnerDied,
}

pub struct Counter {
    shared: NonNull<Shared>,
}

struct Shared {
    owner: AtomicI32,
    waiters: AtomicU32,
    released: UnsafeCell<libc::sem_t>,
    guarded: UnsafeCell<Guarded>,
}

struct Guarded {
    number: u64,
    owner_died: bool,
}

// SAFETY: a mapping is not tied to a thread, and any thread may take the lock.
unsafe impl Send for Counter {}

// SAFETY: `guarded` is only accessed under the lock. The other fields are thread-safe.
unsafe impl Sync for Counter {}

const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("it has a size");

impl Counter {
    pub fn new() -> io::Result<Counter> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, LEN, protection, MapFlags::MAP_SHARED) }?;
        let counter = Counter {
            shared: start.cast(),
        };
        let process_shared = 1;
        // SAFETY: the memory is new, so nobody else uses the semaphore yet.
        let result = unsafe { libc::sem_init(counter.shared().released.get(), process_shared, 0) };
        Errno::result(result)?;
        Ok(counter)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the memory stays mapped for as long as this value lives. All zeros is a valid `Shared`, and its fields
        // are atomics and `UnsafeCell`s.
        unsafe { self.shared.as_ref() }
    }

    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped, and this is the only reference made under it.
        let guarded = unsafe { &mut *locked.0.guarded.get() };
        let entry = match std::mem::take(&mut guarded.owner_died) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        Ok(f(&mut guarded.number, entry))
    }

    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped.
        Ok(unsafe { (*locked.0.guarded.get()).number })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        let me = gettid().as_raw();
        let mut dead = 0;
        while let Err(owner) = shared.owner.compare_exchange(dead, me, SeqCst, SeqCst) {
            if owner == me {
                return Err(io::Error::from_raw_os_error(libc::EDEADLK));
            }
            shared.waiters.fetch_add(1, SeqCst);
            if shared.owner.load(SeqCst) != 0 {
                wait_a_moment(shared);
            }
            shared.waiters.fetch_sub(1, SeqCst);
            dead = if owner != 0 && has_ended(owner) {
                owner
            } else {
                0
            };
        }
        if dead != 0 {
            // SAFETY: the lock is held.
            unsafe { (*shared.guarded.get()).owner_died = true };
        }
        Ok(Locked(shared))
    }
}

/// Waits for a release, but at most 10 ms. A waiter that is killed leaves `waiters` too large, which does no harm.
fn wait_a_moment(shared: &Shared) {
    let until = SystemTime::now() + Duration::from_millis(10);
    let until = until
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    let until = libc::timespec {
        tv_sec: until.as_secs() as libc::time_t,
        tv_nsec: until.subsec_nanos().into(),
    };
    // SAFETY: the semaphore is initialised, and `until` outlives the call.
    let _ = unsafe { libc::sem_timedwait(shared.released.get(), &raw const until) };
}

/// Whether a thread has ended. A zombie has: kill(2) finds it until its parent waits for it.
fn has_ended(owner: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{owner}/stat")) {
        Ok(text) => text
            .rsplit_once(") ")
            .is_some_and(|(_, state)| state.starts_with(['Z', 'X'])),
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let me = gettid().as_raw();
        if self
            .0
            .owner
            .compare_exchange(me, 0, SeqCst, SeqCst)
            .is_err()
        {
            process::abort();
        }
        if self.0.waiters.load(SeqCst) > 0 {
            // SAFETY: the semaphore is initialised.
            unsafe { libc::sem_post(self.0.released.get()) };
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { munmap(self.shared.cast(), LEN.get()) };
    }
}
