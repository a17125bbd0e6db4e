//! Stage 4: prefaulting with `new_populated` and `prefault`.

use judge::count;
use judge::probe::faults;

use super::*;

const PAGES: usize = 32;

/// Fails the case unless every page can be written without a page fault.
fn expect_no_fault(bytes: &mut [u8], after: &str) {
    let what = format!("After {after} the region");
    expect_plain(&what, bytes.as_ptr(), bytes.len(), Kind::MayBeHuge);
    let resident = resident_pages(bytes.as_ptr(), bytes.len());
    let taken = faults_of_writing(bytes, 9);
    check!(
        taken == 0 || resident < PAGES,
        "After {after} all {PAGES} pages are resident, but not yet yours to write: a write to each took {}, and must \
         take none.",
        count(taken as usize, "page fault")
    );
    check!(
        taken == 0,
        "After {after} {resident} of {PAGES} pages are resident: a write to each took {}, and must take none.",
        count(taken as usize, "page fault")
    );
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

fn populated(len: usize) -> Region {
    expect_region("Region::new_populated", len, Region::new_populated(len))
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
        let mut region = populated(len);
        let bytes = region.as_mut_slice();
        expect_no_fault(bytes, "new_populated");
    })
}

#[test]
fn populated_is_zeroed() {
    case(|| {
        for _ in 0..2 {
            let mut region = populated(LEN);
            expect_zeros(region.as_slice());
            region.as_mut_slice().fill(0xAA);
        }
    })
}

#[test]
fn populated_leaves_nothing() {
    watched(
        || {
            let region = watch(|| populated(LEN));
            watch(|| drop(region));
        },
        |seen| seen.expect_ledger("region"),
    )
}

#[test]
fn populated_errors() {
    case(|| {
        let call = "Region::new_populated";
        expect_error(
            &format!("{call}(0)"),
            Region::new_populated(0),
            InvalidInput,
        );
        let most = Region::new_populated(usize::MAX);
        expect_error(&format!("{call}(usize::MAX)"), most, OutOfMemory);
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
        // Each read maps the shared zero page, which is present but write-protected.
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
        // Calibrate the probe before the fork, so that the child only counts.
        faults();
        let taken = in_child(|| {
            prefault(&mut region);
            faults_of_writing(region.as_mut_slice(), 9).min(255) as u8
        });
        check!(
            taken == 0,
            "After a fork the pages are resident, and shared with the parent until the first write: after prefault() \
             in the child a write to each of {PAGES} pages still took {}.",
            count(taken.into(), "page fault")
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
