//! Stage 1: memory that a child writes and its parent reads.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use judge::probe::permissions;
use judge::{Errno, case, check, in_child};
use warm_up::shared_number;

/// Returns a new number, or fails the case.
fn number() -> &'static AtomicU64 {
    match shared_number() {
        Ok(number) => number,
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => judge::fail(
            "mmap failed with EINVAL; expected a mapping. Pass either MAP_PRIVATE or MAP_SHARED, and not both."
                .to_owned(),
        ),
        Err(error) => judge::fail(format!(
            "shared_number returned the error \"{error}\"; expected a number."
        )),
    }
}

#[test]
fn seen_by_the_parent() {
    case(|| {
        let [one, other] = [number(), number()];
        let new = one.load(Relaxed);
        check!(
            new == 0,
            "A new number is {new}; expected 0. Map new memory, which the kernel zeroes."
        );
        in_child(|| {
            one.store(42, Relaxed);
            0
        });
        let read = one.load(Relaxed);
        check!(
            read == 42,
            "A forked child stored 42 in the number, and its parent reads {read}; expected 42. Map the memory with \
             MAP_SHARED, so that the child writes to its parent's page and not to a private copy."
        );
        let read = other.load(Relaxed);
        check!(
            read == 0,
            "A child stored 42 in one number, and another number is {read}; expected 0. Map memory at each call."
        );
        check!(
            permissions(ptr::from_ref(one).cast()).read,
            "The memory is mapped without read permission. Pass PROT_READ | PROT_WRITE."
        );
    })
}
