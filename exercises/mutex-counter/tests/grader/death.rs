//! Stage 4: owner death.

use super::*;

/// Makes a process store `number` under the lock, and kills it there.
fn die_with_the_lock(counter: &Counter, number: u64) {
    Holder::enter(counter, |shared, pause| {
        *shared = number;
        pause();
    })
    .kill();
}

const NOT_ROBUST: &str = "A process was killed inside with_lock, and the next call never returned. The lock must be \
                          released when its owner dies (for a mutex, PTHREAD_MUTEX_ROBUST).";

/// Fails the case unless `with_lock` in another process passes `expected` and `number`, the counter's value.
fn expect_entry(when: &str, outcome: Outcome, expected: Entry, number: u64) {
    let (entry, passed) = match outcome {
        Outcome::Error(error) => fail(format!(
            "{when}, with_lock in another process returned an error: {error}. Expected it to lock (for a mutex, after \
             pthread_mutex_consistent)."
        )),
        other => entered(
            other,
            &format!("{when}, with_lock in another process"),
            NOT_ROBUST,
        ),
    };
    expect_same(when, (entry, passed), (expected, number));
}

/// Fails the case unless `with_lock` has passed the expected entry and number.
fn expect_same(when: &str, (entry, passed): (Entry, u64), (expected, number): (Entry, u64)) {
    check!(
        entry == expected,
        "{when}, with_lock passed Entry::{entry:?}; expected Entry::{expected:?}."
    );
    check!(
        passed == number,
        "{when}, with_lock passed {passed}; expected {number}. The closure must get a reference to the number in shared \
         memory, and an owner's death must not change the number."
    );
}

#[test]
fn the_next_is_told_once() {
    case(|| {
        let counter = new_counter();
        die_with_the_lock(&counter, 7);
        let outcome = add_one_elsewhere(&counter);
        expect_entry("Right after an owner's death", outcome, Entry::OwnerDied, 7);
        let reported = "After an owner's death had been reported";
        let outcome = add_one_elsewhere(&counter);
        expect_entry(reported, outcome, Entry::Clean, 8);
        let here = with_lock(&counter, |number, entry| (entry, *number));
        expect_same(
            "After an owner's death had been reported in another process",
            here,
            (Entry::Clean, 9),
        );
        let number = get(&counter);
        check!(
            number == 9,
            "{reported}, get() returned {number}; with_lock passed 9."
        );
    })
}

#[test]
fn again_and_again() {
    case(|| {
        let counter = new_counter();
        for number in [7, 8, 9] {
            die_with_the_lock(&counter, number);
            let outcome = add_one_elsewhere(&counter);
            expect_entry(
                "After each owner's death",
                outcome,
                Entry::OwnerDied,
                number,
            );
        }
        // The second owner dies while it handles the death of the first one.
        die_with_the_lock(&counter, 11);
        die_with_the_lock(&counter, 12);
        let when = "After a process had died while it handled an owner's death";
        expect_entry(when, add_one_elsewhere(&counter), Entry::OwnerDied, 12);
        let when = "After the deaths of two owners had been reported";
        expect_entry(when, add_one_elsewhere(&counter), Entry::Clean, 13);
    })
}

#[test]
fn a_panic_while_handling_a_death() {
    case(|| {
        judge::expect_panics();
        let counter = new_counter();
        die_with_the_lock(&counter, 7);
        let panicking = Process::fork(|| {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                counter.with_lock(|_, _| panic::resume_unwind(Box::new(())))
            }));
            String::new()
        });
        match panicking.end() {
            End::Reported(_) => {}
            End::Died(how) => fail(format!(
                "The closure that was passed Entry::OwnerDied panicked, and with_lock {how}."
            )),
            End::Stuck => fail(NOT_ROBUST.to_owned()),
        }
        // Whether the report counts as made is up to the answer.
        let when = "After the closure that was passed Entry::OwnerDied had panicked";
        let never = format!(
            "{when}, with_lock in another process never returned. Expected the lock to be released."
        );
        let call = format!("{when}, with_lock in another process");
        entered(add_one_elsewhere(&counter), &call, &never);
        expect_entry(
            "After an owner's death had been reported",
            add_one_elsewhere(&counter),
            Entry::Clean,
            8,
        );
    })
}

#[test]
fn get_leaves_the_news() {
    case(|| {
        let counter = new_counter();
        let get_elsewhere = || match Caller::read(|| counter.get()).outcome() {
            Outcome::Read(number) => number,
            Outcome::Stuck => fail(NOT_ROBUST.to_owned()),
            other => fail(format!(
                "After an owner's death, get() {other}. Expected the counter's value."
            )),
        };
        die_with_the_lock(&counter, 7);
        let read = [get_elsewhere(), get_elsewhere()];
        let here = with_lock(&counter, |number, entry| (entry, *number));
        let when = "After an owner's death and get() in other processes";
        let advice = "Keep the report in shared memory until a with_lock takes it.";
        check!(
            here.0 == Entry::OwnerDied,
            "{when}, with_lock passed Entry::Clean; expected Entry::OwnerDied. {advice}"
        );
        expect_same(when, here, (Entry::OwnerDied, 7));
        check!(
            read == [7; 2],
            "A process stored 7 under the lock and was killed there. with_lock passed 7, but get() returned {} and {}.",
            read[0],
            read[1]
        );
        expect_entry(
            "After an owner's death had been reported",
            add_one_elsewhere(&counter),
            Entry::Clean,
            7,
        );

        die_with_the_lock(&counter, 7);
        get(&counter);
        expect_entry(
            "After an owner's death and get() in one process",
            add_one_elsewhere(&counter),
            Entry::OwnerDied,
            7,
        );
        let here = with_lock(&counter, |_, entry| entry);
        check!(
            here == Entry::Clean,
            "An owner's death was reported in one process, and again in another one, which had called get() before. \
             Expected one report. {advice}"
        );
    })
}

#[test]
fn waiters_take_over() {
    case(|| {
        let counter = new_counter();
        let holder = Holder::enter(&counter, |number, pause| {
            *number = 7;
            pause();
        });
        let waiters = [(); 2].map(|()| {
            let waiter = Waiter::adds(&counter);
            check!(!waiter.passes(), "{NOT_EXCLUDED}");
            waiter
        });
        holder.kill();
        let when = "While two processes waited for the lock, its owner was killed. Then";
        let mut passed = waiters.map(|waiter| {
            entered(
                waiter.outcome(),
                &format!("{when} with_lock in a waiter"),
                &format!(
                    "{when} a waiter was not woken. The lock must be released when its owner dies."
                ),
            )
        });
        passed.sort_by_key(|(_, number)| *number);
        let [(first, one), (second, other)] = passed;
        check!(
            (first, second) == (Entry::OwnerDied, Entry::Clean),
            "{when} with_lock passed Entry::{first:?} to the first waiter and Entry::{second:?} to the second one; \
             expected Entry::OwnerDied and Entry::Clean."
        );
        check!(
            (one, other) == (7, 8),
            "{when} each of them added 1 to 7, and with_lock passed {one} and {other}; expected 7 and 8."
        );
    })
}

#[test]
fn a_waiter_dies() {
    case(|| {
        let counter = new_counter();
        let holder = Holder::enter(&counter, |_, pause| pause());
        let waiter = Waiter::adds(&counter);
        check!(!waiter.passes(), "{NOT_EXCLUDED}");
        waiter.caller.0.kill();
        holder.leave();
        let when = "A process that waited for the lock was killed, and the owner released it. Then";
        let (entry, number) = entered(
            add_one_elsewhere(&counter),
            &format!("{when} with_lock in another process"),
            &format!(
                "{when} with_lock in another process never returned. A dead waiter must not block the others."
            ),
        );
        check!(
            (entry, number) == (Entry::Clean, 0),
            "{when} with_lock passed Entry::{entry:?} and {number}; expected Entry::Clean and 0, because no process died \
             inside."
        );
    })
}

#[test]
fn two_locks_of_a_dead_owner() {
    case(|| {
        let counters = [(); 2].map(|()| new_counter());
        let [outer, inner] = &counters;
        let holder = Holder::enter(outer, |number, pause| {
            *number = 7;
            // A new counter must not replace what the kernel knows of locks that are held.
            let _third = Counter::new();
            let _ = inner.with_lock(|number, _| {
                *number = 7;
                pause();
            });
        });
        holder.kill();
        for counter in &counters {
            let when = "After the death of a process that held the locks of two counters";
            expect_entry(when, add_one_elsewhere(counter), Entry::OwnerDied, 7);
            let when = "After the report of that death";
            expect_entry(when, add_one_elsewhere(counter), Entry::Clean, 8);
        }
    })
}

#[test]
fn a_failed_recovery() {
    refusals(
        &[("pthread_mutex_consistent", Errno::EINVAL)],
        |refused| {
            let counter = new_counter();
            die_with_the_lock(&counter, 7);
            let outcome = Caller::enter(|| refuse(|| add_one(&counter))).outcome();
            match (outcome, refused) {
                (outcome, None) => {
                    expect_entry("Right after an owner's death", outcome, Entry::OwnerDied, 7)
                }
                (Outcome::Entered(entry, _), Some(_)) => fail(format!(
                    "with_lock passed Entry::{entry:?} to its closure and returned Ok; expected an error, or abort(): \
                     nobody can lock after it."
                )),
                (Outcome::Error(_), Some(_)) => {}
                (Outcome::Died(how), Some(_)) if how == "was killed by SIGABRT" => {}
                (outcome, Some(_)) => fail(format!(
                    "with_lock {outcome}; expected an error, or abort()."
                )),
            }
        },
        |_| (),
    )
}
