//! Stage 4: owner death.

use nix::sys::prctl;
use nix::unistd::Pid;

use super::*;

/// Makes a process store `number` under the lock, and kills it there.
fn die_with_the_lock(counter: &Counter, number: u64) {
    Holder::enter(counter, |shared, pause| {
        *shared = number;
        pause();
    })
    .kill();
}

const NOT_ROBUST: &str =
    "The lock must be released when its owner dies (for a mutex, PTHREAD_MUTEX_ROBUST).";

/// Fails the case unless `with_lock` in another process passes `expected` and `number`, the counter's value.
fn expect_entry(when: &str, outcome: Outcome, expected: Entry, number: u64) {
    expect_entry_or(when, NOT_ROBUST, outcome, expected, number);
}

/// Like `expect_entry`, with the advice for a call that never returns.
fn expect_entry_or(when: &str, advice: &str, outcome: Outcome, expected: Entry, number: u64) {
    let call = format!("{when}, with_lock in another process");
    let never = format!("{call} never returned. {advice}");
    let advice = "Expected it to get the lock. For a mutex, EOWNERDEAD means that the caller has the lock: call \
                  pthread_mutex_consistent.";
    let passed = entered_or(outcome, &call, &never, advice);
    expect_same(when, passed, (expected, number));
}

/// Fails the case unless `with_lock` has passed the expected entry and number.
fn expect_same(when: &str, (entry, passed): (Entry, u64), (expected, number): (Entry, u64)) {
    check!(
        entry == expected,
        "{when}, with_lock passed Entry::{entry:?}; expected Entry::{expected:?}."
    );
    check!(
        passed == number,
        "{when}, with_lock passed the number {passed} to its closure; expected {number}, which the last closure \
         stored. Pass a reference to the number in shared memory, and leave the number as it is."
    );
}

#[test]
fn a_death_is_reported_once() {
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
            "{reported}, get() returned {number}; expected 9, the number that with_lock passed."
        );
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
                     after a failed recovery, no process can lock again."
                )),
                (Outcome::Error(_), Some(_)) => {}
                (Outcome::Died(how), Some(_)) if how == "was killed by SIGABRT" => {}
                (outcome, Some(_)) => fail(format!(
                    "with_lock {outcome}; expected an error, or abort()."
                )),
            }
        },
        |seen| {
            check!(
                seen.count_in_window("pthread_mutex_init") == 0,
                "with_lock called pthread_mutex_init after an owner's death. Other processes may already wait for the \
                 mutex or hold it. EOWNERDEAD means that the caller has the lock: call pthread_mutex_consistent instead."
            );
        },
    )
}

#[test]
fn repeated_deaths() {
    case(|| {
        let counter = new_counter();
        for (nth, number) in [("the first", 7), ("a second", 8), ("a third", 9)] {
            die_with_the_lock(&counter, number);
            let when = format!("After {nth} owner's death");
            expect_entry(&when, add_one_elsewhere(&counter), Entry::OwnerDied, number);
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
fn nobody_has_waited_for_the_owner() {
    case(|| {
        let counter = new_counter();
        let Holder { process, .. } = Holder::enter(&counter, |number, pause| {
            *number = 7;
            pause();
        });
        process.make_a_zombie();
        let when = "After an owner's death, before its parent has waited for it (waitpid)";
        let advice = "The lock must be released when its owner ends. Until its parent waits for it, the owner is a zombie, \
                      for which kill(pid, 0) returns 0.";
        let outcome = add_one_elsewhere(&counter);
        expect_entry_or(when, advice, outcome, Entry::OwnerDied, 7);
        processes::reap(process.pid);
    })
}

/// The thread that holds the lock when its process is killed need not be the main thread.
#[test]
fn the_owner_was_another_thread() {
    case(|| {
        // Ends the case here if the answer has no functions yet.
        with_lock(&new_counter(), |_, _| ());
        let [locked, inside, too_early, passed, ended] = [(); 5].map(|()| Event::new());
        // The waiter becomes an orphan. It must have ended when the case ends.
        let adopts = prctl::get_child_subreaper().expect("prctl");
        prctl::set_child_subreaper(true).expect("prctl");
        let process = Process::fork(|| {
            in_a_thread(|| {
                let counter = new_counter();
                // Calls in a child that is forked inside the closure may fail.
                let waiter = Process::fork(|| {
                    locked.wait();
                    let result = add_one(&counter);
                    if let Ok((Entry::OwnerDied, 7)) = result {
                        passed.send();
                    }
                    ended.send();
                    String::new()
                });
                let _ = counter.with_lock(|number, _| {
                    *number = 7;
                    locked.send();
                    if ended.arrives_unless_blocked(waiter.pid, TRIAL) {
                        too_early.send();
                    }
                    inside.send();
                    loop {
                        thread::sleep(Duration::from_secs(1));
                    }
                });
                waiter.kill();
                String::new()
            })
        });
        check!(
            inside.arrives(),
            "with_lock never ran its closure, but nobody held the lock."
        );
        let too_early = too_early.has_arrived();
        process.kill();
        let has_ended = too_early || ended.arrives();
        let any_child = Pid::from_raw(-1);
        if has_ended {
            processes::reap(any_child);
        }
        prctl::set_child_subreaper(adopts).expect("prctl");
        let owner = "A thread other than its process's main thread held the lock";
        check!(
            !too_early,
            "{owner}. with_lock in another process did not wait. Only ESRCH means that there is no such process: \
             pidfd_open fails with EINVAL for the ID of such a thread."
        );
        check!(
            has_ended && passed.has_arrived(),
            "{owner} when that process was killed. Then with_lock in a process that waited {}; expected Entry::OwnerDied and \
             the number 7, which the owner had stored.",
            match has_ended {
                true => "passed something else or returned an error",
                false => "never returned",
            }
        );
    })
}

#[test]
fn a_child_of_the_owner_lives_on() {
    case(|| {
        let counter = new_counter();
        let end = Event::new();
        // The child becomes an orphan. It must have ended when the case ends.
        let adopts = prctl::get_child_subreaper().expect("prctl");
        prctl::set_child_subreaper(true).expect("prctl");
        let holder = Holder::enter(&counter, |number, pause| {
            *number = 7;
            let _child = Process::fork(|| {
                end.wait();
                String::new()
            });
            pause();
        });
        holder.kill();
        let when = "After the death of an owner whose child, forked inside the closure, lives on";
        let advice = "The lock must be released when its owner ends. A lock that belongs to an open file description \
                      (flock, F_OFD_SETLK) is held until the last process has closed it, and a child inherits it.";
        let outcome = add_one_elsewhere(&counter);
        expect_entry_or(when, advice, outcome, Entry::OwnerDied, 7);
        let reported = "After this death had been reported";
        let outcome = add_one_elsewhere(&counter);
        expect_entry_or(reported, advice, outcome, Entry::Clean, 8);
        end.send();
        let any_child = Pid::from_raw(-1);
        processes::reap(any_child);
        prctl::set_child_subreaper(adopts).expect("prctl");
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
                "The closure that was passed Entry::OwnerDied panicked, and the process {how}. Expected the same \
                 panic in the caller of with_lock."
            )),
            End::Stuck => fail(format!(
                "After an owner's death, with_lock in another process never returned. {NOT_ROBUST}"
            )),
        }
        // Whether the report counts as made is up to the answer.
        let when = "After the closure that was passed Entry::OwnerDied had panicked";
        let never = format!(
            "{when}, with_lock in another process never returned. Expected the lock to be released."
        );
        let call = format!("{when}, with_lock in another process");
        let advice = "Expected it to run its closure. For a mutex, call pthread_mutex_consistent before each unlock that \
                      follows EOWNERDEAD, also if the closure panics.";
        entered_or(add_one_elsewhere(&counter), &call, &never, advice);
        expect_entry(
            "After an owner's death had been reported",
            add_one_elsewhere(&counter),
            Entry::Clean,
            8,
        );
    })
}

/// A destructor may call `with_lock` and `get` while its thread panics. Neither closure nor lock has to do with that panic.
#[test]
fn reported_during_a_panic() {
    case(|| {
        judge::expect_panics();
        let counter = new_counter();
        let when = "After an owner's death, in a destructor during a panic";
        for reads in [true, false] {
            die_with_the_lock(&counter, 7);
            if reads {
                let reader = Caller::read(|| during_a_panic(|| counter.get()));
                let outcome = reader.outcome();
                check!(
                    matches!(outcome, Outcome::Read(7)),
                    "{when}, get() {outcome}; expected 7, which the owner had stored."
                );
            }
            let adds = Caller::enter(|| during_a_panic(|| add_one(&counter)));
            let when = match reads {
                true => format!("{when}, and after get() in such a destructor"),
                false => when.to_owned(),
            };
            expect_entry(&when, adds.outcome(), Entry::OwnerDied, 7);
            let outcome = add_one_elsewhere(&counter);
            let reported = "After an owner's death had been reported to a with_lock that a destructor called during a panic";
            let advice = format!(
                "{NOT_ROBUST} What the lock does must not depend on std::thread::panicking."
            );
            let call = format!("{reported}, with_lock in another process");
            let never = format!("{call} never returned. {advice}");
            let (entry, number) = entered(outcome, &call, &never);
            check!(
                entry == Entry::Clean,
                "{call} passed Entry::OwnerDied; expected Entry::Clean, because that closure had returned. \
                 std::thread::panicking also returns true if the panic began outside of the closure: clear the record \
                 of the death before the closure runs, or compare with the value at the start of with_lock."
            );
            expect_same(reported, (entry, number), (Entry::Clean, 8));
        }
    })
}

#[test]
fn get_keeps_the_report() {
    case(|| {
        let counter = new_counter();
        let get_elsewhere = || match Caller::read(|| counter.get()).outcome() {
            Outcome::Read(number) => number,
            Outcome::Stuck => fail(format!(
                "After an owner's death, get() never returned. {NOT_ROBUST}"
            )),
            other => fail(format!(
                "After an owner's death, get() {other}. Expected the counter's value: recover the lock in get(), too."
            )),
        };
        die_with_the_lock(&counter, 7);
        let read = [get_elsewhere(), get_elsewhere()];
        let here = with_lock(&counter, |number, entry| (entry, *number));
        let when = "After an owner's death and get() in other processes";
        let advice = "Record the death in shared memory, and clear the record only in with_lock.";
        check!(
            here.0 == Entry::OwnerDied,
            "{when}, with_lock passed Entry::Clean; expected Entry::OwnerDied. {advice}"
        );
        expect_same(when, here, (Entry::OwnerDied, 7));
        check!(
            read == [7; 2],
            "A process stored 7 under the lock and was killed there. with_lock passed 7 to its closure, but get() \
             returned {} and {}.",
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
            "An owner's death was reported in one process, and again in another one, which had called get() before; \
             expected one report. {advice}"
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
                    "{when} with_lock in a waiter never returned. The lock must be released when its owner dies, and \
                     a waiter must be woken."
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
            "{when} each of them added 1 to the number 7, and with_lock passed {one} and {other} to their closures; \
             expected 7 and 8."
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

/// A waiter that has been woken may be killed before it has the lock. Its wake-up must not be lost with it.
#[test]
fn a_woken_waiter_dies() {
    case(|| {
        let counter = new_counter();
        let begun = Event::new();
        let steps = Steps::of(&(), || {
            report(counter.with_lock(|number, entry| {
                begun.send();
                *number = number.wrapping_add(1);
                (entry, *number)
            }))
        });
        let hold = || Holder::enter(&counter, |_, pause| pause());
        // The first call of a function in libc executes the dynamic linker.
        let _ = add_one(&counter);
        let holder = hold();
        let first = Process::fork(|| steps.find());
        processes::until_it_waits(first.pid);
        holder.leave();
        find_places(first);
        begun.take();
        for place in 0..judge::places() {
            // A process that is killed below may hold the lock.
            let outcome = add_one_elsewhere(&counter);
            entered(outcome, "with_lock in another process", NOT_RELEASED);
            let holder = hold();
            let first = Process::fork(|| steps.stop_at(place));
            processes::until_it_waits(first.pid);
            let second = Waiter::adds(&counter);
            check!(!second.passes_within(SHORT_TRIAL), "{NOT_EXCLUDED}");
            holder.leave();
            let stopped = judge::until_stopped();
            let has_begun = begun.take();
            first.kill();
            let outcome = second.outcome();
            begun.take();
            if stopped && !has_begun {
                let when = "Two processes waited for the lock. Its owner released it, and the first waiter was killed before \
                            its closure ran. Then with_lock in the second waiter";
                let never = format!(
                    "{when} never returned. If one waiter is woken at a release, and dies before it has the lock, another \
                     one must be woken: wake all waiters, or have the kernel do it (for a robust futex, set \
                     list_op_pending before the wait)."
                );
                entered(outcome, when, &never);
            }
        }
    })
}

#[test]
fn waiting_for_a_dead_owner_leaves_nothing() {
    case(|| {
        for call in ["with_lock", "get()"] {
            let counter = new_counter();
            waits_repeatedly(&counter, call, Holder::kill);
        }
    })
}

const NOT_RELEASED_ANYWHERE: &str = "The lock must be released wherever its owner dies, also right after it has taken \
                                     the lock and right before it has released it. Take the lock and record the \
                                     owner in one step.";

/// What happened before a process is killed.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// An owner died, and nothing has used the counter since.
    Death,
    /// An owner died, and `get` was called since.
    DeathAndGet,
}

/// Kills a process at each place of `call`, which runs a closure under the lock that sends `begun` and `ended`, or none.
///
/// The lock is held at a place if another process has to wait there. What must happen then does not depend on how the
/// lock is made.
fn killed_anywhere(name: &str, happened: Before, call: impl Fn(&Counter, &dyn Fn(), &dyn Fn())) {
    let owner_died = happened != Before::Nothing;
    let counter = new_counter();
    let [begun, ended] = [(); 2].map(|()| Event::new());
    let steps = Steps::of(&(), || {
        call(&counter, &|| begun.send(), &|| ended.send());
        String::new()
    });
    let prepare = || {
        if owner_died {
            die_with_the_lock(&counter, 7);
        }
        if happened == Before::DeathAndGet {
            get(&counter);
        }
    };
    // The first call of a function in libc executes the dynamic linker.
    call(&counter, &|| begun.send(), &|| ended.send());
    let _ = [begun.take(), ended.take()];
    prepare();
    find_places(Process::fork(|| steps.find()));
    let _ = [begun.take(), ended.take()];
    let mut stops = 0;
    for place in 0..judge::places() {
        entered(
            add_one_elsewhere(&counter),
            "with_lock in another process",
            &format!("with_lock in another process never returned. {NOT_RELEASED_ANYWHERE}"),
        );
        prepare();
        let stopped = Process::fork(|| steps.stop_at(place));
        let before = match happened {
            Before::Nothing => "",
            Before::Death => "An owner died. ",
            Before::DeathAndGet => "An owner died, and get() was called. ",
        };
        if !judge::until_stopped() {
            if let End::Stuck = stopped.end() {
                let then = if owner_died { "Then " } else { "" };
                fail(format!(
                    "{before}{then}{name} in another process never returned. {NOT_RELEASED_ANYWHERE}"
                ));
            }
            let _ = [begun.take(), ended.take()];
            continue;
        }
        stops += 1;
        let (begun, ended) = (begun.take(), ended.take());
        let unreported = owner_died && !begun;
        let at = match (begun, ended) {
            (false, _) if name == "get()" => format!("in {name}"),
            (false, _) => format!("in {name}, before its closure ran"),
            (true, false) => "in its closure".to_owned(),
            (true, true) => format!("in {name}, after its closure had returned"),
        };
        let other = Waiter::adds(&counter);
        let passes = other.passes_within(SHORT_TRIAL);
        check!(!(passes && begun && !ended), "{NOT_EXCLUDED}");
        let call = match passes {
            true => format!("{before}While a process was {at}, with_lock in another process"),
            false => {
                format!("{before}A process was killed {at}. Then with_lock in another process")
            }
        };
        let outcome = if passes {
            let outcome = other.outcome();
            stopped.kill();
            outcome
        } else {
            stopped.kill();
            other.outcome()
        };
        let never = format!("{call} never returned. {NOT_RELEASED_ANYWHERE}");
        let advice = "Expected it to get the lock.";
        let (entry, _) = entered_or(outcome, &call, &never, advice);
        let expected = match passes {
            true if unreported => Some((
                Entry::OwnerDied,
                match name {
                    "get()" => {
                        "the death was not reported yet. Record it in shared memory before you release the lock."
                    }
                    _ if happened == Before::DeathAndGet => {
                        "the death was not reported yet. Take its record out of shared memory only when you have the lock."
                    }
                    _ => {
                        "the death was not reported yet. Keep the lock from the recovery until the closure has run."
                    }
                },
            )),
            // A record of the owner fails without an earlier death, too.
            true if begun && owner_died => Some((
                Entry::Clean,
                "the death was reported already. Clear its record before you release the lock.",
            )),
            true if begun => Some((
                Entry::Clean,
                "no process died with the lock. Remove the record of the owner before you release the lock.",
            )),
            true => Some((
                Entry::Clean,
                "no process died with the lock. Record the owner only when you have the lock.",
            )),
            false if unreported => Some((
                Entry::OwnerDied,
                "the death was not reported yet. Keep its record in shared memory until a closure runs.",
            )),
            false if begun && !ended => Some((
                Entry::OwnerDied,
                "its closure may have changed the number. Record the owner in shared memory before the closure runs.",
            )),
            // It held the lock, but its closure did not run.
            false => None,
        };
        if let Some((expected, because)) = expected {
            check!(
                entry == expected,
                "{call} passed Entry::{entry:?}; expected Entry::{expected:?}, because {because}"
            );
        }
        let outcome = add_one_elsewhere(&counter);
        let (call, advice) = match passes {
            true => (
                format!(
                    "{before}A process was killed {at}, where it did not hold the lock. Then with_lock in another process"
                ),
                match (begun, happened) {
                    // A record of the owner fails without an earlier death or `get`, too.
                    (true, Before::Nothing) => {
                        "Remove the record of the owner before you release the lock."
                    }
                    (true, _) => "Clear the record of the death before you release the lock.",
                    (false, Before::DeathAndGet) => {
                        "A death that get() found must be recorded in shared memory, and the record cleared when a \
                         closure is passed Entry::OwnerDied."
                    }
                    (false, _) => "Record the owner only when you have the lock.",
                },
            ),
            false => (
                format!("{before}A process was killed {at}. Then the second with_lock"),
                "Each death is reported once.",
            ),
        };
        let never = format!("{call} never returned. {NOT_RELEASED_ANYWHERE}");
        let (entry, _) = entered_or(outcome, &call, &never, "Expected it to get the lock.");
        check!(
            entry == Entry::Clean,
            "{call} passed Entry::OwnerDied; expected Entry::Clean. {advice}"
        );
    }
    expect_stops(stops);
}

#[test]
fn killed_anywhere_in_with_lock() {
    case(|| {
        for happened in [Before::Nothing, Before::Death, Before::DeathAndGet] {
            killed_anywhere("with_lock", happened, |counter, begun, ended| {
                let _ = counter.with_lock(|number, _| {
                    begun();
                    *number = number.wrapping_add(1);
                    ended();
                });
            });
        }
    })
}

#[test]
fn killed_anywhere_in_get() {
    case(|| {
        killed_anywhere("get()", Before::Death, |counter, _, _| {
            let _ = counter.get();
        });
    })
}

#[test]
fn only_one_takes_over() {
    case(|| {
        let counter = new_counter();
        beside_each_place(
            &counter,
            || die_with_the_lock(&counter, 7),
            |both, has_run| {
                let died = both.iter().filter(|entry| **entry == Entry::OwnerDied);
                let reports = died.count();
                let (stopped, advice) = match (has_run, reports) {
                    (true, _) => (
                        ", after its closure had run,",
                        "Clear the record of the death before you release the lock.",
                    ),
                    (false, 0) => (
                        "",
                        "Keep the record of the death in shared memory until a closure runs.",
                    ),
                    (false, _) => ("", "Test and take over the lock in one atomic step."),
                };
                (reports != 1).then(|| format!(
                    "An owner died. The grader stopped a process in with_lock{stopped} while another one called \
                     with_lock. Then with_lock passed Entry::OwnerDied {reports} times; expected once. {advice}"
                ))
            },
        );
    })
}

const LIST_REPLACED: &str = "Without the third counter, the lock was released. Counter::new() must not replace the \
                             thread's list of robust locks (set_robust_list).";

#[test]
fn two_locks_of_a_dead_owner() {
    case(|| {
        for (third, made, advice) in [
            (false, "", NOT_ROBUST),
            (true, ", after it had made a third one", LIST_REPLACED),
        ] {
            let counters = [(); 2].map(|()| new_counter());
            let [outer, inner] = &counters;
            let second = "with_lock of another counter, which it called there,";
            let holder = Holder::enter_and_call(outer, second, |number, pause| {
                *number = 7;
                let _third = third.then(Counter::new);
                let _ = inner.with_lock(|number, _| {
                    *number = 7;
                    pause();
                });
            });
            holder.kill();
            for (counter, name) in counters.iter().zip(["outer", "inner"]) {
                let when = format!(
                    "A process was killed inside with_lock of two counters{made}. For the {name} counter"
                );
                let outcome = add_one_elsewhere(counter);
                expect_entry_or(&when, advice, outcome, Entry::OwnerDied, 7);
                let when = format!(
                    "After the death of an owner of two counters had been reported for the {name} one"
                );
                let outcome = add_one_elsewhere(counter);
                expect_entry_or(&when, advice, outcome, Entry::Clean, 8);
            }
        }
    })
}
