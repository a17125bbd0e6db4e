//! Stage 3: invalid sizes.

use super::*;

/// A function that maps a region, with its name.
type Constructor = (&'static str, fn(usize) -> io::Result<Region>);

const NEW: Constructor = ("Region::new", Region::new);

/// Lengths that are no region's, with the error that is expected.
pub fn invalid() -> [(usize, &'static str, ErrorKind); 8] {
    let most = isize::MAX as usize;
    [
        (0, "0", InvalidInput),
        (1 << 62, "1 << 62", OutOfMemory),
        (most, "isize::MAX", OutOfMemory),
        (most + 1, "isize::MAX + 1", OutOfMemory),
        (most + 2, "isize::MAX + 2", OutOfMemory),
        // Rounded up to 64 KiB pages, this length wraps to 0. With smaller pages it does not.
        (usize::MAX - 60_000, "usize::MAX - 60000", OutOfMemory),
        (usize::MAX - 1, "usize::MAX - 1", OutOfMemory),
        (usize::MAX, "usize::MAX", OutOfMemory),
    ]
}

/// Fails the case unless each invalid length that `which` chooses is an error.
pub fn expect_errors((name, constructor): Constructor, which: impl Fn(usize) -> bool) {
    for (len, text, kind) in invalid() {
        if which(len) {
            expect_error(&format!("{name}({text})"), constructor(len), kind);
        }
    }
}

#[test]
fn zero_bytes() {
    case(|| expect_errors(NEW, |len| len == 0))
}

#[test]
fn more_than_isize_max() {
    case(|| {
        expect_errors(NEW, |len| {
            len > isize::MAX as usize && len < usize::MAX - 100_000
        })
    })
}

#[test]
fn usize_max() {
    case(|| expect_errors(NEW, |len| len >= usize::MAX - 100_000))
}

#[test]
fn more_than_the_address_space() {
    case(|| expect_errors(NEW, |len| len > 0 && len <= isize::MAX as usize))
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            for (len, ..) in invalid() {
                watch(|| drop(Region::new(len)));
            }
        },
        expect_clean,
    )
}
