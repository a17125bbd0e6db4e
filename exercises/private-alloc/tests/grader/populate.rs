//! Stage 4: page faults taken in advance.

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
