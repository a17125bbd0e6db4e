//! Makes libc and the kernel answer this process as on another machine.

use std::io;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::{filter, panics, state};
use crate::procfs::{self, MapsLine};

/// The page size to report, or 0 for the real one.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// The address of the next mapping while a page size is pretended: a multiple of it, where nothing is mapped.
static NEXT_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Whether children that a signal has killed have dumped core.
static CORE_DUMPS: AtomicBool = AtomicBool::new(false);

/// Whether all pages are reported as swapped out.
static SWAPPED_OUT: AtomicBool = AtomicBool::new(false);

/// Whether timed waits end immediately.
static TIME_FLIES: AtomicBool = AtomicBool::new(false);

/// Whether `mmap` has got an address of the range for these mappings.
static PLACED: AtomicBool = AtomicBool::new(false);

/// The end of the address range for these mappings.
static END: AtomicUsize = AtomicUsize::new(0);

/// The sizes of this range, in bytes: the smaller one if RLIMIT_AS leaves no room for the other.
const RANGES: [usize; 2] = [8 << 30, 1 << 30];

/// From here on `sysconf(_SC_PAGESIZE)` and `getpagesize()` return `bytes`, `mmap` places each mapping at a multiple of it, and
/// `mincore` reports on pages of this size, in this process and in the processes that it forks.
///
/// The kernel's pages stay as they are, so `bytes` must be a multiple of their size. Raw system calls, which bypass
/// libc, see the real page size. The kernel places their mappings at multiples of `bytes` as long as all lengths are such
/// multiples, too.
///
/// A case for which even 1 GiB of addresses cannot be found is reported as one that could not be graded.
pub fn page_size(bytes: usize) {
    let Some(free) = RANGES.into_iter().find_map(free_addresses) else {
        panics::judge_failed("no range of 1 GiB of addresses is free; see ulimit -v".to_owned());
    };
    align_gaps(bytes);
    NEXT_ADDRESS.store(free.start.next_multiple_of(bytes), Ordering::SeqCst);
    END.store(free.end, Ordering::SeqCst);
    PLACED.store(false, Ordering::SeqCst);
    PAGE_SIZE.store(bytes, Ordering::SeqCst);
}

/// Whether the next mapping will be at a multiple of the pretended page size: `mmap` has placed one since `page_size`, or
/// the lengths of raw system calls were multiples, too.
pub fn places_mappings() -> bool {
    let multiple = |bytes| free_addresses(bytes).is_some_and(|free| free.start % bytes == 0);
    PLACED.load(Ordering::Relaxed) || pretended().is_none_or(multiple)
}

/// Returns a range of `len` bytes in which nothing is mapped, and where the kernel would place a mapping.
fn free_addresses(len: usize) -> Option<Range<usize>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // `libc::mmap` is the override, which would choose the address.
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let free = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            null_mut::<u8>(),
            len,
            libc::PROT_NONE,
            flags,
            -1,
            0,
        )
    };
    let start = usize::try_from(Errno::result(free).ok()?).ok()?;
    // SAFETY: the range was mapped just now, and nothing uses it.
    unsafe { libc::syscall(libc::SYS_munmap, start, len) };
    Some(start..start + len)
}

/// Makes each gap between two mappings end at a multiple of `bytes`, with an inaccessible mapping at its end: the kernel
/// places a new mapping at the end of a gap. Correct code may rely on mappings at whole pages of the size that `sysconf`
/// reports.
fn align_gaps(bytes: usize) {
    let maps = procfs::read("/proc/self/maps").unwrap_or_default();
    let lines: Vec<_> = maps.lines().filter_map(MapsLine::parse).collect();
    for (before, after) in lines.iter().zip(lines.iter().skip(1)) {
        let end = after.range.start as usize;
        let start = (end - end % bytes).max(before.range.end as usize);
        // The kernel places nothing below the stack, which grows down.
        if start < end && after.name != "[stack]" {
            let flags = libc::MAP_PRIVATE
                | libc::MAP_ANONYMOUS
                | libc::MAP_NORESERVE
                | libc::MAP_FIXED_NOREPLACE;
            let place = std::ptr::without_provenance_mut(start);
            // Without it, only the placement of raw system calls is worse.
            // SAFETY: with MAP_FIXED_NOREPLACE the kernel replaces no mapping.
            unsafe { libc::mmap(place, end - start, libc::PROT_NONE, flags, -1, 0) };
        }
    }
}

/// From here on `madvise` fails with EINVAL for MADV_POPULATE_READ and MADV_POPULATE_WRITE, as on a kernel before 5.14.
///
/// # Panics
/// If the kernel refuses a seccomp filter: the case then cannot be graded.
pub fn no_populate_advice() {
    // An unprivileged process may not install a filter without it.
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let advice = [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE];
    if let Err(error) = filter::refuse_advice(&advice) {
        panics::judge_failed(format!("the kernel rejected the seccomp filter: {error}"));
    }
    state::expect_filters(1);
}

/// From here on a child that a signal has killed is reported to have dumped core by `waitpid` and `waitid`. The judge
/// allows no core files, so the kernel never says so. Raw system calls, which bypass libc, see the kernel's status.
pub fn core_dumps() {
    CORE_DUMPS.store(true, Ordering::SeqCst);
}

/// From here on `mincore` reports no page as resident, as if all of them had been swapped out. Raw system calls, which
/// bypass libc, see the kernel's report.
pub fn swapped_out() {
    SWAPPED_OUT.store(true, Ordering::SeqCst);
}

/// Whether `mincore` reports no page as resident.
pub fn swaps_out() -> bool {
    SWAPPED_OUT.load(Ordering::Relaxed)
}

/// From here on each timed wait of this thread, and of the processes that it forks, ends immediately: locks and semaphores
/// report a time-out, and sleeps and `poll` that their time is over. Each reading of a clock is an hour later than
/// the one before, so that code with a time limit reaches it. Raw system calls, which bypass libc, see the real clocks.
///
/// # Errors
/// Returns an error if the kernel refuses a seccomp filter.
pub fn time_flies() -> io::Result<()> {
    // An unprivileged process may not install a filter without it.
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    filter::end_timed_waits().map_err(io::Error::other)?;
    TIME_FLIES.store(true, Ordering::SeqCst);
    state::expect_filters(filter::TIMED_WAITS);
    Ok(())
}

/// From here on, `kill` with the signal 0, which asks whether a process exists, fails with EPERM in this process and in
/// those that it forks, as if all others belonged to another user.
///
/// # Errors
/// Returns an error if the kernel refuses a seccomp filter.
pub fn others_owned_by_another_user() -> io::Result<()> {
    // An unprivileged process may not install a filter without it.
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    filter::refuse_checks_for_processes().map_err(io::Error::other)?;
    state::expect_filters(1);
    Ok(())
}

/// Adds the hours that `time_flies` pretends.
pub fn advance(time: &mut libc::timespec) {
    static HOURS: AtomicI64 = AtomicI64::new(0);
    if TIME_FLIES.load(Ordering::Relaxed) {
        time.tv_sec += 3600 * (1 + HOURS.fetch_add(1, Ordering::Relaxed));
    }
}

/// Adds the core dump to the status of a child that a signal has killed.
pub fn add_core_dump(status: &mut libc::c_int) {
    /// The bit that WCOREDUMP tests.
    const DUMPED: libc::c_int = 0x80;
    if CORE_DUMPS.load(Ordering::Relaxed) && libc::WIFSIGNALED(*status) {
        *status |= DUMPED;
    }
}

/// Like `add_core_dump`, for `waitid`.
pub fn add_core_dump_to_info(info: &mut libc::siginfo_t) {
    if CORE_DUMPS.load(Ordering::Relaxed) && info.si_code == libc::CLD_KILLED {
        info.si_code = libc::CLD_DUMPED;
    }
}

/// The pretended page size, if there is one.
pub fn pretended() -> Option<usize> {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => None,
        bytes => Some(bytes),
    }
}

/// An address for a mapping of `len` bytes, as a hint, if a page size is pretended; null once the range is used up.
pub fn next_address(len: usize) -> Option<*mut libc::c_void> {
    let page = pretended()?;
    let after = |start: usize| {
        let end = start.checked_add(len.checked_next_multiple_of(page)?)?;
        (end <= END.load(Ordering::Relaxed)).then_some(end)
    };
    let start = NEXT_ADDRESS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    PLACED.fetch_or(start.is_ok(), Ordering::Relaxed);
    Some(start.map_or(null_mut(), std::ptr::without_provenance_mut))
}
