//! Stage 4: an owner that dies while it holds the lock.

use super::*;

/// A process that writes `number` under the lock, and is killed there.
fn die_inside(counter: &Counter, number: u64) {
    let inside = Message::new();
    let pid = child(|| {
        let _ = counter.with_lock(|shared, _| {
            *shared = number;
            inside.send();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    });
    let came = inside.comes_within(SOON);
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
    check!(
        came,
        "A process never got the lock: after an owner's death it must be usable again and again \
         (pthread_mutex_consistent)."
    );
}

const NEVER: &str =
    "A process died with the lock, and the next one waits for it forever: ask for a robust mutex.";

fn expect_told(told: Told, expected: Entry, when: &str) {
    check!(
        told == Ok(expected),
        "{when}, with_lock must say {expected:?}, and it {}.",
        in_words(&told)
    );
}

#[test]
fn the_next_is_told_once() {
    case(|| {
        let counter = new();
        die_inside(&counter, 7);
        let told = lock_in_a_child(&counter, NEVER);
        expect_told(told, Entry::OwnerDied, "Right after its owner's death");
        let told = lock_in_a_child(&counter, NEVER);
        expect_told(told, Entry::Clean, "Once somebody has been told");
        check!(
            got(&counter) == 9,
            "The number must stay as the dead owner left it, and two more were added to 7."
        );
    })
}

#[test]
fn again_and_again() {
    case(|| {
        let counter = new();
        for _ in 0..3 {
            die_inside(&counter, 7);
            let told = lock_in_a_child(&counter, NEVER);
            expect_told(told, Entry::OwnerDied, "After each owner's death");
        }
    })
}

#[test]
fn get_leaves_the_news() {
    case(|| {
        let counter = new();
        die_inside(&counter, 7);
        check!(
            got(&counter) == 7,
            "After its owner's death get() must read what is there."
        );
        let told = lock_in_a_child(&counter, NEVER);
        expect_told(told, Entry::OwnerDied, "After get() has read");
    })
}

#[test]
fn the_parent_is_told_too() {
    case(|| {
        let counter = new();
        die_inside(&counter, 7);
        let entry = locked(&counter, |_, entry| entry);
        check!(
            entry == Entry::OwnerDied,
            "A child died with the lock, and its parent's with_lock does not say so."
        );
    })
}
