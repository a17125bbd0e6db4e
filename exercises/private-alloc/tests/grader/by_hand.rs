//! Stage 1: raw `mmap` and `munmap`.

use std::fmt::Display;

use judge::Refusal;
use nix::libc;
use private_alloc::{map_by_hand, unmap_by_hand};

use super::*;

/// Fails the case if mmap's error means that it wanted to map a file.
fn expect_no_file_error(error: &io::Error) {
    let reason = match error.raw_os_error() {
        Some(libc::EBADF) => "EBADF, because it looked for an open file",
        // A descriptor of 0 is /dev/null in the graded process.
        Some(libc::ENODEV) => "ENODEV, because it cannot map the file of this descriptor",
        _ => return,
    };
    judge::fail(format!("mmap failed with {reason}. Pass MAP_ANONYMOUS."));
}

/// Maps `len` bytes with the answer's `map_by_hand`, or fails the case.
fn map(len: usize) -> *mut u8 {
    begin_call();
    let error = match map_by_hand(len) {
        Ok(start) => {
            expect_no_map_failed(start, len);
            return start;
        }
        Err(error) => error,
    };
    expect_own_errno("map_by_hand", &error);
    expect_no_file_error(&error);
    judge::fail(match error.raw_os_error() {
        Some(libc::EINVAL) => format!(
            "map_by_hand({len}) returned mmap's error EINVAL; expected an address. Pass the length, and one of MAP_PRIVATE \
             and MAP_SHARED."
        ),
        _ => format!(
            "map_by_hand({len}) returned the error \"{error}\"; expected an address.{}",
            failed_call(&error)
        ),
    })
}

/// Fails the case if `map_by_hand` returned MAP_FAILED for a length, which is called `name`.
fn expect_no_map_failed(start: *mut u8, name: impl Display) {
    check!(
        start.cast() != libc::MAP_FAILED,
        "map_by_hand({name}) returned MAP_FAILED as a valid address. Compare with MAP_FAILED, not with null."
    );
}

/// Unmaps with the answer's `unmap_by_hand`, or fails the case. Nothing may use the range any more.
fn unmap(start: *mut u8, len: usize) {
    begin_call();
    // SAFETY: no reference into the range exists, and no caller uses it afterwards.
    if let Err(error) = unsafe { unmap_by_hand(start, len) } {
        expect_own_errno("unmap_by_hand", &error);
        judge::fail(format!(
            "unmap_by_hand returned the error \"{error}\" for a mapping of {}; expected Ok. Pass start and len to munmap \
             unchanged.",
            judge::amount(len)
        ));
    }
}

#[test]
fn makes_the_prescribed_calls() {
    watched(
        || {
            let start = watch(|| map(LEN));
            // SAFETY: no reference into the mapping exists.
            let _ = watch(|| unsafe { unmap_by_hand(start, LEN) });
        },
        |seen| seen.expect_transcript("by_hand"),
    )
}

/// Lengths that both functions must pass on: the kernel rejects some of them.
const PASSED_ON: [(usize, &str); 6] = [
    (1, "1"),
    (LEN - 1, "524287"),
    (0, "0"),
    (1 << 62, "1 << 62"),
    (isize::MAX as usize + 1, "isize::MAX + 1"),
    (usize::MAX, "usize::MAX"),
];

#[test]
fn passes_its_arguments_on() {
    watched(
        || {
            for (len, _) in PASSED_ON {
                if let Ok(start) = watch(|| map_by_hand(len)) {
                    unmap(start, len);
                }
            }
            for (len, _) in PASSED_ON {
                // SAFETY: nothing is mapped at address 0, and munmap rejects the lengths that reach further.
                let _ = watch(|| unsafe { unmap_by_hand(std::ptr::null_mut(), len) });
            }
        },
        |seen| {
            for (function, name, with) in [
                ("map_by_hand", "mmap", "the lengths"),
                ("unmap_by_hand", "munmap", "a null pointer and the lengths"),
            ] {
                let calls = seen.calls(name).into_iter();
                let got: Vec<usize> = calls.map(|call| call.args[1] as usize).collect();
                let expected = PASSED_ON.map(|(len, _)| len);
                check!(
                    got == expected,
                    "{function} was called with {with} {}, and called {name} with {}; expected the same lengths. Make the \
                     call for all arguments, and pass them unchanged: the kernel rejects what is not valid.",
                    list(&expected),
                    list(&got)
                );
            }
        },
    )
}

/// The lengths, with the names of those in `PASSED_ON`.
fn list(lengths: &[usize]) -> String {
    let name = |len: &usize| {
        let known = PASSED_ON.iter().find(|(known, _)| known == len);
        known.map_or_else(|| len.to_string(), |(_, name)| (*name).to_owned())
    };
    match lengths {
        [] => "none".to_owned(),
        _ => lengths.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}

#[test]
fn ignores_an_earlier_errno() {
    case(|| {
        let mut mapped = Vec::new();
        expect_ok_whatever_errno("map_by_hand", || {
            mapped.push(map_by_hand(LEN)?);
            Ok(())
        });
        expect_ok_whatever_errno("unmap_by_hand", || match mapped.pop() {
            // SAFETY: no reference into the mapping exists.
            Some(start) => unsafe { unmap_by_hand(start, LEN) },
            None => Ok(()),
        });
    })
}

#[test]
fn zeroed_and_writable() {
    case(|| {
        for (len, name) in lengths() {
            let start = map(len);
            expect_mapped(start, len, name);
            expect_read_and_write(start);
            // SAFETY: the pages are mapped, readable and writable, as just checked, and nothing else refers to them.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
            expect_zeros(bytes);
            fill(bytes);
            expect_plain("map_by_hand's memory", start, len, Kind::Private);
        }
    })
}

#[test]
fn failure_is_an_error() {
    case(|| {
        let most = isize::MAX as usize;
        for (len, name, errno) in [
            (0, "0", libc::EINVAL),
            (most, "isize::MAX", libc::ENOMEM),
            (most + 1, "isize::MAX + 1", libc::ENOMEM),
            (usize::MAX - 5000, "usize::MAX - 5000", libc::ENOMEM),
            (usize::MAX, "usize::MAX", libc::ENOMEM),
        ] {
            match map_by_hand(len) {
                Ok(start) => {
                    expect_no_map_failed(start, name);
                    judge::fail(format!(
                        "map_by_hand({name}) returned Ok; expected an error. Pass the length to mmap unchanged, and \
                         check mmap's result."
                    ));
                }
                Err(error) => {
                    expect_no_file_error(&error);
                    expect_own_errno(&format!("map_by_hand({name})"), &error);
                    let expected = io::Error::from_raw_os_error(errno);
                    check!(
                        error.raw_os_error() == Some(errno),
                        "map_by_hand({name}) returned the error \"{error}\"; expected mmap's: \"{expected}\". Pass \
                         the length to mmap unchanged, and return io::Error::last_os_error(), before any other call \
                         changes errno."
                    );
                }
            }
        }
    })
}

#[test]
fn unmapped() {
    case(|| {
        for (len, name) in lengths() {
            let spacer = Spacer::above(len);
            let start = map(len);
            drop(spacer);
            let neighbours = Neighbours::of(start, len);
            unmap(start, len);
            let left = mapped_pages(start, len);
            check!(
                left == 0,
                "unmap_by_hand of a mapping of {name} returned Ok, but {} still mapped. Pass start and len to munmap \
                 unchanged.",
                pages_of("its", left, len.div_ceil(page_size()))
            );
            neighbours.expect_untouched("unmap_by_hand of a mapping");
        }
        // SAFETY: nothing is mapped in the first page of the address space.
        if let Err(error) = unsafe { unmap_by_hand(std::ptr::null_mut(), page_size()) } {
            judge::fail(format!(
                "unmap_by_hand of the page at address 0, where nothing is mapped, returned the error \"{error}\"; \
                 expected Ok, as from munmap. Pass start and len to munmap unchanged."
            ));
        }
    })
}

#[test]
fn unmaps_a_part() {
    case(|| {
        let page = page_size();
        let start = map(4 * page);
        for index in 0..4 {
            let page_start = start.wrapping_add(index * page);
            // SAFETY: `map_by_hand` returned this memory, and nothing else refers to it.
            fill(unsafe { std::slice::from_raw_parts_mut(page_start, page) });
        }
        unmap(start.wrapping_add(page), 2 * page);
        let mapped = [0, 1, 2, 3].map(|index| mapped_pages(start.wrapping_add(index * page), 1));
        check!(
            mapped == [1, 0, 0, 1],
            "unmap_by_hand was called for the 2 middle pages of a mapping of 4 pages. Now the pages are {mapped:?} (1: \
             mapped, 0: not); expected [1, 0, 0, 1]. Pass start and len to munmap unchanged."
        );
        let kept = [0, 3].map(|index| {
            let page_start = start.wrapping_add(index * page);
            // SAFETY: the page is mapped, as just checked, and nothing else refers to it.
            unsafe { std::slice::from_raw_parts(page_start, page) }
        });
        check!(
            kept.iter().all(|page| first_change(page).is_none()),
            "unmap_by_hand changed the contents of a page outside the range that it was asked to unmap. Pass start \
             and len to munmap unchanged."
        );
    })
}

#[test]
fn unmapping_is_unsafe() {
    case(|| {
        // Ends the case here if the answer maps nothing yet.
        let start = map(LEN);
        unmap(start, LEN);
        let safe = judge::is_safe_fn!(unmap_by_hand, fn(*mut u8, usize) -> io::Result<()>);
        check!(
            !safe,
            "unmap_by_hand can be called without `unsafe`, so safe code could unmap memory that is in use. Keep it an \
             `unsafe fn`, as in the stub."
        );
    })
}

#[test]
fn failed_unmap_is_an_error() {
    case(|| {
        let start = map(LEN);
        let inside = start.wrapping_add(1);
        for (start, len, call) in [
            (
                inside,
                LEN,
                "unmap_by_hand with a start that is not page-aligned",
            ),
            (start, 0, "unmap_by_hand with a length of 0"),
            (
                start,
                usize::MAX,
                "unmap_by_hand with a length of usize::MAX",
            ),
        ] {
            // SAFETY: munmap fails with EINVAL in all three cases and unmaps nothing.
            match unsafe { unmap_by_hand(start, len) } {
                Ok(()) => judge::fail(format!(
                    "{call} returned Ok; expected munmap's error, EINVAL. Pass start and len to munmap unchanged, and \
                     check its result."
                )),
                Err(error) => {
                    expect_own_errno(call, &error);
                    check!(
                        error.raw_os_error() == Some(libc::EINVAL),
                        "{call} returned the error \"{error}\"; expected munmap's error, EINVAL. Return \
                         io::Error::last_os_error()."
                    );
                }
            }
        }
    })
}

#[test]
fn calls_that_fail() {
    refusals(
        &[("mmap", Errno::ENOMEM), ("munmap", Errno::ENOMEM)],
        |refused| {
            let mapped = watch(|| refuse(|| map_by_hand(LEN)));
            let start = match (mapped, refused) {
                (Ok(start), _) => start,
                (Err(error), Some(refusal)) => return expect_errno("map_by_hand", &error, refusal),
                (Err(error), None) => {
                    judge::fail(format!("map_by_hand returned an error: {error}."))
                }
            };
            check!(
                mapped_pages(start, LEN) > 0,
                "map_by_hand returned Ok, but nothing is mapped at the address. Compare mmap's result with MAP_FAILED."
            );
            // SAFETY: no reference into the mapping exists.
            let unmapped = watch(|| refuse(|| unsafe { unmap_by_hand(start, LEN) }));
            let left = mapped_pages(start, LEN);
            match (unmapped, refused) {
                (Err(error), Some(refusal)) => expect_errno("unmap_by_hand", &error, refusal),
                (Err(error), None) => {
                    judge::fail(format!("unmap_by_hand returned an error: {error}."))
                }
                (Ok(()), _) => check!(
                    left == 0,
                    "unmap_by_hand returned Ok, but the memory is still mapped. Check munmap's result."
                ),
            }
        },
        |seen| seen.expect_nothing_left(),
    )
}

/// Fails the case unless the error is that of the call that was made to fail.
fn expect_errno(call: &str, error: &io::Error, refusal: Refusal) {
    expect_own_errno(call, error);
    check!(
        error.raw_os_error() == Some(refusal.errno as i32),
        "{call} returned the error \"{error}\"; expected {}. Return io::Error::last_os_error(), before any other call \
         changes errno.",
        refusal.errno
    );
}
