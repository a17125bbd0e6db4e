//! Stage 4: owner death.

use super::*;

/// Makes a child store `number` under the lock, and kills it there.
fn die_with_the_lock(counter: &Counter, number: u64) {
    let inside = Event::new();
    let pid = fork_child(|| {
        let _ = counter.with_lock(|shared, _| {
            *shared = number;
            inside.send();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    });
    let locked = inside.arrives_within(SOON);
    reap(pid, false);
    check!(
        locked,
        "A process never got the lock: after an owner's death it must be usable again and again \
         (pthread_mutex_consistent)."
    );
}

const NOT_ROBUST: &str =
    "A process died with the lock, and the next one waits for it forever: ask for a robust mutex.";

fn expect_entry(result: LockResult, expected: Entry, when: &str) {
    check!(
        result == Ok(expected),
        "{when}, with_lock must say {expected:?}, and it {}.",
        describe(&result)
    );
}

#[test]
fn the_next_is_told_once() {
    case(|| {
        let counter = new_counter();
        die_with_the_lock(&counter, 7);
        let result = lock_in_a_child(&counter, NOT_ROBUST);
        expect_entry(result, Entry::OwnerDied, "Right after its owner's death");
        let result = lock_in_a_child(&counter, NOT_ROBUST);
        expect_entry(result, Entry::Clean, "Once somebody has been told");
        check!(
            get(&counter) == 9,
            "The number must stay as the dead owner left it, and two more were added to 7."
        );
    })
}

#[test]
fn again_and_again() {
    case(|| {
        let counter = new_counter();
        for _ in 0..3 {
            die_with_the_lock(&counter, 7);
            let result = lock_in_a_child(&counter, NOT_ROBUST);
            expect_entry(result, Entry::OwnerDied, "After each owner's death");
        }
    })
}

#[test]
fn get_leaves_the_news() {
    case(|| {
        let counter = new_counter();
        die_with_the_lock(&counter, 7);
        check!(
            get(&counter) == 7,
            "After its owner's death get() must read what is there."
        );
        let result = lock_in_a_child(&counter, NOT_ROBUST);
        expect_entry(result, Entry::OwnerDied, "After get() has read");
    })
}

#[test]
fn the_parent_is_told_too() {
    case(|| {
        let counter = new_counter();
        die_with_the_lock(&counter, 7);
        let entry = with_lock(&counter, |_, entry| entry);
        check!(
            entry == Entry::OwnerDied,
            "A child died with the lock, and its parent's with_lock does not say so."
        );
    })
}
