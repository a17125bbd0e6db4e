//! Stage 3: panics and relocking.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::*;

/// The payload of a panic.
#[derive(PartialEq)]
struct Payload(u32);

#[test]
fn a_panic_continues_and_the_lock_is_released() {
    case(|| {
        judge::expect_panics();
        let counter = new_counter();
        let [inside, leave, finish] = [(); 3].map(|()| Event::new());
        let panicking = Process::fork(|| {
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                counter.with_lock(|number, _| {
                    *number = 7;
                    inside.send();
                    leave.wait();
                    panic::resume_unwind(Box::new(Payload(7)))
                })
            }));
            // If it ended while it held the lock, it would be a dead owner.
            finish.wait();
            let how = match result {
                Ok(Ok(())) => "returned Ok".to_owned(),
                Ok(Err(error)) => format!("returned an error: {error}"),
                Err(payload) if payload.downcast_ref() != Some(&Payload(7)) => {
                    "panicked with another payload".to_owned()
                }
                Err(_) => {
                    let again = add_one(&counter).err();
                    let sentence = |error| {
                        format!(
                            "After a panic in the closure, with_lock in the same thread returned an error: {error}. \
                             Release the lock, and clear all that your code records about it, in a Drop."
                        )
                    };
                    return again.map_or_else(String::new, sentence);
                }
            };
            format!(
                "{PANICKED} {how}. Expected the same panic in the caller: release the lock in a Drop, and let the \
                     panic unwind."
            )
        });
        if !inside.arrives() {
            panicking.kill();
            fail("with_lock never ran its closure, but nobody held the lock.".to_owned());
        }
        let waiter = Waiter::adds(&counter);
        check!(!waiter.passes(), "{NOT_EXCLUDED}");
        leave.send();
        let waited = waiter.outcome();
        let never = match waited {
            Outcome::Stuck => never_woken(
                &counter,
                "with_lock",
                "After a panic in the closure, with_lock in another process never returned. Release the lock in a \
                 Drop, which also runs if the closure panics.",
            ),
            _ => String::new(),
        };
        finish.send();
        let sentence = match panicking.end() {
            End::Reported(sentence) => sentence,
            End::Died(how) => format!(
                "{PANICKED} did not return: its process {how}. Expected the same panic in the caller: release the \
                 lock in a Drop, and let the panic unwind."
            ),
            End::Stuck => {
                "After a panic in the closure, with_lock in the same thread never returned. Release the lock in a \
                 Drop, which also runs if the closure panics."
                    .to_owned()
            }
        };
        // If the lock is still held, that is the reason why the same thread cannot lock it again.
        let held = matches!(waited, Outcome::Stuck) && !sentence.starts_with(PANICKED);
        let sentence = if held { &never } else { &sentence };
        check!(sentence.is_empty(), "{sentence}");
        let (entry, number) = entered(
            waited,
            "After a panic in the closure, with_lock in another process",
            &never,
        );
        check!(
            entry == Entry::Clean,
            "After a panic in the closure, with_lock in another process passed Entry::OwnerDied. Expected Entry::Clean: \
             no process died."
        );
        check!(
            number == 7,
            "A closure stored 7 and panicked, and the next with_lock passed {number} to its closure; expected 7. \
             Leave the number as the closure left it."
        );
        // A panic in the first process, after which the judge compares its state.
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            counter.with_lock(|_, _| panic::resume_unwind(Box::new(Payload(7))))
        }));
        check!(
            panicked.is_err(),
            "{PANICKED} returned. Expected the same panic in the caller: release the lock in a Drop, and let the \
             panic unwind."
        );
    })
}

/// Begins the sentences for a panic that did not go on to the caller.
const PANICKED: &str = "The closure panicked, and with_lock";

/// A destructor may call `with_lock` while its thread panics.
#[test]
fn called_during_a_panic() {
    case(|| {
        judge::expect_panics();
        let counter = new_counter();
        let in_a_destructor = Caller::enter(|| {
            let _ = during_a_panic(|| add_one(&counter));
            add_one(&counter)
        });
        let call = "After with_lock had been called by a destructor during a panic, with_lock";
        let (entry, number) = entered(
            in_a_destructor.outcome(),
            call,
            &format!("{call} never returned. Expected the lock to be released."),
        );
        check!(
            (entry, number) == (Entry::Clean, 1),
            "{call} passed Entry::{entry:?} and {number}; expected Entry::Clean and 1. A call during a panic must \
             lock and unlock like any other."
        );
        let inside = Process::fork(|| {
            let found = Cell::new(None);
            let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                counter.with_lock(|_, _| {
                    during_a_panic(|| found.set(not_refused(&counter)));
                })
            }));
            found.get().map(str::to_owned).unwrap_or_default()
        });
        let how = match inside.end() {
            End::Reported(how) => how,
            End::Died(how) => format!("did not return: the process {how}"),
            End::Stuck => "never returned".to_owned(),
        };
        check!(
            how.is_empty(),
            "In a closure, a destructor called with_lock and get() of the same counter during a panic. The call {how}. \
             Expected an error: the closure still holds the lock. Decide by the owner of the lock, not by \
             std::thread::panicking."
        );
    })
}

/// A call inside `with_lock` of the same counter, and whether it succeeded.
type Relock = fn(&Counter) -> Relocked;

enum Relocked {
    Refused,
    /// The call returned an error, but its closure has run.
    RefusedTooLate,
    Succeeded,
}

fn relock(counter: &Counter) -> Relocked {
    let ran = Cell::new(false);
    match counter.with_lock(|_, _| ran.set(true)) {
        Err(_) if ran.get() => Relocked::RefusedTooLate,
        Err(_) => Relocked::Refused,
        Ok(()) => Relocked::Succeeded,
    }
}

fn reread(counter: &Counter) -> Relocked {
    match counter.get() {
        Err(_) => Relocked::Refused,
        Ok(_) => Relocked::Succeeded,
    }
}

#[test]
fn relocking_is_an_error() {
    case(|| {
        let calls: [(&str, Relock, &str); 2] = [
            ("with_lock", relock, "there are two &mut to one number now"),
            (
                "get()",
                reread,
                "it reads the number while the closure holds a &mut to it",
            ),
        ];
        for (call, relock, danger) in calls {
            let counter = new_counter();
            let after = format!("After {call} inside with_lock had returned an error, with_lock");
            let [refused, succeeded, returned, finish] = [(); 4].map(|()| Event::new());
            let process = Process::fork(|| {
                let inside = counter.with_lock(|_, _| {
                    [(); 2].map(|()| {
                        let relocked = relock(&counter);
                        // The outer call may not return.
                        match relocked {
                            Relocked::Refused => refused.send(),
                            Relocked::Succeeded => succeeded.send(),
                            Relocked::RefusedTooLate => {}
                        }
                        relocked
                    })
                });
                returned.send();
                // If it ended while it held the lock, it would be a dead owner.
                finish.wait();
                let how = match inside {
                    Ok([Relocked::Refused, Relocked::Refused]) => {
                        return match add_one(&counter) {
                            Ok(_) => String::new(),
                            Err(error) => format!(
                                "{after} in the same thread returned an error after the outer call had returned: \
                                 {error}. {LEAVE_IT}"
                            ),
                        };
                    }
                    Ok([Relocked::RefusedTooLate, _] | [_, Relocked::RefusedTooLate]) => {
                        format!("ran its closure before it returned an error: {danger}")
                    }
                    Ok([Relocked::Succeeded, _]) => format!("returned Ok: {danger}"),
                    Ok([_, Relocked::Succeeded]) => {
                        return refused_once(call, danger);
                    }
                    Err(error) => {
                        return format!(
                            "with_lock returned an error, but nobody held the lock: {error}."
                        );
                    }
                };
                refused_call(call, &how)
            });
            let elsewhere = returned.arrives().then(|| add_one_elsewhere(&counter));
            finish.send();
            let sentence = match process.end() {
                End::Reported(sentence) => sentence,
                End::Died(how) => match (refused.take(), refused.take(), succeeded.take()) {
                    (true, true, _) => format!(
                        "{after}, the outer call, did not return: its process {how}. {LEAVE_IT}"
                    ),
                    (true, _, true) => refused_once(call, danger),
                    (false, _, true) => refused_call(call, &format!("returned Ok: {danger}")),
                    _ => refused_call(call, &format!("did not return: its process {how}")),
                },
                End::Stuck => refused_call(call, "waits for its own lock, and never returns"),
            };
            check!(sentence.is_empty(), "{sentence}");
            let (entry, _) = entered(
                elsewhere.unwrap_or_else(|| add_one_elsewhere(&counter)),
                &format!("{after} in another process"),
                &format!(
                    "{after} in another process never returned. Expected the outer with_lock to release the lock when its \
                     closure returned. If the refused call has taken the lock once more, as with a recursive mutex, \
                     release it once more."
                ),
            );
            check!(
                entry == Entry::Clean,
                "{after} in another process passed Entry::OwnerDied; expected Entry::Clean."
            );
        }
    })
}

/// How many counters are locked, one inside another.
const NESTED: usize = 20;

/// Calls `with_lock` of each counter inside `with_lock` of the one before, and `innermost` inside the last one. After each
/// call has returned, `after` is called with its index, inside `with_lock` of the counters before it.
fn nested(
    counters: &[Counter],
    index: usize,
    innermost: &dyn Fn(),
    after: &dyn Fn(usize),
) -> io::Result<()> {
    let Some(counter) = counters.get(index) else {
        innermost();
        return Ok(());
    };
    counter.with_lock(|_, _| nested(counters, index + 1, innermost, after))??;
    after(index);
    Ok(())
}

/// How `with_lock` or `get` of a counter that this thread has locked did not return an error, as a predicate.
fn not_refused(counter: &Counter) -> Option<&'static str> {
    match (relock(counter), reread(counter)) {
        (Relocked::RefusedTooLate, _) => Some("ran its closure, and then returned an error"),
        (Relocked::Succeeded, _) | (_, Relocked::Succeeded) => Some("returned Ok"),
        _ => None,
    }
}

/// What a thread holds does not depend on the counter that it has locked or released last.
#[test]
fn relocking_with_several_counters() {
    case(|| {
        judge::expect_panics();
        let counters: Vec<_> = (0..NESTED).map(|_| new_counter()).collect();
        let [outer, inner, ..] = &counters[..] else {
            unreachable!("there are more than two")
        };
        let returned = || {
            outer.with_lock(|_, _| {
                inner.with_lock(|_, _| ())?;
                Ok(not_refused(outer))
            })?
        };
        let panicked = || {
            outer.with_lock(|_, _| {
                let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                    inner.with_lock(|_, _| panic::resume_unwind(Box::new(())))
                }));
                not_refused(outer)
            })
        };
        let refused = || {
            outer.with_lock(|_, _| {
                inner.with_lock(|_, _| {
                    relock(inner);
                    not_refused(outer)
                })
            })?
        };
        let all = || {
            let found = Cell::new(None);
            let note = |how: Option<_>| found.set(found.get().or(how));
            let innermost = || counters.iter().for_each(|one| note(not_refused(one)));
            let after = |index| {
                let locked = counters.get(..index).and_then(<[_]>::last);
                note(locked.and_then(not_refused));
            };
            nested(&counters, 0, &innermost, &after)?;
            Ok(found.get())
        };
        type Relocking<'a> = &'a dyn Fn() -> io::Result<Option<&'static str>>;
        let relockings: [(&str, Relocking); 4] = [
            ("with_lock of another counter had returned", &returned),
            (
                "the closure of another counter had panicked, and the panic was caught",
                &panicked,
            ),
            (
                "another counter was locked there, and a second lock of it had returned an error",
                &refused,
            ),
            ("other counters were locked there, one inside another", &all),
        ];
        for (when, relocking) in relockings {
            let process = Process::fork(|| match relocking() {
                Ok(None) => String::new(),
                Ok(Some(how)) => format!("with_lock or get() of the same counter {how}"),
                Err(error) => format!("with_lock of another one returned an error: {error}"),
            });
            let how = match process.end() {
                End::Reported(how) => how,
                End::Died(how) => format!("with_lock or get() did not return: the process {how}"),
                End::Stuck => "with_lock or get() of the same counter never returned".to_owned(),
            };
            check!(
                how.is_empty(),
                "Inside with_lock of a counter, after {when}, {how}. Expected an error for each counter that this thread \
                 still holds, and for no other one. Record the owner of each counter's lock separately (for a mutex, \
                 PTHREAD_MUTEX_ERRORCHECK)."
            );
            for counter in &counters {
                let call =
                    "After nested calls of with_lock had returned, with_lock in another process";
                let never =
                    format!("{call} never returned. Expected each call to release its lock.");
                let (entry, _) = entered(add_one_elsewhere(counter), call, &never);
                check!(
                    entry == Entry::Clean,
                    "{call} passed Entry::OwnerDied; expected Entry::Clean."
                );
            }
        }
    })
}

const LEAVE_IT: &str = "Leave the outer call's lock as it is when you refuse the inner call.";

/// The sentence for a call inside `with_lock` that returned an error, and Ok the second time.
fn refused_once(call: &str, danger: &str) -> String {
    format!(
        "{call} inside with_lock returned an error, and the same call again Ok: {danger}. Expected an error both times. \
         {LEAVE_IT}"
    )
}

/// The sentence for a call inside `with_lock` that should return an error.
fn refused_call(call: &str, how: &str) -> String {
    format!(
        "{call} inside with_lock {how}. Expected an error before anything is accessed (for a mutex, \
         PTHREAD_MUTEX_ERRORCHECK)."
    )
}

#[test]
fn a_refused_call_keeps_the_lock() {
    case(|| {
        let counter = new_counter();
        type Call = fn(&Counter);
        let calls: [(Option<&str>, Call); 3] = [
            (None, |_| ()),
            (Some("with_lock"), |counter| {
                relock(counter);
            }),
            (Some("get()"), |counter| {
                reread(counter);
            }),
        ];
        for (call, relock) in calls {
            let holder = Holder::enter(&counter, |_, pause| {
                relock(&counter);
                pause();
            });
            let waiter = Waiter::adds(&counter);
            if waiter.passes() {
                fail(match call {
                    None => NOT_EXCLUDED.to_owned(),
                    Some(call) => format!(
                        "A process called {call} inside with_lock. Then a second process was inside with_lock while \
                         the first one was still there. Unlock only if this call has locked."
                    ),
                });
            }
            holder.leave();
            let after = match call {
                None => "After the holder had released the lock".to_owned(),
                Some(call) => {
                    format!("After the holder had called {call} again and released the lock")
                }
            };
            let outcome = waiter.outcome();
            let never = match outcome {
                Outcome::Stuck => never_woken(
                    &counter,
                    "with_lock",
                    &format!(
                        "{after}, no other process can lock the counter. A refused call must not change the \
                              lock."
                    ),
                ),
                _ => String::new(),
            };
            entered(
                outcome,
                &format!("{after}, with_lock in a process that waited for it"),
                &never,
            );
        }
    })
}

/// Ends the child when it leaves the closure, in whatever way.
struct EndsTheChild(Pid);

impl Drop for EndsTheChild {
    fn drop(&mut self) {
        if getpid() != self.0 {
            processes::exit_with(LEFT);
        }
    }
}

/// The exit status of a child that has left `with_lock`.
const LEFT: i32 = 86;

#[test]
fn forked_inside_the_closure() {
    case(|| {
        // The child may panic.
        judge::expect_panics();
        let counter = new_counter();
        let [inside, go_on, children_have_left, refused, leave] = [(); 5].map(|()| Event::new());
        let parent = Process::fork(|| {
            let me = getpid();
            let _ends_the_children = EndsTheChild(me);
            let mut waiting = None;
            let mut left = Vec::new();
            let result = counter.with_lock(|_, _| {
                inside.send();
                go_on.wait();
                let waiter = waiting.insert(Waiter::adds(&counter));
                if waiter.passes() {
                    left.push(CHILD_ENTERED.to_owned());
                }
                for panics in [false, true] {
                    // SAFETY: this process has one thread.
                    match unsafe { fork() }.expect("fork") {
                        // The child leaves the closure, which only its parent has entered.
                        ForkResult::Child if panics => panic::resume_unwind(Box::new(())),
                        ForkResult::Child => return,
                        ForkResult::Parent { child } => {
                            left.extend(not_aborted(
                                ", and its child",
                                processes::reap(child),
                                panics,
                            ));
                        }
                    };
                }
                children_have_left.send();
                go_on.wait();
                if matches!(relock(&counter), Relocked::Refused) {
                    refused.send();
                }
                leave.wait();
            });
            if getpid() != me {
                processes::exit_with(LEFT);
            }
            if let Some(waiter) = waiting
                && matches!(waiter.outcome(), Outcome::Stuck)
            {
                left.push(CHILD_STUCK.to_owned());
            }
            match (result, left.into_iter().next()) {
                (Err(error), _) => format!("returned an error: {error}"),
                (Ok(()), Some(mistake)) => format!("{OF_A_CHILD}{mistake}"),
                (Ok(()), None) => String::new(),
            }
        });
        let how = |end| match end {
            End::Reported(how) => how,
            End::Died(how) => format!("did not return: its process {how}"),
            End::Stuck => "never returned".to_owned(),
        };
        if !inside.arrives() {
            let how = how(parent.end());
            fail(format!(
                "with_lock in another process {how}, but nobody held the lock. Expected it to run its closure."
            ));
        }
        let waiter = Waiter::adds(&counter);
        check!(!waiter.passes(), "{NOT_EXCLUDED}");
        go_on.send();
        let when = "A process forked inside with_lock, and its child left the closure.";
        if !children_have_left.arrives() {
            let how = how(parent.end());
            fail(format!(
                "{when} Then with_lock in the parent {how}. Expected only the child to end."
            ));
        }
        let passed = waiter.passes();
        go_on.send();
        let refused = refused.arrives();
        leave.send();
        let how = how(parent.end());
        let of_a_child = how.strip_prefix(OF_A_CHILD);
        check!(of_a_child != Some(CHILD_ENTERED), "{CHILD_ENTERED}");
        check!(
            !passed,
            "{when} Then another process was inside with_lock while the parent was still there. The child does not \
             own the lock: abort it instead of releasing the lock."
        );
        check!(
            refused,
            "{when} Then with_lock inside with_lock returned no error in the parent. The child does not own the lock, and \
             must not change what your code records about it: compare the owner with the caller first."
        );
        check!(of_a_child.is_none(), "{}", of_a_child.unwrap_or_default());
        check!(
            how.is_empty(),
            "{when} Then with_lock in the parent {how}. Expected it to release the lock and return."
        );
        entered(
            waiter.outcome(),
            &format!("{when} Then with_lock in another process"),
            &format!(
                "{when} Then the parent left it, too, and with_lock in another process never returned. Release the \
                 lock in the parent."
            ),
        );
    })
}

/// When a child leaves a closure that only its parent has entered.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    /// The lock is free.
    AfterItsParent,
    /// Another process holds the lock.
    WhileAnotherHolds,
    /// The child has called `with_lock` since, which may fail.
    AfterACall,
    /// The parent was inside when it ended.
    AfterADeath,
}

/// The child does not own the lock, whoever owns it when the child leaves the closure.
#[test]
fn a_child_leaves_the_closure_later() {
    case(|| {
        // The child may panic.
        judge::expect_panics();
        // The children become orphans. They must have ended when the case ends.
        let adopts = prctl::get_child_subreaper().expect("prctl");
        prctl::set_child_subreaper(true).expect("prctl");
        let counter = new_counter();
        for (leaves, when) in [
            (Leaves::AfterItsParent, "released the lock"),
            (
                Leaves::WhileAnotherHolds,
                "released the lock, which another process took",
            ),
            (
                Leaves::AfterACall,
                "released the lock, and its child called with_lock",
            ),
            (Leaves::AfterADeath, "ended inside"),
        ] {
            for panics in [false, true] {
                let go_on = Event::new();
                let parent = Process::fork(|| {
                    let me = getpid();
                    let _ends_the_child = EndsTheChild(me);
                    let _ = counter.with_lock(|_, _| {
                        // SAFETY: this process has one thread.
                        match unsafe { fork() }.expect("fork") {
                            ForkResult::Child => {
                                go_on.wait();
                                if leaves == Leaves::AfterACall {
                                    let _ = add_one(&counter);
                                }
                                if panics {
                                    panic::resume_unwind(Box::new(()));
                                }
                            }
                            ForkResult::Parent { .. } if leaves == Leaves::AfterADeath => {
                                processes::exit_now()
                            }
                            ForkResult::Parent { .. } => {}
                        }
                    });
                    if getpid() != me {
                        processes::exit_with(LEFT);
                    }
                    String::new()
                });
                // The child keeps the pipe of its parent's report open.
                processes::reap(parent.pid);
                let holder = (leaves == Leaves::WhileAnotherHolds)
                    .then(|| Holder::enter(&counter, |_, pause| pause()));
                go_on.send();
                let any_child = Pid::from_raw(-1);
                let status = processes::reap(any_child);
                let left = not_aborted(&format!(" and {when}. Then its child"), status, panics);
                check!(left.is_none(), "{}", left.unwrap_or_default());
                if let Some(holder) = holder {
                    let waiter = Waiter::adds(&counter);
                    check!(
                        !waiter.passes(),
                        "A process forked inside with_lock and {when}. Then the child left the closure, and a third \
                         process was inside with_lock. Release only a lock that the caller owns."
                    );
                    holder.leave();
                    // The case must not wait for this process in place of the next child.
                    let _ = waiter.outcome();
                }
                let call = format!(
                    "A process forked inside with_lock and {when}. After its child had left the closure, with_lock in \
                     another process"
                );
                entered(
                    add_one_elsewhere(&counter),
                    &call,
                    &format!("{call} never returned. Expected it to get the lock."),
                );
            }
        }
        prctl::set_child_subreaper(adopts).expect("prctl");
    })
}

/// Begins a parent's report of a child that it forked inside the closure. The rest is a whole sentence.
const OF_A_CHILD: &str = "child: ";

const CHILD_ENTERED: &str = "A process forked inside with_lock, and a with_lock in its child ran its closure while the \
                             parent was still inside. The child does not own the lock, so its with_lock must wait or \
                             fail.";
const CHILD_STUCK: &str = "A process forked inside with_lock, and its child called with_lock. The parent released the \
                           lock, and with_lock in the child never returned. Expected it to get the lock then, or to \
                           fail. If you use a file lock: it belongs to an open file description, which a child inherits.";

/// What to report of a child that left the closure, unless it was aborted.
///
/// `child` follows "A process forked inside with_lock", and ends with the subject of what the child did.
fn not_aborted(child: &str, status: WaitStatus, panics: bool) -> Option<String> {
    let then = match (status, panics) {
        (WaitStatus::Signaled(_, Signal::SIGABRT, _), _) => return None,
        (WaitStatus::Exited(_, LEFT), false) => "with_lock returned in the child".to_owned(),
        (WaitStatus::Exited(_, LEFT), true) => "the panic left with_lock in the child".to_owned(),
        (WaitStatus::Exited(_, status), _) => format!("the child exited with status {status}"),
        (WaitStatus::Signaled(_, signal, _), _) => format!("the child was killed by {signal}"),
        _ => "the child was not aborted".to_owned(),
    };
    let how = match panics {
        false => "returned from the closure",
        true => "left the closure by a panic",
    };
    Some(format!(
        "A process forked inside with_lock{child} {how}. Then {then}; expected abort(), because the child does \
         not own the lock."
    ))
}

/// The calls that fail, and what with_lock or get must do then.
const LOCKING: [(&str, Errno); 10] = [
    ("pthread_mutex_lock", Errno::EINVAL),
    ("pthread_mutex_trylock", Errno::EINVAL),
    // The answer must wait again.
    ("pthread_mutex_timedlock", Errno::ETIMEDOUT),
    ("pthread_mutex_clocklock", Errno::ETIMEDOUT),
    ("pthread_mutex_unlock", Errno::EPERM),
    // Code that looks for one error must not ignore the others.
    ("pthread_mutex_lock", Errno::ENOTRECOVERABLE),
    ("pthread_mutex_trylock", Errno::ENOTRECOVERABLE),
    ("pthread_mutex_timedlock", Errno::ENOTRECOVERABLE),
    ("pthread_mutex_clocklock", Errno::ENOTRECOVERABLE),
    ("pthread_mutex_unlock", Errno::EINVAL),
];

#[test]
fn a_failed_lock_or_unlock() {
    refusals(
        &LOCKING,
        |refused| {
            let [counter, outer] = [(); 2].map(|()| new_counter());
            let aborts = refused.is_some_and(|refusal| refusal.call == "pthread_mutex_unlock");
            let may_print = || {
                without_output();
                let _ = add_one(&counter);
                let _ = counter.get();
                String::new()
            };
            // Code that prints all the time is being debugged.
            let without_output_too =
                aborts && matches!(Process::fork(may_print).end(), End::Reported(_));
            let returned = Event::new();
            // A failed unlock must abort the process, so the calls are made in another one.
            let process = Process::fork(|| {
                if without_output_too {
                    without_output();
                }
                let ran = Cell::new(false);
                let call_both = || {
                    let (entered, read) = refuse(|| {
                        Errno::EXDEV.set();
                        (
                            counter.with_lock(|_, _| ran.set(true)),
                            counter.get().map(drop),
                        )
                    });
                    returned.send();
                    let calls = [("with_lock", entered), ("get()", read)];
                    mistake_after(refused, calls, ran.get())
                        .or_else(|| mistake_after_an_error(&counter, refused))
                };
                let inside = outer.with_lock(|_, _| {
                    call_both().or_else(|| {
                        refused?;
                        let how = not_refused(&outer)?;
                        Some(format!(
                            "That was inside with_lock of another counter. Then with_lock or get() of that one, inside \
                             its own closure, {how}; expected an error. {RECORDED_ONLY_IF_LOCKED}"
                        ))
                    })
                });
                match inside {
                    Ok(mistake) => mistake.unwrap_or_default(),
                    Err(error) => {
                        format!("with_lock returned an error, but nobody held the lock: {error}.")
                    }
                }
            });
            match process.end() {
                End::Reported(mistake) => check!(mistake.is_empty(), "{mistake}"),
                End::Died(how) if aborts => check!(
                    how == "was killed by SIGABRT",
                    "with_lock or get() did not return: its process {how}. Expected abort().{}",
                    match how.contains("failed printing") {
                        true => {
                            " The grader let all output fail, and eprintln! panics then: print nothing, or ignore the \
                             error of writeln!."
                        }
                        false => "",
                    }
                ),
                other => {
                    let how = match other {
                        End::Died(how) => format!("did not return: its process {how}"),
                        _ => "never returned".to_owned(),
                    };
                    fail(match returned.has_arrived() {
                        false => format!(
                            "with_lock or get() {how}. Expected it to return the error of the call that failed."
                        ),
                        true => format!(
                            "That was inside with_lock of another counter. Then a call of with_lock or get() of one of \
                             the two counters {how}. {RECORDED_ONLY_IF_LOCKED}"
                        ),
                    })
                }
            }
            if !aborts {
                entered(
                    add_one_elsewhere(&counter),
                    "After that, with_lock in another process",
                    "After that, with_lock in another process never returned, but nobody held the lock.",
                );
            }
        },
        |seen| {
            check!(
                seen.count_in_window("pthread_mutex_init") == 0,
                "with_lock or get() called pthread_mutex_init. Initialise the mutex once, in Counter::new: after a \
                 fork, two processes could initialise it at the same time."
            );
        },
    )
}

/// What is wrong with the next calls, if anything, after `with_lock` or `get` may have returned an error.
fn mistake_after_an_error(counter: &Counter, refused: Option<Refusal>) -> Option<String> {
    refused.filter(|refusal| refusal.errno != Errno::ETIMEDOUT)?;
    let calls = [
        ("with_lock", add_one(counter).map(drop)),
        ("get()", counter.get().map(drop)),
    ];
    calls.into_iter().find_map(|(call, result)| {
        let error = result.err()?;
        Some(format!(
            "with_lock or get() returned the error. Then {call} in the same thread returned an error, too, although no \
             call failed any more: {error}. {RECORDED_ONLY_IF_LOCKED}"
        ))
    })
}

const RECORDED_ONLY_IF_LOCKED: &str = "If your code records who holds a lock, a call that has not locked must leave that \
                                       record as it was.";

/// What is wrong with the results of the calls, if anything, after one of their calls was made to fail. `ran` says
/// whether the closure of `with_lock` has run.
fn mistake_after(
    refused: Option<Refusal>,
    calls: [(&str, io::Result<()>); 2],
    ran: bool,
) -> Option<String> {
    let error = calls
        .iter()
        .find_map(|(call, result)| Some((*call, result.as_ref().err()?)));
    match (refused, error) {
        (Some(refusal), None) if refusal.call == "pthread_mutex_unlock" => Some(
            "with_lock and get() returned Ok, although an unlock failed; expected abort()."
                .to_owned(),
        ),
        (Some(refusal), Some((call, error))) if refusal.call == "pthread_mutex_unlock" => {
            let before = match call {
                "get()" => "with_lock returned Ok, and then ",
                _ => "",
            };
            Some(format!(
                "{before}{call} returned an error: {error}. Expected abort() when the unlock failed."
            ))
        }
        (Some(refusal), Some((call, error))) if refusal.errno != Errno::ETIMEDOUT => {
            if call == "with_lock" && ran {
                return Some(
                    "with_lock ran its closure, and then returned an error. Expected it to return the error without \
                     running the closure."
                        .to_owned(),
                );
            }
            let same = error.raw_os_error() == Some(refusal.errno as i32);
            (!same).then(|| wrong_error(error, refusal, call))
        }
        (Some(refusal), None) if refusal.errno != Errno::ETIMEDOUT => Some(format!(
            "with_lock and get() returned Ok; expected the error {:?}. Check the result of each pthread function.",
            refusal.errno
        )),
        (Some(_), Some((call, error))) => Some(format!(
            "{call} returned an error: {error}. Expected it to wait again: the wait for the lock has no time limit."
        )),
        (_, Some((call, error))) => Some(format!(
            "{call} returned an error: {error}. Expected it to lock, because nobody held the lock."
        )),
        (_, None) => None,
    }
}
