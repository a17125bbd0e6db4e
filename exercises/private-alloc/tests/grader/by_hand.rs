//! Stage 1: raw `mmap` and `munmap`.

use nix::libc;
use private_alloc::{map_by_hand, unmap_by_hand};

use super::*;

const WITHOUT_MAP_ANONYMOUS: &str =
    "mmap failed with EBADF: it looked for an open file, because MAP_ANONYMOUS is missing.";

/// Maps `LEN` bytes with the answer's `map_by_hand`, or fails the case.
fn map() -> *mut u8 {
    let error = match map_by_hand(LEN) {
        Ok(start) => return start,
        Err(error) => error,
    };
    judge::fail(match error.raw_os_error() {
        Some(libc::EBADF) => WITHOUT_MAP_ANONYMOUS.to_owned(),
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
            let start = watch(map);
            // SAFETY: no reference into the mapping exists.
            let _ = watch(|| unsafe { unmap_by_hand(start, LEN) });
        },
        |seen| seen.expect_transcript("by_hand"),
    )
}

#[test]
fn zeroed_and_writable() {
    case(|| {
        let start = map();
        expect_read_and_write(start);
        // SAFETY: the pages are readable and writable, as just checked, and nothing else refers to them.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, LEN) };
        expect_zeros(bytes);
        bytes.fill(7);
        expect_plain("map_by_hand's memory", start, LEN, Kind::Private);
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
                    check!(
                        error.raw_os_error() != Some(libc::EBADF),
                        "{WITHOUT_MAP_ANONYMOUS}"
                    );
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
        let start = map();
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
        let start = map();
        // SAFETY: munmap fails with EINVAL for an address that is not page-aligned, and unmaps nothing.
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
