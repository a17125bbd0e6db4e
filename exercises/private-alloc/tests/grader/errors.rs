//! Stage 3: invalid sizes.

use super::*;

#[test]
fn zero_bytes() {
    case(|| expect_error("Region::new(0)", Region::new(0), InvalidInput))
}

#[test]
fn more_than_isize_max() {
    case(|| {
        let result = Region::new(isize::MAX as usize + 1);
        expect_error("Region::new(isize::MAX + 1)", result, OutOfMemory);
    })
}

#[test]
fn usize_max() {
    case(|| {
        expect_error(
            "Region::new(usize::MAX)",
            Region::new(usize::MAX),
            OutOfMemory,
        )
    })
}

#[test]
fn more_than_the_address_space() {
    case(|| expect_error("Region::new(1 << 62)", Region::new(1 << 62), OutOfMemory))
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
