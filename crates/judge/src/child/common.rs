//! A page that all processes of a case share, whatever they do to their own memory.

use std::fs::File;
use std::mem;
use std::os::unix::fs::FileExt;
use std::ptr::{self, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;

const MARK: usize = 0x636f_6d6d;

#[derive(Default)]
struct Common {
    /// `MARK`. It tells this page from another one at its address.
    mark: AtomicUsize,
    /// The bytes of the reports of panics that were sent.
    reports: AtomicUsize,
    /// How the closure of the current `in_child` ended.
    end: AtomicU32,
}

/// How the closure of an `in_child` ended.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u32)]
pub enum End {
    /// It has not ended: the process exited or was killed before.
    Not,
    Returned,
    Panicked,
}

static COMMON: OnceLock<&Common> = OnceLock::new();

/// Maps the page, unless that was done. It must be done before the case forks.
pub fn create() -> Result<(), Errno> {
    if COMMON.get().is_some() {
        return Ok(());
    }
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let page = unsafe { libc::mmap(null_mut(), mem::size_of::<Common>(), both, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page is large enough, aligned and zeroed, which is a valid `Common`. It is never unmapped, and the
    // processes that share it only use it through atomics.
    let common: &Common = unsafe { &*page.cast() };
    common.mark.store(MARK, Ordering::SeqCst);
    let _ = COMMON.set(common);
    Ok(())
}

/// Locks the page in memory, so that the case finds locked memory that it must not unlock. It may exceed RLIMIT_MEMLOCK:
/// then there is none.
pub fn lock() {
    if let Some(common) = COMMON.get() {
        // SAFETY: the page is never unmapped, and locking changes no contents.
        unsafe { libc::mlock(ptr::from_ref(*common).cast(), mem::size_of::<Common>()) };
    }
}

/// Whether the page is still mapped, and no other one in its place.
pub fn is_intact() -> bool {
    let Some(common) = COMMON.get() else {
        return false;
    };
    let address = ptr::from_ref(&common.mark).addr() as u64;
    let mut mark = [0; size_of::<usize>()];
    // A read through /proc fails if nothing is mapped there.
    let read =
        File::open("/proc/self/mem").and_then(|memory| memory.read_exact_at(&mut mark, address));
    read.is_ok() && usize::from_ne_bytes(mark) == MARK
}

/// Reserves `len` bytes of the socket for a report, if no more than `limit` bytes are used then. Returns whether it did.
pub fn reserve(len: usize, limit: usize) -> bool {
    let Some(common) = COMMON.get() else {
        return true;
    };
    let add = |used| (used + len <= limit).then_some(used + len);
    let reports = &common.reports;
    reports
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add)
        .is_ok()
}

pub fn set_end(end: End) {
    if let Some(common) = COMMON.get() {
        common.end.store(end as u32, Ordering::SeqCst);
    }
}

pub fn end() -> End {
    let end = COMMON.get().map(|common| common.end.load(Ordering::SeqCst));
    match end {
        Some(end) if end == End::Returned as u32 => End::Returned,
        Some(end) if end == End::Panicked as u32 => End::Panicked,
        _ => End::Not,
    }
}
