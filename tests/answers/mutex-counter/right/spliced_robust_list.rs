//! A robust futex, spliced by hand into the list that the C library has registered with the kernel.

use nix::libc;
use std::cell::UnsafeCell;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock, so the counter may be half updated.
    OwnerDied,
}

const TID: u32 = 0x3fff_ffff;
const DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;

/// The list head that the kernel reads, as in <linux/futex.h>.
#[repr(C)]
struct Head {
    list: *mut *mut libc::c_void,
    offset: libc::c_long,
    pending: *mut *mut libc::c_void,
}

/// A counter and its lock in shared memory.
pub struct Counter {
    shared: NonNull<Shared>,
    /// Distance from the entry in the list to the lock word.
    offset: isize,
}

/// Words around the entry: the C library keeps a pointer to the previous entry in front of it.
#[repr(C, align(64))]
struct Shared {
    words: UnsafeCell<[u64; 32]>,
    died: AtomicU32,
    number: UnsafeCell<u64>,
}

/// Index of the entry in `words`.
const ENTRY: usize = 16;

fn tid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.cast_unsigned()
}

fn head() -> io::Result<*mut Head> {
    let mut head: *mut Head = null_mut();
    let mut len = 0usize;
    // SAFETY: both pointers are to locals.
    let r = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    if head.is_null() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    Ok(head)
}

fn futex(word: &AtomicU32, op: libc::c_int, value: u32) {
    // SAFETY: the word lives, and there is no time limit.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, 0usize, 0usize, 0) };
}

struct Guard<'a> {
    counter: &'a Counter,
    head: *mut Head,
    tid: u32,
}

impl Counter {
    /// Maps the memory.
    ///
    /// # Errors
    /// The error of mmap or get_robust_list.
    pub fn new() -> io::Result<Counter> {
        let head = head()?;
        // SAFETY: the kernel returned the head of this thread.
        let offset = unsafe { (*head).offset } as isize;
        assert!(offset.unsigned_abs() < 100 && offset % 4 == 0);
        // SAFETY: a new mapping.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Counter {
            shared: NonNull::new(address.cast()).expect("mmap does not return null"),
            offset,
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as self, and all of it is in cells.
        unsafe { self.shared.as_ref() }
    }

    fn node(&self) -> *mut *mut libc::c_void {
        self.shared()
            .words
            .get()
            .cast::<*mut libc::c_void>()
            .wrapping_add(ENTRY)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the offset is small and a multiple of 4, so the word is in the array.
        unsafe { AtomicU32::from_ptr(self.node().cast::<u8>().wrapping_offset(self.offset).cast()) }
    }

    fn lock(&self) -> io::Result<Guard<'_>> {
        let head = head()?;
        let tid = tid();
        let word = self.word();
        if word.load(Ordering::Relaxed) & TID == tid {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        // SAFETY: the head of this thread.
        unsafe { (&raw mut (*head).pending).write_volatile(self.node()) };
        compiler_fence(Ordering::SeqCst);
        let mut current = word.load(Ordering::Relaxed);
        let mut keep = 0;
        loop {
            if current & TID == 0 {
                let new = tid | (current & (WAITERS | DIED)) | keep;
                match word.compare_exchange(current, new, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => current = now,
                }
                continue;
            }
            if current & WAITERS == 0 {
                if let Err(now) = word.compare_exchange(
                    current,
                    current | WAITERS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    current = now;
                    continue;
                }
                current |= WAITERS;
            }
            futex(word, libc::FUTEX_WAIT, current);
            keep = WAITERS;
            current = word.load(Ordering::Relaxed);
        }
        // SAFETY: the head of this thread. Nobody else changes the list.
        let first = unsafe { (*head).list };
        let node = self.node();
        // SAFETY: the entry is in the shared memory, and this thread holds the lock.
        unsafe { node.write_volatile(first.cast()) };
        // SAFETY: as above. The C library's pointer to the previous entry.
        unsafe {
            node.wrapping_sub(1)
                .write_volatile((&raw mut (*head).list).cast())
        };
        // SAFETY: the head of this thread.
        let empty = unsafe { &raw mut (*head).list };
        if first.cast() != empty {
            // SAFETY: the next entry belongs to a lock that this thread holds. Bit 0 marks priority inheritance.
            unsafe {
                first
                    .map_addr(|a| a & !1)
                    .wrapping_sub(1)
                    .write_volatile(node.cast());
            };
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head of this thread.
        unsafe { (&raw mut (*head).list).write_volatile(node) };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head of this thread.
        unsafe { (&raw mut (*head).pending).write_volatile(null_mut()) };
        let guard = Guard {
            counter: self,
            head,
            tid,
        };
        if word.load(Ordering::Relaxed) & DIED != 0 {
            self.shared().died.store(1, Ordering::SeqCst);
            word.fetch_and(!DIED, Ordering::SeqCst);
        }
        Ok(guard)
    }

    /// Locks the counter, runs `f` with it, and unlocks it.
    ///
    /// # Errors
    /// If this thread already holds the lock.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let _guard = self.lock()?;
        let entry = match self.shared().died.swap(0, Ordering::SeqCst) {
            0 => Entry::Clean,
            _ => Entry::OwnerDied,
        };
        // SAFETY: this thread holds the lock.
        Ok(f(unsafe { &mut *self.shared().number.get() }, entry))
    }

    /// Locks the counter and returns its value.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let _guard = self.lock()?;
        // SAFETY: this thread holds the lock.
        Ok(unsafe { self.shared().number.get().read() })
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let word = self.counter.word();
        if word.load(Ordering::Relaxed) & TID != self.tid || tid() != self.tid {
            std::process::abort();
        }
        let node = self.counter.node();
        let head = self.head;
        // SAFETY: the head of this thread.
        unsafe { (&raw mut (*head).pending).write_volatile(node) };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: this thread holds the lock, so the entry is in its list.
        let next = unsafe { node.read_volatile() }.cast::<*mut libc::c_void>();
        // SAFETY: as above.
        let previous = unsafe { node.wrapping_sub(1).read_volatile() }.cast::<*mut libc::c_void>();
        // SAFETY: the head of this thread.
        let end = unsafe { &raw mut (*head).list };
        if next.cast() != end {
            // SAFETY: the next entry belongs to a lock that this thread holds.
            unsafe {
                next.map_addr(|a| a & !1)
                    .wrapping_sub(1)
                    .write_volatile(previous.cast());
            };
        }
        // SAFETY: the previous entry is the head or belongs to a lock that this thread holds.
        unsafe { previous.map_addr(|a| a & !1).write_volatile(next.cast()) };
        compiler_fence(Ordering::SeqCst);
        if word.swap(0, Ordering::Release) & WAITERS != 0 {
            futex(word, libc::FUTEX_WAKE, i32::MAX as u32);
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head of this thread.
        unsafe { (&raw mut (*head).pending).write_volatile(null_mut()) };
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: nobody in this process uses the mapping any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
