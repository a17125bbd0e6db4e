//! Stage 2: mutual exclusion.

use std::ffi::CStr;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use judge::pretend;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::getpid;

use super::*;

/// Makes one process hold the lock while `waiter` makes a call, and lets it leave.
///
/// `hold` runs under the lock. It calls its second argument, which returns after the waiter has had time to get past the
/// lock. Returns the outcome of the waiter's call. Fails the case if the waiter got past the lock while the other
/// process was inside; `passed` is the sentence.
fn contention(
    counter: &Counter,
    hold: impl FnOnce(&mut u64, &dyn Fn()),
    waiter: impl FnOnce(&Counter) -> Waiter,
    trial: Duration,
    passed: &str,
) -> Outcome {
    let holder = Holder::enter(counter, hold);
    let waiter = waiter(counter);
    check!(!waiter.passes_within(trial), "{passed}");
    holder.leave();
    waiter.outcome()
}

/// Fails the case with the reason why the call of a process that had to wait did not succeed.
pub fn must_wait(counter: &Counter, call: &str, outcome: &Outcome) -> ! {
    fail(match outcome {
        Outcome::Stuck => never_woken(counter, call, NOT_RELEASED),
        Outcome::Entered(entry, _) => format!(
            "{call} in one process waited until another process had released the lock, and then passed \
             Entry::{entry:?}; expected Entry::Clean, because no process died."
        ),
        Outcome::Died(how) => format!(
            "{call} in one process, called while another process held the lock, did not return: its process {how}. \
             Expected it to wait until the lock is released, and then to return."
        ),
        other => format!(
            "{call} in one process {other}, while another process held the lock. Expected it to wait until the lock is \
             released."
        ),
    })
}

/// The advice if `with_lock` reports a death to a process that has waited. If it reports none to one that has not, the
/// record of the owner is removed only after the lock is released.
fn advice_if_only_a_waiter_is_told() -> String {
    let counter = new_counter();
    let entries = [(); 2].map(|()| add_one_elsewhere(&counter));
    match entries {
        [Outcome::Entered(..), Outcome::Entered(Entry::Clean, _)] => {
            " Remove the record of the owner before you release the lock.".to_owned()
        }
        _ => String::new(),
    }
}

#[test]
fn one_process_at_a_time() {
    case(|| {
        let counter = new_counter();
        let add_slowly = |number: &mut u64, pause: &dyn Fn()| {
            let before = *number;
            pause();
            *number = before + 1;
        };
        let outcome = contention(&counter, add_slowly, Waiter::adds, LONG_TRIAL, NOT_EXCLUDED);
        let Outcome::Entered(entry, number) = outcome else {
            must_wait(&counter, "with_lock", &outcome)
        };
        check!(
            entry == Entry::Clean,
            "A process released the lock, and the next with_lock passed Entry::OwnerDied; expected Entry::Clean, \
             because no process died.{}",
            advice_if_only_a_waiter_is_told()
        );
        let sum = get(&counter);
        check!(
            number == 1 && sum == 2,
            "Two processes added 1 to a new counter, one after the other. with_lock passed {number} to the closure of \
             the second one, and then get() returned {sum}; expected 1 and 2."
        );
    })
}

/// What code has kept since an earlier call is the same in all processes that are forked later.
#[test]
fn used_before_the_fork() {
    case(|| {
        let counter = new_counter();
        with_lock(&counter, |_, _| ());
        get(&counter);
        let when = "with_lock and get() returned in a process that then forked two others.";
        let advice = "A child inherits what your code has kept since an earlier call, such as a thread ID or a \
                      descriptor: ask for it again in each process.";
        let passed = format!("{when} Both were inside with_lock at the same time. {advice}");
        let hold = |_: &mut u64, pause: &dyn Fn()| pause();
        match contention(&counter, hold, Waiter::adds, TRIAL, &passed) {
            Outcome::Entered(..) => {}
            outcome @ Outcome::Stuck => must_wait(&counter, "with_lock", &outcome),
            other => fail(format!(
                "{when} While one of them held the lock, with_lock in the other one {other}. Expected it to wait until \
                 the lock is released. {advice}"
            )),
        }
    })
}

/// What a process does with other counters inside its closure, or another process with its copy of this one, does not
/// release the lock.
#[test]
fn kept_while_others_are_dropped() {
    case(|| {
        let counter = new_counter();
        let other = new_counter();
        let dropped_by_a_child = || {
            let child = Process::fork(|| {
                // SAFETY: the child drops this copy, and exits without using or dropping the original.
                drop(unsafe { std::ptr::read(&counter) });
                String::new()
            });
            let _ = child.end();
        };
        let made = || {
            let new = new_counter();
            with_lock(&new, |number, _| *number += 1);
            get(&new);
        };
        let used = || {
            with_lock(&other, |_, _| ());
            get(&other);
        };
        let cloned = || drop(judge::clone_if_possible!(Counter, &counter));
        let a_file = "A record lock (fcntl) is released as soon as the process closes any descriptor of the file.";
        let actions: [(&str, &dyn Fn(), &str); 5] = [
            ("", &|| (), ""),
            (
                "called with_lock and get() of another counter",
                &used,
                a_file,
            ),
            (
                "made another counter, used it and dropped it",
                &made,
                a_file,
            ),
            ("dropped a clone of the counter", &cloned, a_file),
            (
                "forked a child, which dropped its copy of the counter",
                &dropped_by_a_child,
                "Do not release the lock in Drop.",
            ),
        ];
        for (action, act, advice) in actions {
            let holder = Holder::enter_and_call(&counter, "what it did there", |_, pause| {
                act();
                pause();
            });
            let waiter = Waiter::adds(&counter);
            if waiter.passes() {
                fail(match action {
                    "" => NOT_EXCLUDED.to_owned(),
                    _ => format!(
                        "Inside with_lock, a process {action}. Then a second process was inside with_lock while the \
                         first one was still there. Expected the lock to be held until the closure returns. {advice}"
                    ),
                });
            }
            holder.leave();
            let outcome = waiter.outcome();
            if !matches!(outcome, Outcome::Entered(Entry::Clean, _)) {
                must_wait(&counter, "with_lock", &outcome);
            }
        }
    })
}

#[test]
fn every_waiter_gets_in() {
    case(|| {
        let counter = new_counter();
        let [inside, leave] = [(); 2].map(|()| Event::new());
        let holder = Holder::enter(&counter, |_, pause| pause());
        let waiters = [(); 3].map(|()| {
            let started = Event::new();
            let caller = Caller::enter(|| {
                started.send();
                counter.with_lock(|number, entry| {
                    let before = *number;
                    inside.send();
                    leave.wait();
                    *number = before + 1;
                    (entry, before)
                })
            });
            started.wait();
            check!(
                !inside.arrives_unless_blocked(caller.0.pid, TRIAL),
                "{NOT_EXCLUDED}"
            );
            caller
        });
        holder.leave();
        for already in 0..waiters.len() {
            if !inside.arrives() {
                let outcomes = waiters.map(Caller::outcome);
                let failed =
                    |outcome: &&Outcome| !matches!(outcome, Outcome::Stuck | Outcome::Entered(..));
                if let Some(outcome) = outcomes.iter().find(failed) {
                    must_wait(&counter, "with_lock", outcome);
                }
                if already == 0 {
                    must_wait(&counter, "with_lock", &Outcome::Stuck);
                }
                fail(format!(
                    "Three processes waited for the lock, and {already} of them got it. The others were not woken \
                     when the lock was released again. Wake a waiter at every release."
                ));
            }
            for waiter in &waiters {
                check!(
                    !inside.arrives_unless_blocked(waiter.0.pid, TRIAL),
                    "Three processes waited for the lock. After it was released, two of them were inside with_lock at \
                     the same time. Only one waiter may get the lock at each release."
                );
            }
            leave.send();
        }
        for waiter in waiters {
            let outcome = waiter.outcome();
            if !matches!(outcome, Outcome::Entered(Entry::Clean, _)) {
                must_wait(&counter, "with_lock", &outcome);
            }
        }
        let sum = get(&counter);
        check!(
            sum == 3,
            "Three processes added 1 to a new counter, one after the other, and get() returned {sum}; expected 3."
        );
    })
}

#[test]
fn stopped_before_it_has_the_lock() {
    case(|| {
        let counter = new_counter();
        beside_each_place(
            &counter,
            || (),
            |both, has_run| {
                let (stopped, advice) = match has_run {
                    true => (
                        ", after its closure had run,",
                        "Remove the record of the owner before you release the lock.",
                    ),
                    false => ("", "Record the owner only when you have the lock."),
                };
                (both != [Entry::Clean; 2]).then(|| format!(
                    "The grader stopped a process in with_lock{stopped} while another one called with_lock. Then \
                     with_lock passed Entry::OwnerDied; expected Entry::Clean, because no process died. {advice}"
                ))
            },
        );
    })
}

/// The lock may be released after a process has seen that it is held, and before that process waits for it.
#[test]
fn released_before_it_waits() {
    case(|| {
        let counter = new_counter();
        let steps = Steps::of(&(), || report(add_one(&counter)));
        let hold = || Holder::enter(&counter, |_, pause| pause());
        // The first call of a function in libc executes the dynamic linker.
        let _ = add_one(&counter);
        let holder = hold();
        let waiter = Process::fork(|| steps.find());
        processes::until_it_waits(waiter.pid);
        holder.leave();
        find_places(waiter);
        for place in 0..judge::places() {
            let holder = hold();
            let waiter = Caller(Process::fork(|| steps.stop_at(place)));
            processes::until_it_waits(waiter.0.pid);
            holder.leave();
            judge::until_stopped();
            judge::go_on();
            let call = "The grader stopped a process in with_lock while another one held the lock, and let it go on when the \
                        lock was released. Then with_lock";
            let advice = "The lock may be released between your test and your wait. With a futex, pass the value that the \
                          test has seen. If the word is another one by then, futex fails with EAGAIN: test again.";
            let never = format!("{call} never returned. {advice}");
            let outcome = waiter.outcome();
            let (entry, _) = entered_or(outcome, call, &never, advice);
            check!(
                entry == Entry::Clean,
                "{call} passed Entry::OwnerDied; expected Entry::Clean, because no process died."
            );
        }
    })
}

#[test]
fn waiting_leaves_nothing() {
    case(|| {
        for call in ["with_lock", "get()"] {
            let counter = new_counter();
            waits_repeatedly(&counter, call, Holder::leave);
        }
    })
}

#[test]
fn get_waits() {
    case(|| {
        let counter = new_counter();
        let change_twice = |number: &mut u64, pause: &dyn Fn()| {
            *number = 1;
            pause();
            *number = 2;
        };
        let outcome = contention(
            &counter,
            change_twice,
            Waiter::reads,
            TRIAL,
            "get() returned while another process was inside with_lock. Take the lock in get(), too.",
        );
        let Outcome::Read(number) = outcome else {
            must_wait(&counter, "get()", &outcome)
        };
        check!(
            number == 2,
            "A process stored 1 and then 2 under the lock while get() waited for the lock. get() returned {number}; \
             expected 2. Read the number after locking."
        );
    })
}

/// Time passes quickly for the waiting process.
#[test]
fn waits_without_a_limit() {
    case(|| {
        let try_it = || match pretend::time_flies() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        if !matches!(Process::fork(try_it).end(), End::Reported(error) if error.is_empty()) {
            judge::skip("the kernel rejects a seccomp filter that ends timed waits");
        }
        let time_flies = || pretend::time_flies().expect("it has worked in another process");
        for call in ["with_lock", "get()"] {
            let counter = new_counter();
            let holder = Holder::enter(&counter, |_, pause| pause());
            let waiter = match call {
                "get()" => Waiter::reads_after(time_flies, &counter),
                _ => Waiter::adds_after(time_flies, &counter),
            };
            let when = format!(
                "The grader ended all timed waits of a process immediately and put its clock forward, while another \
                 process held the lock. Then {call}"
            );
            let advice = "The wait for the lock has no time limit: after a time-out, wait again.";
            check!(
                !waiter.passes(),
                "{when} got past the lock, which was still held. {advice}"
            );
            holder.leave();
            match waiter.outcome() {
                Outcome::Entered(..) | Outcome::Read(_) => {}
                outcome @ Outcome::Stuck => must_wait(&counter, call, &outcome),
                other => fail(format!("{when} {other}. {advice}")),
            }
        }
    })
}

/// Safe code reaches the number only through `with_lock` and `get`.
#[test]
fn no_way_around_the_lock() {
    case(|| {
        let counter = new_counter();
        let holder = Holder::enter(&counter, |number, pause| {
            *number = UNFINISHED;
            pause();
        });
        // It may wait for the lock, or return an error.
        let shows = Process::fork(|| {
            let shown = judge::shown_if_possible!(Counter, &counter);
            shown.into_iter().flatten().collect()
        });
        let shown = match shows.end() {
            End::Reported(text) => text,
            End::Died(_) | End::Stuck => String::new(),
        };
        check!(
            !shown.contains(&UNFINISHED.to_string()),
            "While a process was inside with_lock, another one formatted the counter, and Debug or Display showed the number \
             that the closure had stored so far. Read the number only under the lock, or leave it out."
        );
        holder.leave();
        let public = judge::answer::source::public_fields("Counter");
        check!(
            public.is_empty(),
            "Counter has the public field `{}`, with which safe code can get around the lock. Leave out `pub`.",
            public[0]
        );
        let numbers = ["u64", "AtomicU64", "Target"];
        let functions =
            judge::answer::source::functions_that_return_a_reference("Counter", &numbers);
        check!(
            functions.is_empty(),
            "The function `{}` returns a reference to a number, with which safe code can get around the lock. Leave the \
             function out.",
            functions[0]
        );
    })
}

/// A number that no answer prints by chance.
const UNFINISHED: u64 = 7_340_193_655_281;

/// Does nothing if `Counter` is not `Clone`, or not `Send`.
#[test]
fn clones_are_counted_by_threads() {
    case(|| {
        let counter = new_counter();
        let clone = judge::clone_if_possible!(Counter, &counter);
        if clone.is_none() || !impls::impls!(Counter: Send) {
            return;
        }
        // The race is one instruction long, which no single step can interrupt.
        check!(
            !judge::answer::source::has_a_field_with("Rc"),
            "Counter is Clone and Send, and a struct has an Rc. Two threads may change the count of an Rc at the same time, \
             and one change is lost. Count the clones with an Arc, or leave out `impl Send`."
        );
    })
}

/// The owner of a lock is a thread, which need not be the main thread of its process.
#[test]
fn used_in_another_thread() {
    case(|| {
        let advice = "A thread other than the main one has an ID that differs from its process's: compare gettid() with the \
                      owner of a futex, and pass pidfd_open a process ID.";
        // Ends the case here if the answer has no functions yet.
        with_lock(&new_counter(), |_, _| ());
        // The counter is made in the thread: it need not be `Send`.
        let process = Process::fork(|| {
            in_a_thread(|| {
                let counter = new_counter();
                // The waiter is forked before the lock is taken: calls in a child that is forked inside the closure
                // may fail.
                let locked = Event::new();
                let waiter = Waiter::adds_later(|| locked.wait(), &counter);
                let held = counter.with_lock(|_, _| {
                    locked.send();
                    waiter.passes()
                });
                let passed = match held {
                    Ok(passed) => passed,
                    Err(error) => {
                        waiter.caller.0.kill();
                        return format!("with_lock returned an error: {error}");
                    }
                };
                match waiter.outcome() {
                    _ if passed => {
                        return "another process was inside with_lock while the thread was still there".to_owned();
                    }
                    Outcome::Entered(Entry::Clean, _) => {}
                    other => {
                        return format!(
                            "with_lock in another process, which waited for the thread, {other}"
                        );
                    }
                }
                let holder = Holder::enter(&counter, |_, pause| pause());
                let this = getpid();
                let releases = Process::fork(|| {
                    processes::until_it_waits(this);
                    holder.leave.send();
                    String::new()
                });
                let waited = add_one(&counter);
                let _ = (releases.end(), holder.process.end());
                match waited {
                    Ok((Entry::Clean, _)) => String::new(),
                    Ok((Entry::OwnerDied, _)) => {
                        "with_lock passed Entry::OwnerDied, but no process died".to_owned()
                    }
                    Err(error) => format!(
                        "with_lock returned an error, while another process held the lock: {error}"
                    ),
                }
            })
        });
        let how = match process.end() {
            End::Reported(how) => how,
            End::Died(how) => format!("with_lock did not return: its process {how}"),
            End::Stuck => "with_lock never returned".to_owned(),
        };
        check!(
            how.is_empty(),
            "A thread other than its process's main thread made a counter and used it, as did another process. Then {how}. \
             {advice}"
        );
    })
}

/// That a waiting process cannot examine the owner does not mean that the owner has died.
#[test]
fn waits_without_descriptors() {
    case(|| {
        let counter = new_counter();
        let no_descriptors = || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("setrlimit");
        };
        let no_signals = || {
            // Without the filter, the process can send signals, and waits as in other cases.
            let _ = pretend::others_owned_by_another_user();
        };
        let limits: [(&str, &dyn Fn(), &str); 2] = [
            (
                "could not open another descriptor (EMFILE)",
                &no_descriptors,
                "Only ESRCH means that there is no such process.",
            ),
            (
                "was not permitted to send signals to others (EPERM)",
                &no_signals,
                "kill(pid, 0) fails with ESRCH if there is no such process, and with EPERM if it belongs to another user.",
            ),
        ];
        for (what, limit, advice) in limits {
            for call in ["with_lock", "get()"] {
                let holder = Holder::enter(&counter, |_, pause| pause());
                let waiter = match call {
                    "get()" => Waiter::reads_after(limit, &counter),
                    _ => Waiter::adds_after(limit, &counter),
                };
                check!(
                    !waiter.passes(),
                    "A process that {what} called {call}, which got past the lock while another process held it. Expected \
                     it to wait or to return an error. {advice}"
                );
                holder.leave();
                match waiter.outcome() {
                    Outcome::Entered(Entry::Clean, _) | Outcome::Read(_) | Outcome::Error(_) => {}
                    Outcome::Stuck => must_wait(&counter, call, &Outcome::Stuck),
                    other => fail(format!(
                        "A process that {what} called {call} while another process held the lock. Then {call} {other}. \
                         Expected it to wait for the lock or to return an error. {advice}"
                    )),
                }
            }
        }
    })
}

/// The owner's name in /proc/PID/stat, which a waiting process may read, can contain spaces and parentheses.
#[test]
fn the_holder_has_a_strange_name() {
    case(|| {
        let counter = new_counter();
        let holder = Holder::enter(&counter, |_, pause| {
            prctl::set_name(NAME).expect("prctl");
            pause();
        });
        let waiter = Waiter::adds(&counter);
        check!(
            !waiter.passes(),
            "A second process was inside with_lock while the first one, whose name (comm) is {NAME:?}, was still there. \
             If you read the owner's state in /proc/PID/stat, it follows the last parenthesis in the line."
        );
        holder.leave();
        let outcome = waiter.outcome();
        if !matches!(outcome, Outcome::Entered(Entry::Clean, 0)) {
            must_wait(&counter, "with_lock", &outcome);
        }
    })
}

/// A name of a process that looks like the state of one that has ended.
const NAME: &CStr = c"a) Z b) Z c";

/// What `get` returns is what the last owner left, even if another process locks the counter meanwhile.
#[test]
fn get_reads_under_the_lock() {
    case(|| {
        let counter = new_counter();
        let returned = Event::new();
        let steps = Steps::of(&(), || match counter.get() {
            Ok(number) => {
                returned.send();
                format!("{READ}{number}")
            }
            Err(error) => format!("{ERROR}{error}"),
        });
        let store = |value| with_lock(&counter, |number, _| *number = value);
        // The first call of a function in libc executes the dynamic linker.
        get(&counter);
        find_places(Process::fork(|| steps.find()));
        returned.take();
        let mut stops = 0;
        for place in 0..judge::places() {
            store(7);
            let reader = Caller(Process::fork(|| steps.stop_at(place)));
            if !judge::until_stopped() {
                if let Outcome::Stuck = reader.outcome() {
                    fail(format!(
                        "get() in another process never returned. {NOT_RELEASED}"
                    ));
                }
                returned.take();
                continue;
            }
            stops += 1;
            let [inside, leave] = [(); 2].map(|()| Event::new());
            let writer = Caller::enter(|| {
                counter.with_lock(|number, entry| {
                    let before = std::mem::replace(number, 1);
                    inside.send();
                    leave.wait();
                    *number = 2;
                    (entry, before)
                })
            });
            inside.arrives_unless_blocked(writer.0.pid, SHORT_TRIAL);
            judge::go_on();
            returned.arrives_unless_blocked(reader.0.pid, SHORT_TRIAL);
            leave.send();
            let read = reader.outcome();
            entered(
                writer.outcome(),
                "The grader stopped a process in get() while another one called with_lock, which",
                &format!(
                    "The grader stopped a process in get() while another one called with_lock, which never returned. \
                     {NOT_RELEASED}"
                ),
            );
            returned.take();
            check!(
                matches!(read, Outcome::Read(7 | 2)),
                "The grader stopped a process in get() while another one changed the number from 7 to 1 and then to 2 \
                 inside one with_lock. Then get() {read}; expected 7 or 2. Read the number between locking and unlocking."
            );
        }
        expect_stops(stops);
    })
}

/// The descriptor to which `handle` writes.
static HANDLED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handle(_: i32) {
    Event::send_from_handler(HANDLED.load(SeqCst));
}

#[test]
fn a_signal_does_not_end_the_wait() {
    case(|| {
        let counter = new_counter();
        let handled = Event::new();
        HANDLED.store(handled.descriptor(), SeqCst);
        let action = SigAction::new(
            SigHandler::Handler(handle),
            SaFlags::empty(),
            SigSet::empty(),
        );
        let handle_signals = || {
            // SAFETY: the handler only calls `write`.
            unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("a handler for SIGUSR1");
        };
        for call in ["with_lock", "get()"] {
            let holder = Holder::enter(&counter, |_, pause| pause());
            let waiter = match call {
                "get()" => Waiter::reads_after(handle_signals, &counter),
                _ => Waiter::adds_after(handle_signals, &counter),
            };
            check!(!waiter.passes(), "{NOT_EXCLUDED}");
            let _ = kill(waiter.caller.0.pid, Signal::SIGUSR1);
            if !handled.arrives() {
                match waiter.outcome() {
                    Outcome::Stuck | Outcome::Entered(..) | Outcome::Read(_) => fail(format!(
                        "SIGUSR1 was sent to a process that waited for the lock, and its handler never ran. Do not block \
                     signals while {call} waits."
                    )),
                    outcome => must_wait(&counter, call, &outcome),
                }
            }
            check!(
                !waiter.passes(),
                "A signal handler ran in a process that waited for the lock, and {call} got past the lock while another \
             process held it. If the wait was interrupted (EINTR), wait again."
            );
            holder.leave();
            match waiter.outcome() {
                Outcome::Entered(..) | Outcome::Read(_) => {}
                outcome @ Outcome::Stuck => must_wait(&counter, call, &outcome),
                other => fail(format!(
                    "A signal handler ran in a process that waited for the lock, and {call} {other}. If the wait was \
                 interrupted (EINTR), wait again."
                )),
            }
        }
    })
}

/// A counter that can be moved to another thread even if it is not `Sync`. The case uses it only if it is.
struct ToThread<'a>(&'a Counter);

// SAFETY: `threads_exclude_each_other` returns early unless `Counter` is `Sync`.
unsafe impl Send for ToThread<'_> {}

impl ToThread<'_> {
    fn counter(&self) -> &Counter {
        self.0
    }
}

#[test]
fn threads_exclude_each_other() {
    case(|| {
        let counter = new_counter();
        if !impls::impls!(Counter: Sync) {
            return;
        }
        let [started, inside, leave, past_the_lock] = [(); 4].map(|()| Event::new());
        let shared = ToThread(&counter);
        let process = Caller::enter(|| {
            thread::scope(|scope| {
                let entered = counter.with_lock(|number, entry| {
                    inside.send();
                    let thread = scope.spawn(|| {
                        let shared = shared;
                        started.send();
                        shared.counter().with_lock(|number, entry| {
                            past_the_lock.send();
                            *number += 1;
                            (entry, *number)
                        })
                    });
                    leave.wait();
                    *number += 1;
                    (entry, thread)
                })?;
                entered.1.join().expect("with_lock panicked in a thread")
            })
        });
        check!(
            inside.arrives() && started.arrives(),
            "with_lock never ran its closure, but nobody held the lock."
        );
        check!(
            !past_the_lock.arrives_unless_blocked(process.0.pid, TRIAL),
            "Counter is Sync, and a second thread was inside with_lock while the first one was still there. Make the \
             lock exclude threads of the same process, too, or leave out `impl Sync`."
        );
        leave.send();
        match process.outcome() {
            Outcome::Entered(Entry::Clean, 2) => {}
            Outcome::Entered(entry, number) => fail(format!(
                "Two threads added 1 to a new counter, one after the other. with_lock passed Entry::{entry:?} to the \
                 second one, which changed the number to {number}; expected Entry::Clean and 2."
            )),
            other => fail(format!(
                "Counter is Sync, and with_lock in a second thread {other}, while the first thread held the lock. \
                 Expected it to wait until the lock is released."
            )),
        }
    })
}
