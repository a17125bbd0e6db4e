//! Stage 3: invalid sizes.

use super::*;

/// A function that maps a region, with its name.
pub type Constructor = (&'static str, fn(usize) -> io::Result<Region>);

const NEW: Constructor = ("Region::new", Region::new);

/// Invalid lengths, with the error that is expected.
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
            begin_call();
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
fn lengths_that_wrap() {
    case(|| expect_whole(NEW, 32))
}

/// Fails the case unless a length of more than `1 << bits` bytes, which a smaller type for bytes or pages would wrap to a
/// short one, is an error or a region that is mapped as a whole.
pub fn expect_whole((name, constructor): Constructor, bits: u32) {
    // Calibrate the probe before a region uses up what RLIMIT_DATA permits.
    mapped_pages(std::ptr::null(), 1);
    for bits in bits..usize::BITS - 1 {
        let len = (1 << bits) + 1;
        let call = format!("{name}((1 << {bits}) + 1)");
        begin_call();
        match constructor(len) {
            Ok(region) => expect_all_mapped(&call, &region, len),
            result => expect_error(&call, result, OutOfMemory),
        }
    }
}

/// Fails the case unless the region that `call` returned is mapped from its first to its last byte.
fn expect_all_mapped(call: &str, region: &Region, len: usize) {
    let bytes = region.as_slice();
    let places = [0, len / 2, len - 1].map(|offset| bytes.as_ptr().wrapping_add(offset));
    check!(
        bytes.len() == len && places.iter().all(|place| mapped_pages(*place, 1) == 1),
        "{call} returned Ok, but the region is not mapped up to its last byte; expected Err(OutOfMemory), or a mapping of \
         the whole length. Keep lengths and numbers of pages in a usize."
    );
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
