//! The probes report the kernel's state, and `pretend` changes nothing else.

use std::io::{self, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull, null_mut};
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use judge::probe::{
    Kind, Permissions, expect_ok_whatever_errno, expect_plain, failed_call, faults,
    forget_failed_calls, mapped_pages, page_size, permissions, resident_pages, vm_flags,
};
use judge::{Limits, in_child, observe, observe_watched, pretend};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

const PAGES: usize = 16;

/// Runs `body` as a separate case, which must pass.
#[track_caller]
fn passes(body: impl FnOnce()) {
    let outcome = observe(Limits::default(), body);
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
}

fn map(pages: usize, flags: MapFlags) -> NonNull<u8> {
    let len = NonZero::new(pages * page_size()).unwrap();
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    unsafe { mmap_anonymous(None, len, both, flags) }
        .unwrap()
        .cast()
}

fn unmap(start: *mut u8, pages: usize) {
    let start = NonNull::new(start.cast()).unwrap();
    // SAFETY: callers pass pages that they have mapped and no longer use.
    unsafe { munmap(start, pages * page_size()) }.unwrap();
}

fn page(start: NonNull<u8>, number: usize) -> *mut u8 {
    start.as_ptr().wrapping_add(number * page_size())
}

fn write(byte: *mut u8) {
    // SAFETY: callers pass bytes of writable pages that they have mapped.
    unsafe { byte.write_volatile(1) };
}

fn read(byte: *mut u8) {
    // SAFETY: callers pass bytes of readable pages that they have mapped.
    unsafe { byte.read_volatile() };
}

fn residents(start: NonNull<u8>) -> usize {
    resident_pages(start.as_ptr(), PAGES * page_size())
}

#[test]
fn unmapped_pages_are_not_counted() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        let mapped = || mapped_pages(start.as_ptr(), PAGES * page_size());
        assert_eq!(mapped(), PAGES);
        unmap(page(start, 3), 2);
        assert_eq!(mapped(), PAGES - 2);
        // A part of a page counts as a page.
        assert_eq!(mapped_pages(page(start, 2).wrapping_add(1), 1), 1);
        assert_eq!(mapped_pages(page(start, 3).wrapping_add(1), 1), 0);
    });
}

#[test]
fn only_touched_pages_are_resident() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        assert_eq!(residents(start), 0);
        write(page(start, 0));
        read(page(start, 9));
        assert_eq!(residents(start), 2);
    });
}

#[test]
fn a_shared_page_is_resident_in_the_process_that_touched_it() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_SHARED);
        write(page(start, 0));
        let in_child = in_child(|| {
            let inherited = residents(start);
            write(page(start, 1));
            (inherited * 16 + residents(start)) as u8
        });
        // A fork copies no page-table entries of a shared mapping. The child has touched one page itself.
        assert_eq!(in_child, 1);
        assert_eq!(residents(start), 1);
    });
}

#[test]
fn a_case_gets_no_huge_pages() {
    passes(|| {
        let huge = 2 << 20;
        let start = map(4 * huge / page_size(), MapFlags::MAP_PRIVATE);
        let aligned = start.as_ptr().wrapping_add(start.align_offset(huge));
        // SAFETY: the advice changes no contents.
        unsafe { libc::madvise(aligned.cast(), huge, libc::MADV_HUGEPAGE) };
        write(aligned);
        assert_eq!(resident_pages(aligned, huge), 1);
    });
}

#[test]
fn each_first_touch_is_one_fault() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        // The first faults of the code and the stack below happen before the count begins.
        for number in [0, 1] {
            read(page(start, number));
            write(page(start, number));
        }
        let before = faults();
        for number in 2..PAGES {
            write(page(start, number));
        }
        assert_eq!(faults() - before, PAGES as u64 - 2);
    });
}

#[test]
fn a_write_after_a_read_and_after_a_fork_faults_again() {
    passes(|| {
        let write_all = |start: NonNull<u8>, value: usize| {
            let before = faults();
            for number in 0..PAGES {
                write(page(start, number).wrapping_add(value));
            }
            faults() - before
        };
        let warm = map(PAGES, MapFlags::MAP_PRIVATE);
        write_all(warm, 0);
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        for number in 0..PAGES {
            read(page(start, number));
        }
        assert_eq!(write_all(start, 1), PAGES as u64);
        assert_eq!(write_all(start, 2), 0);
        let in_child = in_child(|| {
            // The child's stack is copied on write as well, before the count begins.
            write_all(warm, 3);
            write_all(start, 3) as u8
        });
        assert_eq!(in_child, PAGES as u8);
    });
}

#[test]
fn permissions_are_those_of_the_page() {
    passes(|| {
        let start = map(2, MapFlags::MAP_PRIVATE);
        let both = Permissions {
            mapped: true,
            read: true,
            write: true,
            ..Permissions::default()
        };
        assert_eq!(permissions(start.as_ptr()), both);
        let second = page(start, 1);
        // SAFETY: the page belongs to this test.
        unsafe {
            mprotect(
                NonNull::new(second.cast()).unwrap(),
                page_size(),
                ProtFlags::PROT_READ,
            )
        }
        .unwrap();
        assert_eq!(permissions(start.as_ptr()), both);
        assert!(!permissions(second).write);
        let shared = map(1, MapFlags::MAP_SHARED);
        assert!(permissions(shared.as_ptr()).shared);
        unmap(start.as_ptr(), 1);
        assert_eq!(permissions(start.as_ptr()), Permissions::default());
    });
}

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Expects this sentence about pages that are mapped with `flags` and then changed by `change`; `passed` if there is
/// none.
#[track_caller]
fn flags_earn(expected: &str, kind: Kind, flags: i32, change: impl FnOnce(NonNull<u8>)) {
    let outcome = observe(Limits::default(), || {
        let start = map(PAGES, MapFlags::from_bits_retain(flags));
        change(start);
        expect_plain("The mapping", start.as_ptr(), PAGES * page_size(), kind);
        unmap(start.as_ptr(), PAGES);
    });
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(sentence, expected, "{outcome:#?}");
}

/// Gives this advice on the last page alone.
fn advised(advice: i32) -> impl FnOnce(NonNull<u8>) {
    move |start| {
        let last = page(start, PAGES - 1).cast();
        // SAFETY: the page belongs to this test, and no reference into it exists.
        let result = unsafe { libc::madvise(last, page_size(), advice) };
        assert_eq!(Errno::result(result), Ok(0));
    }
}

fn protected(protection: i32) -> impl FnOnce(NonNull<u8>) {
    move |start| {
        let last = page(start, PAGES - 1).cast();
        // SAFETY: the page belongs to this test, and no reference into it exists.
        let result = unsafe { libc::mprotect(last, page_size(), protection) };
        assert_eq!(Errno::result(result), Ok(0));
    }
}

fn unchanged(_: NonNull<u8>) {}

#[test]
fn plain_mappings_pass() {
    flags_earn("passed", Kind::Private, libc::MAP_PRIVATE, unchanged);
}

#[test]
fn plain_shared_mappings_pass() {
    flags_earn("passed", Kind::Shared, libc::MAP_SHARED, unchanged);
}

/// Expects this sentence about one page of shared memory that `map` maps.
#[track_caller]
fn shared_earns(expected: &str, map: impl FnOnce() -> *mut libc::c_void) {
    let outcome = observe(Limits::default(), || {
        let start = map();
        assert_ne!(start, libc::MAP_FAILED);
        expect_plain("The memory", start.cast(), page_size(), Kind::Shared);
    });
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(sentence, expected, "{outcome:#?}");
}

/// Creates a System V segment, and removes it if `removed`.
fn segment(removed: bool) -> *mut libc::c_void {
    let how = libc::IPC_CREAT | 0o600;
    // SAFETY: shmget(2) accesses no memory.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, page_size(), how) };
    // SAFETY: with a null address the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if removed {
        // SAFETY: IPC_RMID ignores the structure.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
    start
}

#[test]
fn a_segment_that_is_not_removed_is_seen() {
    shared_earns(
        "The memory is in a System V segment that is not removed: if the process is killed now, the segment stays until \
         a reboot. Call shmctl(IPC_RMID) as soon as it is attached.",
        || segment(false),
    );
}

#[test]
fn a_segment_that_is_removed_passes() {
    shared_earns("passed", || segment(true));
}

/// Maps a new file in /dev/shm, and unlinks it if `unlinked`.
fn named(unlinked: bool) -> *mut libc::c_void {
    let name = format!("/judge-probes-{}", std::process::id());
    let how = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CREAT;
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    let object = nix::sys::mman::shm_open(name.as_str(), how, mode).unwrap();
    nix::unistd::ftruncate(&object, page_size() as i64).unwrap();
    if unlinked {
        nix::sys::mman::shm_unlink(name.as_str()).unwrap();
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&object);
    let (address, len) = (std::ptr::null_mut(), page_size());
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    unsafe { libc::mmap(address, len, BOTH, libc::MAP_SHARED, fd, 0) }
}

#[test]
fn a_name_in_dev_shm_is_seen() {
    shared_earns(
        "The memory still has a name in /dev/shm: if the process is killed now, the memory stays until a reboot. Call \
         shm_unlink as soon as the object is open.",
        || named(false),
    );
}

#[test]
fn an_object_without_a_name_passes() {
    shared_earns("passed", || named(true));
}

/// What `change` does to memory between two pages that nobody has touched.
#[track_caller]
fn neighbours_earn(expected: &str, change: impl FnOnce(*mut u8)) {
    let outcome = observe(Limits::default(), || {
        let len = 2 * page_size();
        let spacer = judge::Spacer::above(len);
        let start = map(2, MapFlags::MAP_PRIVATE).as_ptr();
        drop(spacer);
        let neighbours = judge::Neighbours::untouched(start, len);
        change(start);
        neighbours.expect_untouched("The change");
    });
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(sentence, expected, "{outcome:#?}");
}

#[test]
fn memory_that_a_mapping_reserves_and_that_became_resident_is_seen() {
    let outcome = observe(Limits::default(), || {
        let start = map(4, MapFlags::MAP_PRIVATE).as_ptr();
        let neighbours = judge::Neighbours::untouched(start, page_size());
        // SAFETY: the page is mapped, and no reference into it exists.
        unsafe { start.wrapping_add(2 * page_size()).write(1) };
        neighbours.expect_untouched("The change");
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "The change also made pages resident that are only reserved, beside it in the same mapping. Touch only the \
             pages of its length."
        )
    );
}

/// Beside these addresses there may be no page.
#[test]
fn an_address_where_nothing_is_mapped_has_no_neighbours() {
    for start in [libc::MAP_FAILED, std::ptr::null_mut()] {
        let outcome = observe(Limits::default(), || {
            judge::Neighbours::of(start.cast(), page_size());
        });
        assert_eq!(
            outcome.sentence().as_deref(),
            Some("Nothing is mapped at the address that your code returned. Check mmap's result.")
        );
    }
}

#[test]
fn a_neighbour_that_nobody_touched_passes() {
    neighbours_earn("passed", |start| {
        // SAFETY: the page is mapped, and no reference into it exists.
        unsafe { start.write(1) };
    });
}

#[test]
fn a_neighbour_that_became_resident_is_seen() {
    neighbours_earn(
        "The change also made the page after it resident, which belongs to another mapping. Touch only the pages of your \
         mapping.",
        // SAFETY: the neighbour is mapped, and no reference into it exists.
        |start| unsafe { start.wrapping_add(2 * page_size()).write(1) },
    );
}

#[test]
fn the_heap_in_use_grows_with_a_block() {
    let outcome = observe(Limits::default(), || {
        let before = judge::probe::heap_in_use();
        let block = std::hint::black_box(vec![1_u8; 3000]);
        let with = judge::probe::heap_in_use();
        judge::check!(with - before >= block.len(), "grew by {}", with - before);
        drop(block);
        judge::check!(judge::probe::heap_in_use() < with, "it is still in use");
    });
    assert_eq!(outcome.sentence(), None);
}

#[test]
fn safe_functions_are_told_from_unsafe_ones() {
    fn safe(byte: &u8) -> u8 {
        *byte
    }
    unsafe fn not_safe(byte: &u8) -> u8 {
        *byte
    }
    unsafe fn generic(byte: &u8, f: impl FnOnce(&u8)) -> u8 {
        f(byte);
        *byte
    }
    assert!(judge::is_safe_fn!(safe, fn(&u8) -> u8));
    assert!(!judge::is_safe_fn!(not_safe, fn(&u8) -> u8));
    assert!(!judge::is_safe_fn!(generic, fn(&u8, fn(&u8)) -> u8));
    unsafe fn without_result(_: &u8) {}
    assert!(!judge::is_safe_fn!(without_result, fn(&u8)));
}

#[test]
fn reservations_and_advice_on_accesses_pass() {
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_POPULATE | libc::MAP_STACK;
    flags_earn("passed", Kind::Private, flags, |start| {
        advised(libc::MADV_RANDOM)(start);
        advised(libc::MADV_NOHUGEPAGE)(start);
        advised(libc::MADV_UNMERGEABLE)(start);
    });
}

#[test]
fn guards_beside_a_mapping_pass() {
    passes(|| {
        let start = map(3, MapFlags::MAP_PRIVATE);
        for number in [0, 2] {
            let guard = page(start, number).cast();
            // SAFETY: the page belongs to this test, and no reference into it exists.
            let result = unsafe { libc::mprotect(guard, page_size(), libc::PROT_NONE) };
            assert_eq!(Errno::result(result), Ok(0));
        }
        expect_plain("The page", page(start, 1), page_size(), Kind::Private);
    });
}

#[test]
fn an_executable_page() {
    flags_earn(
        "The mapping can be executed. Leave out PROT_EXEC.",
        Kind::Private,
        libc::MAP_PRIVATE,
        protected(BOTH | libc::PROT_EXEC),
    );
}

#[test]
fn a_page_that_cannot_be_written() {
    flags_earn(
        "The mapping cannot be written. Add PROT_WRITE.",
        Kind::Private,
        libc::MAP_PRIVATE,
        protected(libc::PROT_READ),
    );
}

#[test]
fn a_page_that_cannot_be_read() {
    flags_earn(
        "The mapping cannot be read. Add PROT_READ.",
        Kind::Private,
        libc::MAP_PRIVATE,
        protected(libc::PROT_WRITE),
    );
}

#[test]
fn a_shared_mapping_in_place_of_a_private_one() {
    flags_earn(
        "The mapping is shared: a forked child writes to the same pages. Map it MAP_PRIVATE.",
        Kind::Private,
        libc::MAP_SHARED,
        unchanged,
    );
}

#[test]
fn a_private_mapping_in_place_of_a_shared_one() {
    flags_earn(
        "The mapping is private: a forked child writes to a copy. Map it MAP_SHARED.",
        Kind::Shared,
        libc::MAP_PRIVATE,
        unchanged,
    );
}

#[test]
fn a_locked_mapping() {
    flags_earn(
        "The mapping is locked, which counts against RLIMIT_MEMLOCK and keeps every page resident. Leave out MAP_LOCKED \
         and mlock.",
        Kind::Private,
        libc::MAP_PRIVATE | libc::MAP_LOCKED,
        unchanged,
    );
}

#[test]
fn a_locked_mapping_where_it_is_a_right_choice() {
    flags_earn(
        "passed",
        Kind::MayBeLocked,
        libc::MAP_SHARED | libc::MAP_LOCKED,
        unchanged,
    );
}

#[test]
fn a_mapping_that_grows() {
    flags_earn(
        "The mapping grows downwards when the page below it is touched. Leave out MAP_GROWSDOWN.",
        Kind::Private,
        libc::MAP_PRIVATE | libc::MAP_GROWSDOWN,
        unchanged,
    );
}

#[test]
fn a_page_that_is_kept_from_children() {
    flags_earn(
        "The mapping is not mapped in forked children. Leave out MADV_DONTFORK.",
        Kind::Shared,
        libc::MAP_SHARED,
        advised(libc::MADV_DONTFORK),
    );
}

#[test]
fn a_page_that_is_wiped_in_children() {
    flags_earn(
        "The mapping is zeroed in forked children. Leave out MADV_WIPEONFORK.",
        Kind::Private,
        libc::MAP_PRIVATE,
        advised(libc::MADV_WIPEONFORK),
    );
}

#[test]
fn a_page_that_is_not_dumped() {
    flags_earn(
        "passed",
        Kind::Private,
        libc::MAP_PRIVATE,
        advised(libc::MADV_DONTDUMP),
    );
}

/// Whether this kernel has the advice: huge pages and KSM are options of its configuration.
fn knows(advice: i32) -> bool {
    let start = map(1, MapFlags::MAP_PRIVATE);
    // SAFETY: the page belongs to this function, and no reference into it exists.
    let result = unsafe { libc::madvise(start.as_ptr().cast(), page_size(), advice) };
    unmap(start.as_ptr(), 1);
    Errno::result(result).is_ok()
}

#[test]
fn a_page_for_which_huge_pages_are_advised() {
    if knows(libc::MADV_HUGEPAGE) {
        flags_earn(
            "The mapping is advised to use huge pages: one touch can make 2 MiB resident. Leave out MADV_HUGEPAGE.",
            Kind::Private,
            libc::MAP_PRIVATE,
            advised(libc::MADV_HUGEPAGE),
        );
    }
}

#[test]
fn huge_pages_where_they_are_a_right_choice() {
    if knows(libc::MADV_HUGEPAGE) {
        flags_earn(
            "passed",
            Kind::MayBeHuge,
            libc::MAP_PRIVATE,
            advised(libc::MADV_HUGEPAGE),
        );
    }
}

#[test]
fn a_page_that_may_be_merged() {
    if knows(libc::MADV_MERGEABLE) {
        flags_earn(
            "The mapping may be merged with equal pages elsewhere, and a write then causes a page fault. Leave out \
             MADV_MERGEABLE.",
            Kind::Private,
            libc::MAP_PRIVATE,
            advised(libc::MADV_MERGEABLE),
        );
    }
}

#[test]
fn a_hole_in_a_mapping() {
    let all = judge::amount(PAGES * page_size());
    let first = judge::amount(3 * page_size());
    let expected = format!("The mapping is mapped only in part: the first {first} of {all}.");
    flags_earn(&expected, Kind::Private, libc::MAP_PRIVATE, |start| {
        unmap(page(start, 3), 1);
    });
}

#[test]
fn flags_are_those_of_the_mapping() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        advised(libc::MADV_DONTFORK)(start);
        let first = vm_flags(start.as_ptr()).unwrap();
        let last = vm_flags(page(start, PAGES - 1)).unwrap();
        assert!(first.has("rd") && !first.has("dc"));
        assert!(last.has("rd") && last.has("dc"));
        unmap(start.as_ptr(), PAGES);
        assert!(vm_flags(start.as_ptr()).is_none());
    });
}

#[test]
fn flags_that_cannot_be_read_skip_the_case() {
    let outcome = observe(Limits::default(), || {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        expect_plain("The page", start.as_ptr(), page_size(), Kind::Private);
        use_up_descriptors();
        expect_plain("The page", start.as_ptr(), page_size(), Kind::Private);
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Skipped: /proc/self/smaps cannot be read.")
    );
}

#[test]
fn calibrated_probes_map_nothing() {
    let outcome = observe_watched(
        || {
            let start = map(PAGES, MapFlags::MAP_PRIVATE);
            let probe = || {
                permissions(start.as_ptr());
                mapped_pages(start.as_ptr(), page_size());
                residents(start);
                faults();
                vm_flags(start.as_ptr());
            };
            probe();
            judge::watch(probe);
        },
        |seen| {
            for call in ["mmap", "munmap", "brk"] {
                assert!(seen.calls(call).is_empty(), "{}", seen.transcript());
            }
        },
    );
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
}

/// Another thread may map memory where a calibration has unmapped its own.
#[test]
fn a_calibration_unmaps_no_page_twice() {
    let outcome = observe_watched(
        || {
            let start = map(PAGES, MapFlags::MAP_PRIVATE).as_ptr();
            judge::watch(|| {
                mapped_pages(start, page_size());
                resident_pages(start, page_size());
                permissions(start);
                faults();
                vm_flags(start);
            });
        },
        |seen| {
            let mut unmapped: Vec<u64> = Vec::new();
            for call in seen.calls("munmap") {
                let [start, len, ..] = call.args;
                unmapped.extend((start..start + len).step_by(page_size()));
            }
            let mut mapped = 0;
            for call in seen.calls("mmap") {
                mapped += call.args[1] as usize / page_size();
            }
            assert_eq!(unmapped.len(), mapped, "{}", seen.transcript());
        },
    );
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
}

/// Without descriptors, no file of /proc can be opened.
fn use_up_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
}

#[test]
fn a_probe_that_cannot_read_pagemap_skips_the_case() {
    let outcome = observe(Limits::default(), || {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        assert_eq!(residents(start), 0);
        use_up_descriptors();
        write(start.as_ptr());
        judge::check!(residents(start) == 1, "The page is not resident.");
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Skipped: /proc/self/pagemap cannot be read.")
    );
}

#[test]
fn a_probe_that_cannot_read_maps_skips_the_case() {
    let outcome = observe(Limits::default(), || {
        let start = map(PAGES, MapFlags::MAP_PRIVATE).as_ptr();
        assert!(permissions(start).mapped);
        use_up_descriptors();
        judge::check!(permissions(start).mapped, "The page is not mapped.");
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Skipped: /proc/self/maps cannot be read.")
    );
}

#[test]
fn no_page_past_the_address_space_is_mapped_or_resident() {
    passes(|| {
        let wild = std::ptr::without_provenance(usize::MAX - 100);
        assert_eq!(mapped_pages(wild, 1 << 20), 0);
        assert_eq!(resident_pages(wild, 1 << 20), 0);
        assert_eq!(permissions(wild), Permissions::default());
    });
}

#[test]
fn in_child_needs_a_process_without_other_threads() {
    let outcome = observe(Limits::default(), || {
        let (keep, kept) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || kept.recv());
        let result = std::panic::catch_unwind(|| in_child(|| 0));
        drop(keep);
        let _ = thread.join();
        assert!(result.is_err());
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Your code left a thread running that it had started. Join it.")
    );
}

#[test]
fn in_child_may_follow_a_joined_thread() {
    passes(|| {
        for _ in 0..20 {
            std::thread::spawn(|| ()).join().unwrap();
            assert_eq!(in_child(|| 7), 7);
        }
    });
}

#[test]
fn skip_ends_the_case_as_skipped() {
    let outcome = observe(Limits::default(), || judge::skip("this is a test"));
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Skipped: this is a test.")
    );
}

fn reported_page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap() as usize
}

#[test]
fn a_pretended_page_size_holds_in_this_process_and_its_children() {
    passes(|| {
        let real = page_size();
        assert_eq!(reported_page_size(), real);
        pretend::page_size(64 << 10);
        assert_eq!(reported_page_size(), 64 << 10);
        for _ in 0..9 {
            let start = map(1, MapFlags::MAP_PRIVATE).as_ptr();
            assert!(start.addr().is_multiple_of(64 << 10));
        }
        assert_eq!(in_child(|| u8::from(reported_page_size() == 64 << 10)), 1);
        assert_eq!(page_size(), real);
        // libc still answers for the other names.
        assert!(sysconf(SysconfVar::OPEN_MAX).unwrap() > Some(0));
    });
}

/// As an answer maps that makes its system calls without libc.
fn map_by_raw_call(len: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping overlaps nothing.
    let start = unsafe {
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
    ptr::with_exposed_provenance_mut(start as usize)
}

#[test]
fn raw_calls_map_at_multiples_of_a_pretended_page_size() {
    passes(|| {
        const PAGE: usize = 64 << 10;
        // The kernel would place the next mapping below this one.
        while map_by_raw_call(page_size()).addr().is_multiple_of(PAGE) {}
        pretend::page_size(PAGE);
        for pages in [1, 2, 4, 1, 64, 1, 3] {
            let start = map_by_raw_call(pages * PAGE);
            assert!(start.addr().is_multiple_of(PAGE), "{start:p}");
        }
    });
}

#[test]
fn a_page_size_is_pretended_with_few_addresses() {
    passes(|| {
        let pretended = in_child(|| {
            let limit = 4 << 30;
            setrlimit(Resource::RLIMIT_AS, limit, limit).unwrap();
            pretend::page_size(64 << 10);
            let start = map(1, MapFlags::MAP_PRIVATE).as_ptr();
            u8::from(start.addr().is_multiple_of(64 << 10))
        });
        assert_eq!(pretended, 1);
    });
}

/// What mincore reports of the 128 KiB at `start`. More bytes than one for each page stay as they are.
fn resident_by_mincore(start: NonNull<u8>) -> [u8; 4] {
    let mut resident = [9; 4];
    let vector = resident.as_mut_ptr();
    // SAFETY: 64 KiB pages are pretended, so mincore writes two bytes.
    let result = unsafe { libc::mincore(start.as_ptr().cast(), 128 << 10, vector) };
    assert_eq!(result, 0);
    resident
}

#[test]
fn mincore_reports_on_pretended_pages() {
    passes(|| {
        pretend::page_size(64 << 10);
        let start = map((128 << 10) / page_size(), MapFlags::MAP_PRIVATE);
        assert_eq!(resident_by_mincore(start), [0, 0, 9, 9]);
        // SAFETY: the mapping belongs to this test.
        unsafe { start.write_bytes(1, 64 << 10) };
        assert_eq!(resident_by_mincore(start), [1, 0, 9, 9]);
        pretend::swapped_out();
        assert_eq!(resident_by_mincore(start), [0, 0, 9, 9]);
        assert_eq!(
            mapped_pages(start.as_ptr(), 128 << 10),
            (128 << 10) / page_size()
        );
    });
}

#[test]
fn pages_are_pretended_to_be_swapped_out() {
    passes(|| {
        let start = map(1, MapFlags::MAP_PRIVATE);
        // SAFETY: the mapping belongs to this test.
        unsafe { start.write(1) };
        let resident = || {
            let mut resident = 9;
            // SAFETY: mincore writes one byte for the one page.
            unsafe { libc::mincore(start.as_ptr().cast(), page_size(), &raw mut resident) };
            resident & 1
        };
        assert_eq!(resident(), 1);
        pretend::swapped_out();
        assert_eq!(resident(), 0);
        assert_eq!(resident_pages(start.as_ptr(), page_size()), 1);
    });
}

#[test]
fn an_error_from_an_earlier_errno_is_told() {
    let outcome = observe(Limits::default(), || {
        expect_ok_whatever_errno("right", || Ok(()));
        expect_ok_whatever_errno("always_fails", || Err(Errno::EIO.into()));
        expect_ok_whatever_errno("looks_first", || match Errno::last() {
            Errno::EINTR => Err(Errno::EINTR.into()),
            _ => Ok(()),
        });
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "errno was EINTR, as an earlier call may leave it, and looks_first returned the error \"Interrupted system call \
             (os error 4)\"; expected Ok. errno counts only after a call that failed: look at the call's result first."
        )
    );
}

#[test]
fn time_flies() {
    passes(|| {
        const HOUR: Duration = Duration::from_secs(3600);
        pretend::time_flies().unwrap();
        let waits_for_an_hour = || {
            let (date, begun) = (SystemTime::now(), Instant::now());
            thread::sleep(HOUR);
            let mutex = Mutex::new(());
            let waited = Condvar::new().wait_timeout(mutex.lock().unwrap(), HOUR);
            assert!(waited.unwrap().1.timed_out());
            let (reader, _writer) = std::io::pipe().unwrap();
            let mut pipe = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut pipe, PollTimeout::MAX), Ok(0));
            assert!(begun.elapsed() >= HOUR && date.elapsed().unwrap() >= HOUR);
        };
        waits_for_an_hour();
        let in_child = in_child(|| {
            waits_for_an_hour();
            1
        });
        assert_eq!(in_child, 1);
        // A wait without a limit lasts until another thread ends it.
        let (sender, receiver) = mpsc::channel();
        let other = thread::spawn(move || receiver.recv());
        sender.send(7).unwrap();
        assert_eq!(other.join().unwrap(), Ok(7));
    });
}

#[test]
fn only_the_populate_advice_is_refused() {
    passes(|| {
        let start = map(PAGES, MapFlags::MAP_PRIVATE);
        let advise = |advice| {
            let len = PAGES * page_size();
            // SAFETY: the pages belong to this test, and no reference into them exists.
            Errno::result(unsafe { libc::madvise(start.as_ptr().cast(), len, advice) })
        };
        pretend::no_populate_advice();
        for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
            assert_eq!(advise(advice), Err(Errno::EINVAL));
        }
        assert_eq!(advise(libc::MADV_DONTNEED), Ok(0));
        let in_child = in_child(|| u8::from(advise(libc::MADV_POPULATE_WRITE).is_err()));
        assert_eq!(in_child, 1);
    });
}

#[test]
fn output_changes_errno() {
    passes(|| {
        for stream in [&mut io::stdout() as &mut dyn Write, &mut io::stderr()] {
            Errno::EDOM.set();
            stream.write_all(b"a message\n").unwrap();
            assert_eq!(Errno::last(), Errno::ENOTTY);
        }
    });
}

#[test]
fn an_error_is_explained_by_the_call_that_failed() {
    passes(|| {
        let start = map(1, MapFlags::MAP_PRIVATE);
        // SAFETY: munmap fails with EINVAL for a length of 0.
        assert_eq!(unsafe { libc::munmap(start.as_ptr().cast(), 0) }, -1);
        let error = io::Error::last_os_error();
        let sentence = " The last call that failed was munmap(.., 0): EINVAL.";
        assert_eq!(failed_call(&error), sentence);
        unmap(start.as_ptr(), 1);
        assert_eq!(failed_call(&io::ErrorKind::InvalidInput.into()), sentence);
        assert_eq!(failed_call(&Errno::ENOMEM.into()), "");
        forget_failed_calls();
        assert_eq!(failed_call(&error), "");
    });
}
