//! Grades `private-alloc`: a module for each stage, a case for each test.

// An answer may take `&self` where the stub takes `&mut self`; that is judged, and needs no warning here.
#![allow(unused_mut)]

use std::io;
use std::io::ErrorKind::{self, InvalidInput, OutOfMemory};

use judge::probe::{faults, mapped_pages, page_size, resident_pages, rights};
use judge::{case, check, in_child, pretend, watch, watched};
use nix::libc;
use private_alloc::{Region, map_by_hand, unmap_by_hand};

/// A whole number of pages on every machine, and the size in the transcripts.
const LEN: usize = 512 << 10;

/// Fails the case unless the region was made.
#[track_caller]
fn region(len: usize) -> Region {
    made("Region::new", len, Region::new(len))
}

fn made(call: &str, len: usize, result: io::Result<Region>) -> Region {
    match result {
        Ok(region) => region,
        Err(error) => judge::fail(format!(
            "{call}({len}) must give a region, and gave an error: {error}."
        )),
    }
}

/// Fails the case unless every byte is zero.
fn expect_zeros(bytes: &[u8]) {
    if let Some(offset) = bytes.iter().position(|byte| *byte != 0) {
        judge::fail(format!(
            "Fresh memory must read as zero, and byte {offset} of your region reads {}.",
            bytes[offset]
        ));
    }
}

/// Fails the case unless the page can be read and written, and no more: told here, it is clearer than the signal would be.
fn expect_read_and_write(start: *const u8) {
    let rights = rights(start);
    check!(
        rights.mapped,
        "The address that your function gave is not mapped."
    );
    check!(
        rights.read,
        "Your memory cannot be read: PROT_READ is missing."
    );
    check!(
        rights.write,
        "Your memory cannot be written: PROT_WRITE is missing."
    );
    check!(
        !rights.execute,
        "Your memory can be executed: leave PROT_EXEC out, so that nobody who writes data here can make it code."
    );
}

/// Writes the first byte of each page, and counts the page faults that this takes.
fn faults_of_writing(bytes: &mut [u8], value: u8) -> u64 {
    #[inline(never)]
    fn write_each_page(bytes: &mut [u8], page: usize, value: u8) {
        for byte in bytes.iter_mut().step_by(page) {
            // SAFETY: a reference is valid to write through. Volatile, so that each write is made.
            unsafe { (&raw mut *byte).write_volatile(value) };
        }
    }
    let page = page_size();
    // The code itself may be touched for the first time, and that is a fault too.
    write_each_page(&mut [0; 2], 1, value);
    faults();
    let before = faults();
    write_each_page(bytes, page, value);
    faults() - before
}

mod by_hand {
    use super::*;

    const NO_FILE: &str =
        "mmap failed with EBADF: it looked for an open file, because MAP_ANONYMOUS is missing.";

    fn mapped() -> *mut u8 {
        let error = match map_by_hand(LEN) {
            Ok(start) => return start,
            Err(error) => error,
        };
        judge::fail(match error.raw_os_error() {
            Some(libc::EBADF) => NO_FILE.to_owned(),
            Some(libc::EINVAL) => {
                "mmap failed with EINVAL: it wants a length, and one of MAP_PRIVATE and MAP_SHARED."
                    .to_owned()
            }
            _ => format!("map_by_hand must map 512 KiB, and gave an error: {error}."),
        })
    }

    #[test]
    fn asks_for_one_mapping() {
        watched(
            || {
                let start = watch(mapped);
                // SAFETY: no reference into the mapping exists.
                let _ = watch(|| unsafe { unmap_by_hand(start, LEN) });
            },
            |seen| seen.expect_transcript("by_hand"),
        )
    }

    #[test]
    fn zeroed_and_writable() {
        case(|| {
            let start = mapped();
            expect_read_and_write(start);
            // SAFETY: the pages are mapped to be read and written, as just checked, and the case alone uses them.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, LEN) };
            expect_zeros(bytes);
            bytes.fill(7);
        })
    }

    #[test]
    fn failure_is_an_error() {
        case(|| {
            for (len, errno, why) in [
                (0, libc::EINVAL, "a mapping of 0 bytes"),
                (
                    isize::MAX as usize,
                    libc::ENOMEM,
                    "more than any address space holds",
                ),
            ] {
                match map_by_hand(len) {
                    Ok(start) => {
                        check!(
                            start.addr() != usize::MAX,
                            "mmap refused {why}, and you gave MAP_FAILED out as an address: it is not null, but \
                             all ones."
                        );
                        judge::fail(format!(
                            "mmap refuses {why}, and your function said that it was mapped."
                        ));
                    }
                    Err(error) => {
                        check!(error.raw_os_error() != Some(libc::EBADF), "{NO_FILE}");
                        check!(
                            error.raw_os_error() == Some(errno),
                            "mmap refused {why}, and your error does not carry its errno: \
                             io::Error::last_os_error() does."
                        );
                    }
                }
            }
        })
    }

    #[test]
    fn unmapped() {
        case(|| {
            let start = mapped();
            // SAFETY: no reference into the mapping exists.
            let result = unsafe { unmap_by_hand(start, LEN) };
            check!(
                result.is_ok(),
                "unmap_by_hand must unmap what map_by_hand mapped, and gave an error."
            );
            check!(
                mapped_pages(start, LEN) == 0,
                "unmap_by_hand said that all was well, and the pages are still mapped."
            );
        })
    }

    #[test]
    fn failed_unmap_is_an_error() {
        case(|| {
            let start = mapped();
            // SAFETY: the kernel refuses an address inside a page, and changes nothing.
            let result = unsafe { unmap_by_hand(start.wrapping_add(1), LEN) };
            match result {
                Ok(()) => judge::fail(
                    "munmap refuses a start that is no page's first byte, and your function said that all was \
                     well: look at what munmap returns."
                        .to_owned(),
                ),
                Err(error) => check!(
                    error.raw_os_error() == Some(libc::EINVAL),
                    "munmap refused with EINVAL, and your error does not carry it: io::Error::last_os_error() does."
                ),
            }
        })
    }
}

mod region {
    use super::*;

    /// Clones a region, if the answer lets it be cloned: an inherent function goes before a trait's.
    struct Cloned<T>(std::marker::PhantomData<T>);

    #[allow(dead_code)] // One of the two is used.
    impl<T: Clone> Cloned<T> {
        fn copy_of(original: &T) -> Option<T> {
            Some(original.clone())
        }
    }

    trait NotCloned<T> {
        fn copy_of(_: &T) -> Option<T> {
            None
        }
    }

    impl<T> NotCloned<T> for Cloned<T> {}

    #[test]
    fn zeroed() {
        case(|| {
            // A second region, where the first has left its bytes, shows whether memory is really fresh.
            for _ in 0..2 {
                let mut region = region(LEN);
                expect_zeros(region.as_slice());
                expect_read_and_write(region.as_slice().as_ptr());
                region.as_mut_slice().fill(0xAA);
            }
        })
    }

    #[test]
    fn page_aligned() {
        case(|| {
            let regions = [region(1), region(100), region(LEN)];
            for region in &regions {
                check!(
                    region
                        .as_slice()
                        .as_ptr()
                        .addr()
                        .is_multiple_of(page_size()),
                    "Your region begins inside a page, where a mapping begins with its page: is this memory from mmap?"
                );
            }
        })
    }

    #[test]
    fn exact_length() {
        case(|| {
            let odd = 3 * page_size() + 123;
            for len in [1, page_size(), odd] {
                let mut region = region(len);
                check!(
                    region.len() == len,
                    "len() is not the length that was asked for: the kernel maps whole pages, and the region is as \
                     long as its caller said."
                );
                let views = [region.as_slice().len(), region.as_mut_slice().len()];
                check!(
                    views == [len, len],
                    "A view is not as long as its region: the rest of the last page is not part of it."
                );
            }
        })
    }

    #[test]
    fn writable_to_the_last_byte() {
        case(|| {
            let mut region = region(LEN - 1);
            expect_read_and_write(region.as_slice().as_ptr());
            region.as_mut_slice().fill(1);
        })
    }

    #[test]
    fn lazy() {
        case(|| {
            let page = page_size();
            let mut region = region(16 * page);
            let bytes = region.as_mut_slice();
            let before = resident_pages(bytes.as_ptr(), bytes.len());
            check!(
                before == 0,
                "Pages of a new region were resident before anything had touched them: each must wait for its first \
                 touch."
            );
            for touched in [0, 3, 4, 9, 15] {
                bytes[touched * page] = 1;
            }
            let after = resident_pages(bytes.as_ptr(), bytes.len());
            check!(
                after == 5,
                "Of 16 pages 5 were written, and {after} are resident: each touch must bring in its own page alone."
            );
        })
    }

    #[test]
    fn private() {
        case(|| {
            let mut region = region(LEN);
            region.as_mut_slice().fill(1);
            let before_fork = region.as_slice().to_vec();
            let code = in_child(|| {
                let copied = region.as_slice() == before_fork;
                region.as_mut_slice().fill(2);
                u8::from(!copied)
            });
            check!(
                code == 0,
                "A forked child must find the bytes as they were at the fork."
            );
            check!(
                region.as_slice() == before_fork,
                "A forked child wrote to the region, and its parent sees it: this memory is shared, not private."
            );
        })
    }

    #[test]
    fn independent() {
        case(|| {
            let mut first = region(LEN);
            let second = region(LEN);
            first.as_mut_slice().fill(1);
            check!(
                second.as_slice().iter().all(|byte| *byte == 0),
                "A write to one region is seen in another: each must have memory of its own."
            );
            let address = second.as_slice().as_ptr();
            drop(first);
            check!(
                mapped_pages(address, LEN) == LEN / page_size(),
                "Dropping one region took pages of another away."
            );
        })
    }

    #[test]
    fn gone_after_drop() {
        case(|| {
            let page = page_size();
            let len = 16 * page - 1;
            let region = region(len);
            let start = region.as_slice().as_ptr();
            if let Some(copy) = Cloned::<Region>::copy_of(&region) {
                check!(
                    copy.as_slice().as_ptr() != start,
                    "A clone of a region is at the same address, and each of the two will unmap it: a mapping has one \
                     owner."
                );
            }
            drop(region);
            let left = mapped_pages(start, len);
            check!(
                left < 16,
                "After the region was dropped the kernel still maps all of it: Drop must unmap."
            );
            check!(
                left == 0,
                "After the region was dropped the kernel still maps {left} of its 16 pages: Drop must unmap the \
                 whole length."
            );
        })
    }

    #[test]
    fn leaves_nothing() {
        watched(
            || watch(|| region(LEN).as_mut_slice().fill(1)),
            |seen| seen.expect_ledger("region"),
        )
    }

    #[test]
    fn asks_the_page_size() {
        watched(
            || {
                pretend::page_size(PRETENDED);
                watch(|| drop(region(ODD)));
            },
            |seen| {
                for call in seen.calls("mmap").iter().chain(&seen.calls("munmap")) {
                    let bytes = call.args[1] as usize;
                    check!(
                        bytes == ODD || bytes.is_multiple_of(PRETENDED),
                        "On a machine whose pages are 64 KiB your {} names neither the region's length nor whole \
                         pages: the page size must come from sysconf.",
                        call.name
                    );
                }
            },
        )
    }

    /// The largest page of aarch64, so a multiple of every machine's.
    const PRETENDED: usize = 64 << 10;

    /// Whole pages of no size.
    const ODD: usize = 12_345;
}

mod errors {
    use super::*;

    #[test]
    fn zero_bytes() {
        case(|| expect_refused("Region::new(0)", Region::new(0), InvalidInput))
    }

    #[test]
    fn more_than_isize_max() {
        case(|| {
            let result = Region::new(isize::MAX as usize + 1);
            expect_refused("Region::new(isize::MAX + 1)", result, OutOfMemory);
        })
    }

    #[test]
    fn usize_max() {
        case(|| {
            expect_refused(
                "Region::new(usize::MAX)",
                Region::new(usize::MAX),
                OutOfMemory,
            )
        })
    }

    #[test]
    fn more_than_the_address_space() {
        case(|| expect_refused("Region::new(1 << 62)", Region::new(1 << 62), OutOfMemory))
    }

    #[test]
    fn leaves_nothing() {
        watched(
            || {
                for len in [0, 1 << 62, usize::MAX] {
                    watch(|| drop(Region::new(len)));
                }
            },
            |seen| seen.expect_ledger("errors"),
        )
    }
}

/// Fails the case unless the call was refused with that kind of error.
fn expect_refused(call: &str, result: io::Result<Region>, kind: ErrorKind) {
    match result {
        Ok(_) => judge::fail(format!(
            "{call} must be an error, {kind:?}, and it gave a region."
        )),
        Err(error) => check!(
            error.kind() == kind,
            "{call} must fail with {kind:?}, and it failed with {:?}.",
            error.kind()
        ),
    }
}

mod populate {
    use super::*;

    const PAGES: usize = 32;

    /// Fails the case unless all pages can be written without a fault.
    fn expect_no_fault(bytes: &mut [u8], after: &str) {
        let resident = resident_pages(bytes.as_ptr(), bytes.len());
        let taken = faults_of_writing(bytes, 9);
        check!(
            taken == 0 || resident < PAGES,
            "After {after} all {PAGES} pages are resident, but not yet yours to write: a write to each took {taken} \
             page faults, and must take none."
        );
        check!(
            taken == 0,
            "After {after} {resident} of {PAGES} pages are resident: a write to each took {taken} page faults, and \
             must take none."
        );
    }

    fn prefault(region: &mut Region) {
        if let Err(error) = region.prefault() {
            judge::fail(format!("prefault() gave an error: {error}."));
        }
    }

    #[test]
    fn resident_at_once() {
        case(|| {
            let len = PAGES * page_size();
            let mut region = made("Region::new_populated", len, Region::new_populated(len));
            let bytes = region.as_mut_slice();
            expect_no_fault(bytes, "new_populated");
        })
    }

    #[test]
    fn populated_is_zeroed() {
        case(|| {
            for _ in 0..2 {
                let mut region = made("Region::new_populated", LEN, Region::new_populated(LEN));
                expect_zeros(region.as_slice());
                region.as_mut_slice().fill(0xAA);
            }
        })
    }

    #[test]
    fn populated_leaves_nothing() {
        watched(
            || {
                watch(|| {
                    drop(made(
                        "Region::new_populated",
                        LEN,
                        Region::new_populated(LEN),
                    ))
                })
            },
            |seen| seen.expect_ledger("region"),
        )
    }

    #[test]
    fn populated_errors() {
        case(|| {
            let call = "Region::new_populated";
            expect_refused(
                &format!("{call}(0)"),
                Region::new_populated(0),
                InvalidInput,
            );
            let most = Region::new_populated(usize::MAX);
            expect_refused(&format!("{call}(usize::MAX)"), most, OutOfMemory);
        })
    }

    #[test]
    fn prefault_keeps_contents() {
        case(|| {
            let mut region = region(PAGES * page_size());
            for (offset, byte) in region.as_mut_slice().iter_mut().enumerate() {
                *byte = (offset % 251) as u8;
            }
            prefault(&mut region);
            let kept = |(offset, byte): (usize, &u8)| *byte == (offset % 251) as u8;
            check!(
                region.as_slice().iter().enumerate().all(kept),
                "prefault() changed what the region holds: it must keep every byte."
            );
        })
    }

    #[test]
    fn prefault_brings_in_every_page() {
        case(|| {
            let mut region = region(PAGES * page_size());
            prefault(&mut region);
            expect_no_fault(region.as_mut_slice(), "prefault()");
        })
    }

    #[test]
    fn prefault_after_reads() {
        case(|| {
            let mut region = region(PAGES * page_size());
            // Each read maps the kernel's one page of zeros, which is resident and cannot be written.
            expect_zeros(region.as_slice());
            prefault(&mut region);
            expect_no_fault(
                region.as_mut_slice(),
                "reading every page and then prefault()",
            );
        })
    }

    #[test]
    fn prefault_after_fork() {
        case(|| {
            let mut region = region(PAGES * page_size());
            region.as_mut_slice().fill(1);
            // Calibrated here, so that the child only counts.
            faults();
            let taken = in_child(|| {
                prefault(&mut region);
                faults_of_writing(region.as_mut_slice(), 9).min(255) as u8
            });
            check!(
                taken == 0,
                "After a fork the pages are resident, and shared with the parent until the first write: after prefault() \
                 in the child a write to each of {PAGES} pages still took {taken} page faults."
            );
        })
    }

    #[test]
    fn prefault_before_linux_5_14() {
        case(|| {
            let mut region = region(PAGES * page_size());
            pretend::no_populate_advice();
            if let Err(error) = region.prefault() {
                judge::fail(format!(
                    "On a kernel without MADV_POPULATE_WRITE, which came with 5.14, prefault() gave an error: {error}."
                ));
            }
            expect_no_fault(
                region.as_mut_slice(),
                "prefault() on a kernel without MADV_POPULATE_WRITE",
            );
        })
    }
}

mod views {
    use super::*;

    #[test]
    fn sent_to_a_thread() {
        case(|| {
            let _started = region(LEN);
            check!(
                impls::impls!(Region: Send),
                "A Region cannot be sent to another thread: a raw pointer is not Send, and you must say that yours is."
            );
        })
    }

    #[test]
    fn shared_with_a_thread() {
        case(|| {
            let _started = region(LEN);
            check!(
                impls::impls!(Region: Sync),
                "A &Region cannot be shared with another thread: a raw pointer is not Sync, and you must say that \
                 yours is."
            );
        })
    }
}

judge::compile_fail! {
    views: view_outlives_region, dropped_while_viewed, two_writers, read_while_writing
}
