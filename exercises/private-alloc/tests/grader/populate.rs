//! Stage 4: prefaulting with `new_populated` and `prefault`.

use judge::probe::{errno_of, faults};
use judge::{Refusal, case_with};

use super::*;

const PAGES: usize = 32;

const WITHOUT_ADVICE: &str = "on a kernel without MADV_POPULATE_WRITE (before Linux 5.14)";

/// Whole pages, last pages that are used in part, and more pages than one huge page has (on x86-64).
fn partly_used() -> [usize; 4] {
    let page = page_size();
    [
        PAGES * page,
        (PAGES - 1) * page + 1,
        PAGES * page - 1,
        530 * page + 1,
    ]
}

const ALL_AT_ONCE: &str =
    "Pass MAP_POPULATE to mmap, without MAP_NONBLOCK, or write to every page.";
const EVERY_PAGE: &str = "Populate every page, the last one included.";
const VOLATILE: &str =
    " Use write_volatile: the compiler may leave out any other write that changes nothing.";
const BY_HAND: &str = "Write to every page, the last one included. Use write_volatile: the compiler may leave out any other \
                       write that changes nothing.";

/// Fails the case unless every page can be written without a page fault. `advice` is for pages that are not resident.
fn expect_no_fault(bytes: &mut [u8], after: &str, advice: &str) {
    let what = format!("After {after} the region");
    expect_plain(&what, bytes.as_ptr(), bytes.len(), Kind::MayBeHuge);
    let pages = bytes.len().div_ceil(page_size());
    let resident = resident_pages(bytes.as_ptr(), bytes.len());
    let taken = page_faults(faults_of_writing(bytes, 9));
    check!(
        taken == NONE || resident < pages,
        "After {after}, all {pages} pages are resident, but writing to each page took {taken}; expected none. A page \
         that was only read is still write-protected: write to every page.{}",
        if advice == BY_HAND { VOLATILE } else { "" }
    );
    check!(
        taken == NONE,
        "After {after}, {resident} of {pages} pages are resident, and writing to each page took {taken}; expected none. \
         {advice}"
    );
}

const NONE: &str = "no page fault";

fn page_faults(count: u64) -> String {
    match count {
        0 => NONE.to_owned(),
        1 => "1 page fault".to_owned(),
        count => format!("{count} page faults"),
    }
}

/// Writes the first byte of each page and returns the number of page faults that the writes took.
fn faults_of_writing(bytes: &mut [u8], value: u8) -> u64 {
    #[inline(never)]
    fn write_each_page(bytes: &mut [u8], page: usize, value: u8) {
        for byte in bytes.iter_mut().step_by(page) {
            // SAFETY: `byte` is a valid `&mut u8`. The write is volatile so that the compiler keeps it.
            unsafe { (&raw mut *byte).write_volatile(value) };
        }
    }
    let page = page_size();
    // The first call of the function may take a page fault on its code, which must not be counted.
    write_each_page(&mut [0; 2], 1, value);
    // The first call of `faults` calibrates the probe, which takes page faults.
    faults();
    let before = faults();
    write_each_page(bytes, page, value);
    faults() - before
}

pub fn populated(len: usize) -> Region {
    begin_call();
    expect_region("Region::new_populated", len, Region::new_populated(len))
}

/// Calls `new_populated` where the kernel does not know the advice.
fn populated_without_advice(len: usize) -> Region {
    begin_call();
    Region::new_populated(len).unwrap_or_else(|error| {
        expect_own_errno("Region::new_populated", &error);
        judge::fail(format!(
            "Region::new_populated({len}) returned the error \"{error}\" {WITHOUT_ADVICE}; expected a region. Pass \
             MAP_POPULATE to mmap, or write to each page if madvise fails with EINVAL."
        ))
    })
}

fn prefault(region: &mut Region) {
    begin_call();
    if let Err(error) = region.prefault() {
        expect_own_errno("prefault()", &error);
        judge::fail(format!(
            "prefault() returned the error \"{error}\"; expected Ok.{}",
            failed_call(&error)
        ));
    }
}

/// Calls `prefault` where the kernel does not know its advice.
pub fn prefault_without_advice(region: &mut Region) {
    begin_call();
    if let Err(error) = region.prefault() {
        expect_own_errno("prefault()", &error);
        judge::fail(format!(
            "prefault() returned the error \"{error}\" {WITHOUT_ADVICE}; expected Ok. If madvise fails with EINVAL, \
             write to each page instead."
        ));
    }
}

#[test]
fn ignores_an_earlier_errno() {
    case(|| {
        expect_ok_whatever_errno("Region::new_populated", || {
            Region::new_populated(LEN).map(drop)
        });
        expect_ok_whatever_errno("prefault()", || Region::new(LEN)?.prefault());
    })
}

/// Before the others: a page that belongs to something else may be the cause of anything.
#[test]
fn populated_unmaps_only_its_pages() {
    case(|| region::expect_only_its_pages_unmapped("a region from new_populated", populated))
}

#[test]
fn populated_is_resident() {
    case(|| {
        for len in partly_used().into_iter().chain([IN_STEPS]) {
            expect_no_fault(populated(len).as_mut_slice(), "new_populated", ALL_AT_ONCE);
        }
    })
}

#[test]
fn populated_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        let mut region = populated_without_advice(PAGES * page_size());
        expect_no_fault(
            region.as_mut_slice(),
            &format!("new_populated {WITHOUT_ADVICE}"),
            ALL_AT_ONCE,
        );
    })
}

#[test]
fn populated_is_zeroed() {
    case(|| {
        for _ in 0..2 {
            for (len, name) in lengths() {
                let mut region = populated(len);
                check!(
                    region.len() == len && region.as_slice().len() == len,
                    "A region of {name} from new_populated has len() {} and a slice of {} bytes; expected {len}.",
                    region.len(),
                    region.as_slice().len()
                );
                expect_zeros(region.as_slice());
                region.as_mut_slice().fill(0xAA);
            }
        }
    })
}

#[test]
fn populated_leaves_nothing() {
    watched(
        || {
            for len in [LEN, LARGE[1].0] {
                let region = watch(|| populated(len));
                watch(|| drop(region));
            }
        },
        expect_clean,
    )
}

#[test]
fn populated_errors() {
    case(|| {
        const NEW_POPULATED: errors::Constructor = ("Region::new_populated", Region::new_populated);
        errors::expect_errors(NEW_POPULATED, |_| true);
        // Shorter ones fit into the address space, and the kernel may begin to populate them.
        errors::expect_whole(NEW_POPULATED, 48);
    })
}

// An answer may test once per process whether the kernel knows the advice, so no case covers both kinds of kernels.

#[test]
fn prefault_keeps_contents() {
    case(|| expect_contents_kept(prefault, ""))
}

#[test]
fn prefault_keeps_contents_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        expect_contents_kept(prefault_without_advice, &format!(" {WITHOUT_ADVICE}"));
    })
}

/// A page that is swapped out is not resident, and still has contents.
#[test]
fn prefault_keeps_what_is_swapped_out() {
    case(|| {
        pretend::no_populate_advice();
        let mut region = region(PAGES * page_size());
        fill(region.as_mut_slice());
        pretend::swapped_out();
        prefault_without_advice(&mut region);
        check!(
            first_change(region.as_slice()).is_none(),
            "The region was written, and mincore reported no page of it as resident, as if all were swapped out. prefault() \
             {WITHOUT_ADVICE} changed the contents; expected every byte to be kept. Write back the byte that each page holds, \
             whether or not the page is resident."
        );
    })
}

/// Some pages are written, some only read, and some untouched.
fn expect_contents_kept(prefault: fn(&mut Region), how: &str) {
    let page = page_size();
    for len in [page - 1, (PAGES - 1) * page + 1, PAGES * page] {
        let spacer = Spacer::above(len);
        let mut region = region(len);
        drop(spacer);
        let mut expected = vec![0; len];
        for (index, bytes) in expected.chunks_mut(page).enumerate() {
            let range = index * page..index * page + bytes.len();
            match index % 4 {
                0 => {
                    fill(bytes);
                    region.as_mut_slice()[range].copy_from_slice(bytes);
                }
                // Only the last byte of the page.
                1 => {
                    *bytes.last_mut().expect("a page has bytes") = pattern(index);
                    region.as_mut_slice()[range.end - 1] = pattern(index);
                }
                2 => expect_zeros(&region.as_slice()[range]),
                _ => {}
            }
        }
        let neighbours = Neighbours::of(region.as_slice().as_ptr(), len);
        let locks = lock_a_page(region.as_slice().as_ptr());
        prefault(&mut region);
        if let Some(offset) = first_difference(region.as_slice(), &expected) {
            judge::fail(format!(
                "prefault(){how} changed byte {} of page {} of the region from {} to {}; expected every byte to be kept. \
                 Write back the byte that each page holds.",
                offset % page,
                offset / page,
                expected[offset],
                region.as_slice()[offset]
            ));
        }
        check!(
            !locks || is_locked(region.as_slice().as_ptr()),
            "A page of the region was locked with mlock. After prefault(){how}, it is no longer locked. Locks do not \
             nest, and a new mapping has none: populate the present one, without mlock and munlock."
        );
        neighbours.expect_untouched("prefault() of a region");
        let start = region.as_slice().as_ptr();
        drop(region);
        region::expect_gone(
            start,
            len,
            &format!("{} with a locked page", judge::amount(len)),
        );
    }
}

/// mlockall(MCL_FUTURE) locks what is mapped later, too. Neither it nor its locks are inherited by a child.
#[test]
fn locks_of_all_memory_are_kept() {
    case(|| {
        let locked_after = |call: &str, region: &Region| {
            check!(
                is_locked(region.as_slice().as_ptr()),
                "mlockall(MCL_FUTURE) had locked all memory that is mapped later, and after {call} the region is not locked. \
                 Locks do not nest: populate the region without mlock and munlock."
            );
        };
        in_child(|| {
            // SAFETY: locks change no contents.
            if unsafe { nix::libc::mlockall(nix::libc::MCL_FUTURE) } == -1 {
                return 0; // RLIMIT_MEMLOCK does not permit it
            }
            let mut region = populated(PAGES * page_size());
            locked_after("new_populated", &region);
            prefault(&mut region);
            locked_after("prefault()", &region);
            0
        });
    })
}

#[test]
fn populates_without_locking() {
    case(|| expect_unlocked_populating(""))
}

#[test]
fn populates_without_locking_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        expect_unlocked_populating(&format!(" {WITHOUT_ADVICE}"));
    })
}

/// Fails the case unless pages can be populated by a process that may not lock memory.
fn expect_unlocked_populating(how: &str) {
    forbid_locks();
    let fail = |call: &str, error: io::Error| -> ! {
        judge::fail(format!(
            "{call}{how} returned the error \"{error}\" in a process that may not lock memory (RLIMIT_MEMLOCK is 0); expected \
             Ok. The kernel can provide the pages: populate them without locking them."
        ))
    };
    let len = PAGES * page_size();
    let mut region =
        Region::new_populated(len).unwrap_or_else(|error| fail("new_populated", error));
    let after = format!("new_populated{how} in a process that may not lock memory");
    expect_no_fault(region.as_mut_slice(), &after, ALL_AT_ONCE);
    region = self::region(len);
    if let Err(error) = region.prefault() {
        fail("prefault()", error);
    }
    let after = format!("prefault(){how} in a process that may not lock memory");
    let advice = if how.is_empty() { EVERY_PAGE } else { BY_HAND };
    expect_no_fault(region.as_mut_slice(), &after, advice);
}

#[test]
fn prefault_populates_every_page() {
    case(|| {
        for len in partly_used() {
            let spacer = Spacer::above(len);
            let mut region = region(len);
            drop(spacer);
            let neighbours = Neighbours::untouched(region.as_slice().as_ptr(), len);
            prefault(&mut region);
            neighbours.expect_untouched("prefault() of a region");
            expect_no_fault(region.as_mut_slice(), "prefault()", EVERY_PAGE);
        }
    })
}

#[test]
fn prefault_after_reads() {
    case(|| expect_no_fault_after_reads(prefault, "", EVERY_PAGE))
}

#[test]
fn prefault_after_reads_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        let how = format!(" {WITHOUT_ADVICE}");
        expect_no_fault_after_reads(prefault_without_advice, &how, BY_HAND);
    })
}

fn expect_no_fault_after_reads(prefault: fn(&mut Region), how: &str, advice: &str) {
    let mut region = region(PAGES * page_size());
    // Each read maps the shared zero page, which is present but write-protected.
    expect_zeros(region.as_slice());
    prefault(&mut region);
    let after = format!("reading every page and calling prefault(){how}");
    expect_no_fault(region.as_mut_slice(), &after, advice);
}

#[test]
fn prefault_of_a_part() {
    case(|| {
        let page = page_size();
        let mut region = region(PAGES * page);
        // The first and the last page are written and some are read, so that neither end tells about the rest.
        region.as_mut_slice()[0] = 1;
        region.as_mut_slice()[PAGES * page - 1] = 1;
        expect_zeros(&region.as_slice()[page..9 * page]);
        prefault(&mut region);
        expect_no_fault(
            region.as_mut_slice(),
            "writing the first and the last page, reading 8 others, and calling prefault()",
            EVERY_PAGE,
        );
    })
}

#[test]
fn prefault_after_fork() {
    case(|| expect_no_fault_after_fork(populated, prefault, ""))
}

#[test]
fn prefault_after_fork_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        expect_no_fault_after_fork(
            populated_without_advice,
            prefault_without_advice,
            &format!(" {WITHOUT_ADVICE}"),
        );
    })
}

fn expect_no_fault_after_fork(
    populated: fn(usize) -> Region,
    prefault: fn(&mut Region),
    how: &str,
) {
    let mut region = populated(PAGES * page_size());
    fill(region.as_mut_slice());
    prefault(&mut region);
    // Calibrate the probe before the fork, so that the child only counts.
    faults();
    let faults_after_prefault = |region: &mut Region| {
        prefault(region);
        check!(
            first_change(region.as_slice()).is_none(),
            "prefault() changed the contents of the region; expected every byte to be kept. Write back the byte that each \
             page holds."
        );
        faults_of_writing(region.as_mut_slice(), 9)
    };
    let expect_none = |taken: u64, process: &str| {
        let taken = page_faults(taken);
        check!(
            taken == NONE,
            "After a fork and prefault() in the {process}{how}, writing to each of {PAGES} pages took {taken}; expected \
             none. After a fork, resident pages are write-protected: write to every page."
        );
    };
    // The second fork write-protects the pages again.
    for _ in 0..2 {
        let taken = in_child(|| faults_after_prefault(&mut region).min(255) as u8);
        expect_none(taken.into(), "child");
        // The child has exited, and the pages are the parent's alone. They are write-protected all the same.
        expect_none(faults_after_prefault(&mut region), "parent");
        fill(region.as_mut_slice());
    }
}

#[test]
fn prefault_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        let after = format!("prefault() {WITHOUT_ADVICE}");
        for len in partly_used() {
            let spacer = Spacer::above(len);
            let mut region = region(len);
            drop(spacer);
            let neighbours = Neighbours::untouched(region.as_slice().as_ptr(), len);
            prefault_without_advice(&mut region);
            neighbours.expect_untouched(&format!("prefault() of a region {WITHOUT_ADVICE}"));
            expect_no_fault(region.as_mut_slice(), &after, BY_HAND);
        }
    })
}

/// The kernel's page is smaller. An answer that writes once to each page of this size needs little memory for 4 GiB.
const LARGE_PAGE: usize = 4 << 20;

#[test]
fn prefault_larger_than_4_gib() {
    case_with(region::data_limit(16 << 30), || {
        const BEFORE_LAST: usize = 4 << 30;
        if !region::has_room(BEFORE_LAST + LARGE_PAGE) {
            judge::skip(
                "the kernel maps no 4 GiB here (vm.overcommit_memory, ulimit -v, or too little memory)",
            );
        }
        pretend::no_populate_advice();
        pretend::page_size(LARGE_PAGE);
        let mut few = region(4 * LARGE_PAGE);
        prefault_without_advice(&mut few);
        if resident_pages(few.as_slice().as_ptr(), few.len()) != 4 {
            return; // The answer writes more often, which is right, but it would need all the memory.
        }
        let mut region = region(BEFORE_LAST + LARGE_PAGE);
        prefault_without_advice(&mut region);
        let last = region.as_slice()[BEFORE_LAST..].as_ptr();
        check!(
            resident_pages(last, LARGE_PAGE) > 0,
            "With pages of 4 MiB, prefault() of a region of 4 GiB and 4 MiB {WITHOUT_ADVICE} wrote nothing to the last \
             page. Write to every page, the last one included, and compute offsets in a usize."
        );
    })
}

#[test]
fn prefault_leaves_nothing() {
    watched(
        || {
            watch(|| {
                let mut region = region(LEN);
                prefault(&mut region);
                prefault(&mut region);
            })
        },
        expect_clean,
    )
}

/// The errors of the calls that an answer may populate pages with.
const POPULATING: [(&str, Errno); 11] = [
    ("mmap", Errno::ENOMEM),
    ("madvise", Errno::EINVAL),
    ("madvise", Errno::ENOMEM),
    ("madvise", Errno::EAGAIN),
    ("madvise", Errno::EFAULT),
    ("madvise", Errno::EHWPOISON),
    ("munmap", Errno::ENOMEM),
    ("mprotect", Errno::ENOMEM),
    ("mremap", Errno::ENOMEM),
    ("mlock", Errno::ENOMEM),
    ("clone", Errno::EAGAIN),
];

#[test]
fn populating_calls_that_fail() {
    refusals(
        &POPULATING,
        |refused| {
            if let Some(region) = populate(refused) {
                watch(|| refuse(|| drop(region)));
            }
        },
        |seen| {
            expect_no_lost_error("new_populated", seen);
            expect_clean(seen);
        },
    )
}

/// Calls `new_populated`, of which a call may fail, and checks the result.
fn populate(refused: Option<Refusal>) -> Option<Region> {
    match watch(|| refuse(|| Region::new_populated(PAGES * page_size()))) {
        Ok(mut region) => {
            judge::note(RETURNED_OK);
            match refused {
                None => expect_no_fault(region.as_mut_slice(), "new_populated", ALL_AT_ONCE),
                Some(_) => expect_ok_is_true("new_populated", &mut region),
            }
            Some(region)
        }
        Err(error) => {
            expect_errno("new_populated", &error, refused);
            None
        }
    }
}

/// Fails the case if a page can be written only with a page fault, although `call` returned Ok.
fn expect_ok_is_true(call: &str, region: &mut Region) {
    let taken = page_faults(faults_of_writing(region.as_mut_slice(), 9));
    // How many pages the other lengths have depends on the machine.
    let writes = match region.len() == PAGES * page_size() {
        true => format!("writing to each of {PAGES} pages then took {taken}"),
        false => "writing to each of its pages then took page faults".to_owned(),
    };
    check!(
        taken == NONE,
        "{call} returned Ok, but {writes}; expected none, or an error."
    );
}

#[test]
fn without_standard_input() {
    case(|| expect_no_need_of_standard_input(""))
}

#[test]
fn without_standard_input_before_linux_5_14() {
    case(|| {
        pretend::no_populate_advice();
        expect_no_need_of_standard_input(&format!(" {WITHOUT_ADVICE}"));
    })
}

fn expect_no_need_of_standard_input(how: &str) {
    region::expect_no_need_of_standard_input(&format!("new_populated{how}"), || {
        Region::new_populated(LEN).map(drop)
    });
    region::expect_no_need_of_standard_input(&format!("prefault(){how}"), || {
        Region::new(LEN)?.prefault()
    });
}

/// More pages than an answer may populate with one call, in whole megabytes and one byte.
const IN_STEPS: usize = (16 << 20) + 1;

/// An answer that populates a long region in several calls must return the error of each.
#[test]
fn calls_that_fail_in_a_long_region() {
    refusals(
        &[("madvise", Errno::ENOMEM), ("madvise", Errno::EINVAL)],
        |refused| prefault_with_failures(IN_STEPS, refused),
        |seen| seen.expect_nothing_left(),
    )
}

#[test]
fn prefaulting_calls_that_fail() {
    refusals(
        &POPULATING,
        |refused| {
            prefault_with_failures(PAGES * page_size(), refused);
            // An error must not change what the next call does.
            if refused.is_some_and(|refusal| refusal.lasting) {
                prefault_with_failures(PAGES * page_size(), refused);
            }
        },
        |seen| {
            expect_no_lost_error("prefault()", seen);
            seen.expect_nothing_left();
        },
    )
}

/// Calls `prefault`, of which a call may fail, and checks the result.
fn prefault_with_failures(len: usize, refused: Option<Refusal>) {
    let mut region = watch(|| region(len));
    let half = region.len() / 2;
    fill(&mut region.as_mut_slice()[half..]);
    let result = watch(|| refuse(|| region.prefault()));
    let (untouched, written) = region.as_slice().split_at(half);
    check!(
        is_zero(untouched) && first_change(written).is_none(),
        "prefault() changed the contents of the region; expected every byte to be kept, whatever prefault() returns."
    );
    match result {
        Ok(()) => {
            judge::note(RETURNED_OK);
            expect_ok_is_true("prefault()", &mut region);
        }
        Err(error) => expect_errno("prefault()", &error, refused),
    }
    fill(region.as_mut_slice());
    watch(|| drop(region));
}

/// The calls of an answer's other way to populate pages fail, too.
#[test]
fn calls_that_fail_before_linux_5_14() {
    refusals(
        &POPULATING,
        |refused| {
            pretend::no_populate_advice();
            if let Some(region) = populate(refused) {
                watch(|| refuse(|| drop(region)));
            }
            prefault_with_failures(PAGES * page_size(), refused);
        },
        expect_clean,
    )
}

const RETURNED_OK: u64 = 1;

/// Fails the case if `call` returned Ok although the kernel said that it cannot provide the pages.
fn expect_no_lost_error(call: &str, seen: &Seen) {
    let advised = seen.calls("madvise").into_iter();
    let mut populating =
        advised.filter(|call| call.args[2] == nix::libc::MADV_POPULATE_WRITE as u64);
    // A call that is repeated may succeed, and EINVAL and EAGAIN leave another way open.
    if let Some(Err(error @ (Errno::ENOMEM | Errno::EFAULT | Errno::EHWPOISON))) =
        populating.next_back().map(|call| call.result)
        && seen.notes().contains(&RETURNED_OK)
    {
        judge::fail(format!(
            "{call} returned Ok after MADV_POPULATE_WRITE had failed with {error:?}; expected the error. Write to the \
             pages yourself only after EINVAL: where the kernel cannot provide a page, a write kills the process."
        ));
    }
}

/// Fails the case unless the error is that of the call that was made to fail.
fn expect_errno(call: &str, error: &io::Error, refused: Option<Refusal>) {
    let Some(refusal) = refused else {
        judge::fail(format!(
            "{call} returned the error \"{error}\"; expected Ok."
        ));
    };
    expect_own_errno(call, error);
    let expected = io::Error::from(refusal.errno);
    check!(
        error.kind() == expected.kind(),
        "{call} returned the error \"{error}\"; expected the kernel's: \"{expected}\"."
    );
    // std has no kind for these two.
    let needs_errno = [Errno::EFAULT, Errno::EHWPOISON].contains(&refusal.errno);
    check!(
        !needs_errno || errno_of(error) == Some(refusal.errno),
        "{call} returned the error \"{error}\", which does not contain {0:?}; expected the kernel's error, {0:?}. It has no \
         ErrorKind of its own: return the kernel's error itself, or wrap it in yours.",
        refusal.errno
    );
}
