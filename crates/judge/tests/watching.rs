//! What `watch` records: the transcript and the ledger, and how graders compare them.

mod common {
    pub mod fork;
}

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::ptr::null_mut;

use common::fork::child;
use judge::probe::mapped_pages;
use judge::{Outcome, Seen, observe_watched, pretend, watch};
use nix::libc;
use nix::sys::wait::waitpid;

const LEN: usize = 512 << 10;
const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

fn map(len: usize, flags: i32) -> *mut libc::c_void {
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    let start = unsafe { libc::mmap(null_mut(), len, BOTH, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start
}

fn unmap(start: *mut libc::c_void, len: usize) {
    // SAFETY: callers pass mappings that they have made and no longer use.
    assert_eq!(unsafe { libc::munmap(start, len) }, 0);
}

/// Expects this transcript of `body`, which is watched as a whole.
#[track_caller]
fn records(expected: &str, body: impl FnOnce()) {
    let outcome = observe_watched(|| watch(body), |_| ());
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
    assert_eq!(outcome.transcript.as_deref(), Some(expected));
}

/// Expects this ledger of `body`, which is watched as a whole.
#[track_caller]
fn leaves(expected: &str, body: impl FnOnce()) {
    passes(
        || watch(body),
        |seen| assert_eq!(seen.ledger(), expected, "{}", seen.transcript()),
    );
}

#[track_caller]
fn passes(body: impl FnOnce(), check: impl Fn(&Seen)) -> Outcome {
    let outcome = observe_watched(body, check);
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
    outcome
}

#[test]
fn mappings_get_letters() {
    records(
        "P: mmap(NULL, 512 KiB, READ|WRITE, PRIVATE|ANONYMOUS, fd -1, off 0) = A\n\
         P: mmap(NULL, 1 MiB, READ|WRITE, SHARED|ANONYMOUS, fd -1, off 0) = B\n\
         P: mprotect(A, 64 KiB, READ) = 0\n\
         P: madvise(B+64 KiB, 64 KiB, DONTNEED) = 0\n\
         P: munmap(A, 512 KiB) = 0\n\
         P: munmap(B, 1 MiB) = 0\n",
        || {
            let first = map(LEN, PRIVATE);
            let second = map(2 * LEN, SHARED);
            let part = 64 << 10;
            // SAFETY: the range is mapped, and nothing else uses it.
            unsafe { libc::mprotect(first, part, libc::PROT_READ) };
            let middle = second.wrapping_byte_add(part);
            // SAFETY: the range is mapped, and nothing else uses it.
            unsafe { libc::madvise(middle, part, libc::MADV_DONTNEED) };
            unmap(first, LEN);
            unmap(second, 2 * LEN);
        },
    );
}

#[test]
fn a_mapping_keeps_its_letter_when_mremap_moves_it() {
    records(
        "P: mmap(NULL, 512 KiB, READ|WRITE, PRIVATE|ANONYMOUS, fd -1, off 0) = A\n\
         P: mremap(A, 512 KiB, 64 MiB, MAYMOVE) = A\n\
         P: munmap(A, 64 MiB) = 0\n",
        || {
            let start = map(LEN, PRIVATE);
            // SAFETY: the mapping belongs to this test.
            let moved = unsafe { libc::mremap(start, LEN, 64 << 20, libc::MREMAP_MAYMOVE) };
            unmap(moved, 64 << 20);
        },
    );
}

#[test]
fn a_failed_call_is_recorded_with_its_error() {
    records("P: munmap(?, 0) = EINVAL\n", || {
        // SAFETY: munmap fails with EINVAL for a length of 0.
        unsafe { libc::munmap(64 as *mut libc::c_void, 0) };
    });
}

#[test]
fn small_allocations_are_not_recorded() {
    records("", || {
        for len in 1..200 {
            drop(vec![1_u8; len]);
        }
        drop(format!("{:?}", std::env::vars().next()));
    });
}

#[test]
fn calls_are_listed_by_process() {
    records(
        "P: fork() = P.1\n\
         P: wait4(P.1, 0) = P.1\n\
         P: fork() = P.2\n\
         P: wait4(P.2, 0) = P.2\n\
         P.1: mmap(NULL, 512 KiB, READ|WRITE, PRIVATE|ANONYMOUS, fd -1, off 0) = A\n\
         P.1: exit(0)\n\
         P.2: exit(0)\n",
        || {
            let first = child(|| {
                map(LEN, PRIVATE);
            });
            waitpid(first, None).unwrap();
            waitpid(child(|| ()), None).unwrap();
        },
    );
}

#[test]
fn brk_is_recorded_relative_to_the_heap() {
    records(
        "P: brk(heap+1 MiB) = heap+1 MiB\nP: brk(heap+0) = heap+0\n",
        || {
            for bytes in [1 << 20, -1 << 20] {
                // SAFETY: nothing uses what lies between the old end of the heap and the new one.
                unsafe { libc::sbrk(bytes) };
            }
        },
    );
}

#[test]
fn only_the_watched_part_is_recorded() {
    let body = || {
        let before = map(LEN, PRIVATE);
        watch(|| unmap(before, LEN));
        let after = map(LEN, PRIVATE);
        unmap(after, LEN);
    };
    let outcome = passes(body, |seen| assert_eq!(seen.calls("mmap").len(), 0));
    assert_eq!(
        outcome.transcript.as_deref(),
        Some("P: munmap(A, 512 KiB) = 0\n")
    );
}

#[test]
fn two_watched_parts_are_joined() {
    let body = || {
        let start = watch(|| map(LEN, PRIVATE));
        unmap(map(LEN, SHARED), LEN);
        watch(|| unmap(start, LEN));
    };
    let outcome = passes(body, |seen| {
        assert!(
            seen.ledger().contains("still mapped: nothing"),
            "{}",
            seen.ledger()
        );
    });
    assert_eq!(
        outcome.transcript.as_deref(),
        Some(
            "P: mmap(NULL, 512 KiB, READ|WRITE, PRIVATE|ANONYMOUS, fd -1, off 0) = A\n\
             P: munmap(A, 512 KiB) = 0\n"
        )
    );
}

#[test]
fn graders_can_read_arguments_and_results() {
    passes(
        || {
            watch(|| unmap(map(LEN, PRIVATE), LEN));
        },
        |seen| {
            let [call] = seen.calls("mmap")[..] else {
                panic!("one mmap");
            };
            assert_eq!(call.args[1], LEN as u64);
            assert_eq!(call.process, "P");
            assert_eq!(seen.calls("munmap")[0].args[0], call.result.unwrap());
        },
    );
}

#[test]
fn a_pretended_page_size_rounds_what_the_kernel_gets() {
    const PAGE: usize = 64 << 10;
    passes(
        || {
            pretend::page_size(PAGE);
            // The first call calibrates the probe.
            mapped_pages(null_mut(), 1);
            watch(|| {
                let start = map(1, PRIVATE);
                let last = start.wrapping_byte_add(PAGE - 1).cast_const().cast();
                assert_eq!(mapped_pages(last, 1), 1);
                // SAFETY: the mapping has a page of this size, and no reference into it exists.
                assert_eq!(unsafe { libc::mprotect(start, PAGE, BOTH) }, 0);
                // SAFETY: as above.
                let moved = unsafe { libc::mremap(start, 1, PAGE + 1, libc::MREMAP_MAYMOVE) };
                assert_ne!(moved, libc::MAP_FAILED);
                let last = moved.wrapping_byte_add(2 * PAGE - 1).cast_const().cast();
                assert_eq!(mapped_pages(last, 1), 1);
                unmap(moved, PAGE + 1);
                assert_eq!(mapped_pages(last, 1), 0);
            });
        },
        |seen| {
            seen.expect_nothing_left();
            // The calls are recorded as they were made.
            let lengths = |name| seen.calls(name)[0].args;
            assert_eq!(lengths("mmap")[1], 1);
            assert_eq!(lengths("munmap")[1], PAGE as u64 + 1);
            assert_eq!(lengths("mremap")[1..3], [1, PAGE as u64 + 1]);
        },
    );
}

#[test]
fn the_check_runs_in_the_judge() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static CHECKED: AtomicBool = AtomicBool::new(false);
    static RAN: AtomicBool = AtomicBool::new(false);
    passes(
        || RAN.store(true, Ordering::SeqCst),
        |_| CHECKED.store(true, Ordering::SeqCst),
    );
    assert!(CHECKED.load(Ordering::SeqCst));
    assert!(!RAN.load(Ordering::SeqCst));
}

#[test]
fn the_transcript_is_the_same_on_every_run() {
    let body = || {
        watch(|| {
            let start = map(LEN, SHARED);
            let children = [child(|| ()), child(|| unmap(start, LEN))];
            for _ in children {
                waitpid(None, None).unwrap();
            }
            unmap(start, LEN);
        });
    };
    let first = observe_watched(body, |_| ());
    assert_eq!(first.sentence(), None, "{first:#?}");
    for _ in 0..20 {
        let again = observe_watched(body, |_| ());
        assert_eq!(again.transcript, first.transcript);
    }
}

#[test]
fn the_ledger_after_everything_is_unmapped() {
    let body = || {
        let mapped = watch(|| [map(LEN, PRIVATE), map(LEN, SHARED)]);
        watch(|| mapped.map(|start| unmap(start, LEN)));
    };
    passes(body, |seen| {
        assert_eq!(
            seen.ledger(),
            "mapped: 512 KiB private anonymous and 512 KiB shared anonymous\n\
             still mapped: nothing\ndescriptors left: 0\nchildren left: 0"
        );
        seen.expect_nothing_left();
    });
}

#[test]
fn the_ledger_has_only_what_is_there_at_the_end() {
    leaves(
        "mapped: 384 KiB private anonymous\n\
         still mapped: 384 KiB\ndescriptors left: 0\nchildren left: 0",
        || {
            unmap(map(LEN, SHARED), LEN);
            let start = map(LEN, PRIVATE);
            unmap(start, 64 << 10);
            unmap(start.wrapping_byte_add(LEN - (64 << 10)), 64 << 10);
        },
    );
}

#[test]
fn the_memory_of_malloc_and_of_threads_is_not_the_answers() {
    records("", || {
        let large = vec![1u8; 4 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| std::hint::black_box(large.len()));
        });
        println!("{large:?}");
    });
}

#[test]
fn raw_calls_are_the_answers() {
    records("P: munmap(NULL, 0) = EINVAL\n", || {
        // SAFETY: a length of 0 is refused.
        unsafe { libc::syscall(libc::SYS_munmap, 0, 0) };
    });
}

#[test]
fn the_ledger_after_a_part_is_unmapped() {
    leaves(
        "mapped: 448 KiB private anonymous\n\
         still mapped: 448 KiB\ndescriptors left: 0\nchildren left: 0",
        || unmap(map(LEN, PRIVATE), 64 << 10),
    );
}

#[test]
fn a_guard_counts_only_if_it_is_left() {
    leaves(
        "mapped: 64 KiB private anonymous\n\
         still mapped: 512 KiB\ndescriptors left: 0\nchildren left: 0",
        || {
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start = unsafe { libc::mmap(null_mut(), LEN, libc::PROT_NONE, PRIVATE, -1, 0) };
            let middle = start.wrapping_byte_add(64 << 10);
            // SAFETY: the pages belong to this test.
            unsafe { libc::mprotect(middle, 64 << 10, BOTH) };
        },
    );
}

#[test]
fn the_ledger_of_a_descriptor_and_a_child() {
    let body = || {
        let left = watch(|| {
            let _ = File::open("/dev/null").unwrap().into_raw_fd();
            child(|| ())
        });
        waitpid(left, None).unwrap();
    };
    passes(body, |seen| {
        assert_eq!(
            seen.ledger(),
            "mapped: nothing\nstill mapped: nothing\ndescriptors left: 1\nchildren left: 1"
        );
    });
}

#[test]
fn the_ledger_names_mappings_of_files() {
    leaves(
        "mapped: 4 KiB private, from a descriptor\n\
         still mapped: 4 KiB\ndescriptors left: 0\nchildren left: 0"
            .replace("4 KiB", &format!("{} KiB", judge::probe::page_size() >> 10))
            .as_str(),
        || {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/zero")
                .unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            unsafe { libc::mmap(null_mut(), 1, BOTH, libc::MAP_PRIVATE, fd, 0) };
        },
    );
}

fn leak() {
    watch(|| map(LEN, PRIVATE));
}

#[test]
fn an_equal_ledger_passes() {
    passes(leak, |seen| seen.expect_ledger("leak"));
}

#[test]
fn a_different_ledger_fails_with_its_first_difference() {
    let outcome = observe_watched(
        || {
            let start = watch(|| map(LEN, PRIVATE));
            watch(|| unmap(start, LEN));
        },
        |seen| seen.expect_ledger("leak"),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("At the end, nothing was still mapped; expected 512 KiB.")
    );
    let diff = outcome.diff.expect("a difference");
    assert!(
        diff.contains("missing       still mapped: 512 KiB"),
        "{diff}"
    );
    assert!(
        diff.contains("not expected  still mapped: nothing"),
        "{diff}"
    );
}

#[test]
fn a_different_transcript_fails_with_the_first_call() {
    let outcome = observe_watched(
        || {
            watch(|| map(LEN, SHARED));
        },
        |seen| seen.expect_transcript("map"),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "Your code called mmap(NULL, 512 KiB, READ|WRITE, SHARED|ANONYMOUS, fd -1, off 0) = A; expected mmap(NULL, 512 KiB, READ|WRITE, PRIVATE|ANONYMOUS, fd -1, off 0) = A."
        )
    );
}

#[test]
fn a_childs_call_does_not_replace_its_parents() {
    let outcome = observe_watched(
        || {
            let start = watch(|| map(LEN, PRIVATE));
            watch(|| {
                let pid = child(|| unmap(start, LEN));
                waitpid(pid, None).unwrap();
            });
        },
        |seen| seen.expect_transcript("fork"),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "In the child, your code called munmap(A, 512 KiB) = 0, which the task does not ask for."
        )
    );
}

/// As an allocator does that returns a part of its heap to the kernel.
#[test]
fn replacing_memory_from_before_leaves_nothing() {
    passes(
        || {
            let start = map(LEN, PRIVATE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            watch(|| {
                // SAFETY: nothing uses the range, which was mapped above.
                let replaced = unsafe { libc::mmap(start, LEN, libc::PROT_NONE, flags, -1, 0) };
                assert_eq!(replaced, start);
            });
            unmap(start, LEN);
        },
        Seen::expect_nothing_left,
    );
}

#[test]
fn unmapping_memory_twice_fails() {
    let outcome = observe_watched(
        || {
            watch(|| {
                let start = map(LEN, PRIVATE);
                unmap(start, LEN);
                unmap(start, LEN);
            });
        },
        |_| (),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "munmap was called for 512 KiB that were already unmapped. Unmap memory only once: another thread may have mapped that range again."
        )
    );
}

#[test]
fn unmapping_a_range_of_which_a_part_is_left_passes() {
    passes(
        || {
            watch(|| {
                let start = map(LEN, PRIVATE);
                unmap(start, LEN / 2);
                unmap(start, LEN);
            });
        },
        |_| (),
    );
}

/// Maps `len` bytes at `start`, and replaces what is mapped there.
fn map_fixed(start: *mut libc::c_void, len: usize) {
    let flags = PRIVATE | libc::MAP_FIXED;
    // SAFETY: callers pass addresses at which only their own mappings lie.
    let fixed = unsafe { libc::mmap(start, len, BOTH, flags, -1, 0) };
    assert_eq!(fixed, start);
}

#[test]
fn mapping_over_a_range_that_is_not_all_mapped_fails() {
    let outcome = observe_watched(
        || {
            let start = map(LEN, PRIVATE);
            unmap(start, LEN / 2);
            watch(|| map_fixed(start, LEN));
        },
        |_| (),
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "512 KiB were mapped at a fixed address, where your code had not mapped all of them before. MAP_FIXED \
             replaces whatever is mapped there, also memory of others: let the kernel choose the address, or reserve the \
             range first."
        )
    );
}

/// Calls munmap with an address that is not page-aligned.
fn unmap_unaligned(start: *mut libc::c_void) {
    // SAFETY: the call fails.
    let failed = unsafe { libc::munmap(start.wrapping_byte_add(1), LEN - 1) };
    assert_eq!(failed, -1);
}

#[test]
fn an_unaligned_munmap_explains_what_is_left() {
    let outcome = observe_watched(
        || watch(|| unmap_unaligned(map(LEN, PRIVATE))),
        Seen::expect_nothing_left,
    );
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(
            "512 KiB were still mapped at the end; expected nothing. A munmap failed with EINVAL, because its address \
             was not at the start of a page. Round the address up to a whole page, and check munmap's result."
        )
    );
}

#[test]
fn an_unaligned_munmap_of_memory_that_is_unmapped_later_passes() {
    passes(
        || {
            watch(|| {
                let start = map(LEN, PRIVATE);
                unmap_unaligned(start);
                unmap(start, LEN);
            })
        },
        Seen::expect_nothing_left,
    );
}

#[test]
fn mapping_over_a_reserved_range_passes() {
    passes(
        || {
            let start = map(LEN, PRIVATE);
            watch(|| {
                map_fixed(start, LEN / 2);
                map_fixed(start, LEN);
            });
        },
        |_| (),
    );
}

#[test]
fn unmapping_a_new_mapping_at_the_same_address_passes() {
    passes(
        || {
            watch(|| {
                for _ in 0..2 {
                    unmap(map(LEN, PRIVATE), LEN);
                }
            });
        },
        |_| (),
    );
}

#[test]
fn an_equal_transcript_passes() {
    passes(leak, |seen| seen.expect_transcript("map"));
}

#[test]
fn a_missing_snapshot_is_the_graders_fault() {
    let outcome = observe_watched(leak, |seen| seen.expect_ledger("none"));
    let sentence = outcome.sentence().expect("a failure");
    assert!(
        sentence.starts_with("Could not grade: the snapshot none of the grader cannot be read"),
        "{sentence}"
    );
}

#[test]
fn a_check_that_panics_is_the_graders_fault() {
    let outcome = observe_watched(|| (), |_| panic!("oh"));
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Could not grade: the check of the grader panicked: oh.")
    );
}
