//! Stage 1: process-shared setup.

use super::*;

#[test]
fn begins_at_zero_and_counts() {
    case(|| {
        let counter = new_counter();
        check!(get(&counter) == 0, "A new counter must be 0.");
        with_lock(&counter, |number, entry| {
            check!(
                entry == Entry::Clean,
                "Nobody has had the lock yet, and with_lock says that its owner died."
            );
            *number += 5;
        });
        check!(
            get(&counter) == 5,
            "with_lock added 5 to the number, and get() does not see it."
        );
    })
}

#[test]
fn gives_the_closures_result() {
    case(|| {
        let counter = new_counter();
        check!(
            with_lock(&counter, |_, _| "result") == "result",
            "with_lock must give the closure's result."
        );
    })
}

#[test]
fn a_child_counts_on_the_same_number() {
    case(|| {
        let counter = new_counter();
        in_child(|| {
            with_lock(&counter, |number, _| *number += 1);
            0
        });
        check!(
            get(&counter) == 1,
            "A child added 1, and its parent does not see it: the number must lie in shared memory."
        );
    })
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            watch(|| {
                let counter = new_counter();
                with_lock(&counter, |number, _| *number += 1);
            })
        },
        |seen| {
            let ledger = seen.ledger();
            check!(
                ledger.contains("still mapped: nothing"),
                "After the counter was dropped its memory is still mapped: Drop must unmap."
            );
            check!(
                ledger.contains("descriptors left: 0"),
                "After the counter was dropped a descriptor is still open."
            );
        },
    )
}

#[test]
fn dropped_in_a_child() {
    case(|| {
        let counter = new_counter();
        let shared = &counter;
        in_child(|| {
            // SAFETY: the child drops this copy, and exits without using or dropping the original.
            drop(unsafe { std::ptr::read(shared) });
            0
        });
        let result = lock_in_a_child(
            &counter,
            "After one process had dropped its counter another could not lock it: Drop must only unmap.",
        );
        check!(
            result == Ok(Entry::Clean),
            "After one process had dropped its counter, with_lock in another {}: Drop must only unmap.",
            describe(&result)
        );
    })
}
