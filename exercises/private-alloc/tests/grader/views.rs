//! Stage 5: `Send` and `Sync`. The compile-fail cases grade the lifetimes.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::thread;

use judge::Steps;
use judge::probe::changes;

use super::populate::{populated, prefault_without_advice};
use super::*;

#[test]
fn sent_to_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let _region = region(LEN);
        check!(
            impls::impls!(Region: Send),
            "Region is not Send: a struct with a raw pointer is Send only by an `unsafe impl Send for Region`. Add \
             it, with a SAFETY comment."
        );
        expect_documented("Send");
    })
}

#[test]
fn shared_with_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let region = region(LEN);
        check!(
            impls::impls!(Region: Sync),
            "Region is not Sync: a struct with a raw pointer is Sync only by an `unsafe impl Sync for Region`. Add \
             it, with a SAFETY comment."
        );
        expect_documented("Sync");
        check!(
            !judge::answer::source::has_static_mut(),
            "The code has a `static mut`, which several threads may access at the same time: a data race. Use an atomic, a \
             OnceLock or a Mutex."
        );
        if let Some(name) = judge::answer::source::unlocked_static() {
            judge::fail(format!(
                "The type of the static `{name}` has a cell and an `unsafe impl Sync`, and the code has no atomic and no lock: \
                 several threads may access the static at the same time, a data race. Use an atomic, a OnceLock or a Mutex."
            ));
        }
        // `Cell`, `RefCell` and `UnsafeCell` are not RefUnwindSafe; atomics and locks are.
        if !impls::impls!(Region: std::panic::RefUnwindSafe) {
            let changed = changes(&region, || {
                let _ = (region.len(), region.as_slice());
            });
            check!(
                !changed,
                "len() or as_slice() writes to the Region through &self, without an atomic or a lock. Two threads may \
                 call them at the same time, so Sync is not sound."
            );
        }
    })
}

/// Fails the case if the answer has an `unsafe impl` of this trait without a comment that says why it is sound.
fn expect_documented(name: &str) {
    check!(
        !judge::answer::source::is_undocumented(name),
        "`unsafe impl {name}` has no SAFETY comment. Write directly above it, after `// SAFETY:`, why it is sound."
    );
}

/// Sends a value to another thread, whether or not it is `Send`.
struct Sent<T>(T);
// SAFETY: a region must be `Send`, and `sent_to_a_thread` grades that.
unsafe impl<T> Send for Sent<T> {}

#[test]
fn outlives_its_thread() {
    case(|| {
        let made = thread::spawn(|| {
            let mut region = region(LEN);
            fill(region.as_mut_slice());
            Sent(region)
        });
        let Ok(Sent(region)) = made.join() else {
            judge::fail("Region::new panicked in a second thread.".to_owned());
        };
        let (start, len) = (region.as_slice().as_ptr(), region.len());
        check!(
            mapped_pages(start, len) == len / page_size()
                && first_change(region.as_slice()).is_none(),
            "The thread that made a region has ended, and the region lost its pages or its contents. Unmap them only \
             in Drop."
        );
        drop_in_a_thread(region);
    })
}

/// A thread that has ended and a new one may look alike: glibc gives its stack, and with it pthread_self(3), to the next
/// one. Here both threads live, and both use the region.
#[test]
fn dropped_in_another_thread() {
    case(|| {
        let mut region = region(LEN);
        fill(region.as_mut_slice());
        drop_in_a_thread(region);
    })
}

/// Fails the case unless the region, which `fill` has filled, can be used and dropped in a new thread.
fn drop_in_a_thread(region: Region) {
    let (start, len) = (region.as_slice().as_ptr(), region.len());
    let sent = Sent(region);
    let used = thread::spawn(move || {
        let mut region = { sent }.0;
        check!(
            first_change(region.as_slice()).is_none(),
            "A region was sent to another thread, and its contents changed there. Keep the region's state in the \
             Region, not in a thread-local variable."
        );
        region.as_mut_slice().fill(0xAA);
    });
    if let Err(payload) = used.join() {
        std::panic::resume_unwind(payload);
    }
    check!(
        mapped_pages(start, len) == 0,
        "A region was dropped in a different thread from the one that made it, and it is still mapped. Unmap in \
         Drop, whichever thread runs it."
    );
}

// In these three cases, one thread is stopped at each place where it changes a static, or makes a system call, while
// another one does the same with a region of another length.

#[test]
fn made_by_two_threads() {
    case(|| {
        let [long, short] = lens();
        let steps = Steps::of(&(), || Sent(region(long)));
        drop(steps.find_in_thread());
        for place in 0..judge::places() {
            let (Sent(first), Sent(second)) = steps.beside(place, || Sent(region(short)));
            // Their drops would unmap memory that is not theirs.
            let [first, second] = [first, second].map(ManuallyDrop::new);
            expect_separate(&first, &second, NO_STATICS);
            drop([first, second].map(ManuallyDrop::into_inner));
        }
    })
}

/// Before Linux 5.14 an answer has more to do.
#[test]
fn prefaulted_by_two_threads() {
    case(|| {
        pretend::no_populate_advice();
        let regions = [0, 1].map(|_| Mutex::new(None));
        let prefault = |index: usize, done: &str, advice: &str| {
            let mut region = regions[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(Sent(region)) = &mut *region
                && let Err(error) = Region::prefault(region)
            {
                judge::fail(format!(
                    "{done} One call returned the error \"{error}\"; expected Ok. {advice}"
                ));
            }
        };
        let renew = || {
            // An answer may touch each byte, so the region of the thread that stops is the shorter one.
            let lens = lens().into_iter().rev();
            for (index, (place, len)) in regions.iter().zip(lens).enumerate() {
                let mut region = region(len);
                region.as_mut_slice()[0] = index as u8 + 1;
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sent(region));
            }
        };
        let expect_all_prefaulted = |done: &str, advice: &str| {
            for (index, region) in regions.iter().enumerate() {
                let region = region.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(Sent(region)) = &*region {
                    expect_prefaulted(done, region, index as u8 + 1, advice);
                }
            }
        };
        // A failure in a single thread has another cause.
        renew();
        prefault(0, IN_ONE_THREAD, WRITE_EVERY_PAGE);
        prefault(1, IN_ONE_THREAD, WRITE_EVERY_PAGE);
        expect_all_prefaulted(IN_ONE_THREAD, WRITE_EVERY_PAGE);
        let steps = Steps::of(&(), || prefault(0, IN_TWO_THREADS, NO_STATICS));
        renew();
        steps.find_in_thread();
        for place in 0..judge::places() {
            renew();
            steps.beside(place, || prefault(1, IN_TWO_THREADS, NO_STATICS));
            expect_all_prefaulted(IN_TWO_THREADS, NO_STATICS);
        }
    })
}

#[test]
fn dropped_by_two_threads() {
    case(|| {
        let [long, short] = lens();
        let mut kept = region(long);
        kept.as_mut_slice().fill(3);
        let steps = Steps::of(&(), || drop(region(long)));
        steps.find_in_thread();
        for place in 0..judge::places() {
            steps.beside(place, || drop(region(short)));
            check!(
                kept.as_slice().iter().all(|byte| *byte == 3),
                "Two threads each made and dropped a region at the same time, and the contents of a third region changed. \
                 {NO_STATICS}"
            );
        }
    })
}

/// What an answer keeps from its first call, such as the page size, is written only once in a process. So each place is
/// tried in a new process, whose first calls these are.
#[test]
fn first_calls_at_the_same_time() {
    case(|| {
        pretend::no_populate_advice();
        let [long, short] = lens();
        let use_a_region = |len| {
            drop(populated(len));
            let mut region = region(len);
            prefault_without_advice(&mut region);
            Sent(region)
        };
        let steps = Steps::of(&(), || use_a_region(short));
        in_child(|| {
            drop(steps.find_in_thread());
            let Sent(region) = use_a_region(long);
            expect_prefaulted(IN_ONE_THREAD, &region, 0, WRITE_EVERY_PAGE);
            0
        });
        for place in 0..judge::places() {
            in_child(|| {
                // The calls do not panic when one thread makes them, as just seen.
                judge::expect_panics();
                let both = AssertUnwindSafe(|| steps.beside(place, || use_a_region(long)));
                let (Sent(first), Sent(second)) =
                    std::panic::catch_unwind(both).unwrap_or_else(|payload| {
                        let message = judge::panic_message(&*payload)
                            .unwrap_or_else(|| std::panic::resume_unwind(payload));
                        judge::fail(format!(
                            "Two threads made and prefaulted regions at the same time, the first ones of the process, and one \
                             of the threads panicked: {message}. {IN_ONE_STEP}"
                        ))
                    });
                expect_separate(&first, &second, IN_ONE_STEP);
                for region in [&first, &second] {
                    expect_prefaulted(IN_TWO_THREADS, region, 0, IN_ONE_STEP);
                }
                0
            });
        }
    })
}

const IN_ONE_STEP: &str = "If the first call keeps something in a static, no other call may see the static half done: use a \
                           OnceLock, or a single atomic.";

/// The lengths of two regions, in bytes.
fn lens() -> [usize; 2] {
    [page_size() + 1, 1]
}

const NO_STATICS: &str = "Keep nothing about a region in a static.";

/// Fails the case unless both regions are mapped to their last bytes, and have no page in common.
fn expect_separate(first: &Region, second: &Region, advice: &str) {
    let ranges = [first, second].map(|region| region.as_slice().as_ptr_range());
    let is_whole = |range: &Range<*const u8>| {
        let last = permissions(range.end.wrapping_sub(1));
        last.mapped && last == permissions(range.start)
    };
    let overlap = ranges[0].start < ranges[1].end && ranges[1].start < ranges[0].end;
    check!(
        ranges.iter().all(is_whole) && !overlap,
        "Two threads each made a region at the same time, and one of these is not mapped up to its last byte, or they have \
         a page in common. {advice}"
    );
}

const IN_ONE_THREAD: &str =
    "One thread called prefault() on a kernel without MADV_POPULATE_WRITE (before Linux 5.14).";
const WRITE_EVERY_PAGE: &str = "Write to every page, with write_volatile.";
const IN_TWO_THREADS: &str =
    "Two threads called prefault() at the same time, each for another region.";

/// Fails the case unless all pages of the region are resident, and it begins with this byte. The sentence begins with what was
/// `done`.
fn expect_prefaulted(done: &str, region: &Region, value: u8, advice: &str) {
    let (start, len) = (region.as_slice().as_ptr(), region.len());
    let (resident, pages) = (resident_pages(start, len), len.div_ceil(page_size()));
    check!(
        resident == pages,
        "{done} Of the {pages} pages of one region, {resident} became resident; expected all of them. {advice}"
    );
    let got = region.as_slice()[0];
    check!(
        got == value,
        "{done} The first byte of one region was {value}, and now is {got}. {advice}"
    );
}
