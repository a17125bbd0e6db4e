//! Grades `mutex-counter`. Each stage is a module, and each test is a case.
//!
//! No case judges mutual exclusion by a sum alone: increments without a lock can add up by chance. Pipes make one
//! process wait for the lock while another holds it.
//!
//! A call that may never return is made in a forked process, so that the case can say which call it was.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use judge::{Errno, Refusal, Steps, case, check, fail, note, refusals, refuse, watch};
use mutex_counter::{Counter, Entry};
use processes::{End, Event, LONG_TRIAL, Process, SHORT_TRIAL, TRIAL, without_output};

mod death;
mod exclusion;
mod lock;
mod paths;
mod processes;

/// Returns a new counter, or fails the case.
fn new_counter() -> Counter {
    Counter::new().unwrap_or_else(|error| {
        fail(format!(
            "Counter::new() returned an error: {error}. Expected a counter."
        ))
    })
}

/// Returns the result of `f`, or fails the case if `with_lock` returned an error.
fn with_lock<R>(counter: &Counter, f: impl FnOnce(&mut u64, Entry) -> R) -> R {
    counter.with_lock(f).unwrap_or_else(|error| {
        fail(format!(
            "with_lock returned an error, but nobody held the lock: {error}."
        ))
    })
}

/// Returns the counter's value, or fails the case if `get` returned an error.
fn get(counter: &Counter) -> u64 {
    counter.get().unwrap_or_else(|error| {
        fail(format!(
            "get() returned an error, but nobody held the lock: {error}."
        ))
    })
}

/// The sentence for a call that returned another error than the one with which a call was made to fail.
fn wrong_error(error: &io::Error, refusal: Refusal, call: &str) -> String {
    let advice = match refusal.call.starts_with("pthread") {
        true => {
            "The pthread functions return their error and do not set errno: use io::Error::from_raw_os_error."
        }
        false => "Return the error of the call that failed.",
    };
    format!(
        "{call} returned the error \"{error}\"; expected {:?}. {advice}",
        refusal.errno
    )
}

/// The outcome of a call of `with_lock` or `get` in another process.
enum Outcome {
    /// `with_lock` called its closure with this entry and this value of the counter.
    Entered(Entry, u64),
    /// `get` returned this value.
    Read(u64),
    /// The call returned this error.
    Error(String),
    /// The process ended during the call. The text is the predicate of a sentence.
    Died(String),
    /// The call never returned.
    Stuck,
}

/// The outcome as the predicate of a sentence.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Outcome::Entered(entry, _) => write!(f, "passed Entry::{entry:?}"),
            Outcome::Read(number) => write!(f, "returned {number}"),
            Outcome::Error(error) => write!(f, "returned an error: {error}"),
            Outcome::Died(how) => write!(f, "did not return: its process {how}"),
            Outcome::Stuck => write!(f, "never returned"),
        }
    }
}

/// A forked process that makes one call of `with_lock` or `get`.
struct Caller(Process);

impl Caller {
    /// Forks a process that makes the call `f`, which returns what `with_lock` passed to its closure.
    fn enter(f: impl FnOnce() -> io::Result<(Entry, u64)>) -> Caller {
        Caller(Process::fork(|| report(f())))
    }

    /// Forks a process that makes the call `f`, which returns what `get` returned.
    fn read(f: impl FnOnce() -> io::Result<u64>) -> Caller {
        Caller(Process::fork(|| match f() {
            Ok(number) => format!("{READ}{number}"),
            Err(error) => format!("{ERROR}{error}"),
        }))
    }

    /// Waits for the end of the call. Kills the process if the call can no longer end.
    fn outcome(self) -> Outcome {
        let report = match self.0.end() {
            End::Reported(report) => report,
            End::Died(how) => return Outcome::Died(how),
            End::Stuck => return Outcome::Stuck,
        };
        let number = |tag| report.strip_prefix(tag)?.parse().ok();
        let error = report.strip_prefix(ERROR).unwrap_or(&report);
        let entered = number(CLEAN).map(|number| Outcome::Entered(Entry::Clean, number));
        entered
            .or_else(|| Some(Outcome::Entered(Entry::OwnerDied, number(OWNER_DIED)?)))
            .or_else(|| Some(Outcome::Read(number(READ)?)))
            .unwrap_or_else(|| Outcome::Error(error.to_owned()))
    }
}

/// The report of a process that called `with_lock`.
fn report(result: io::Result<(Entry, u64)>) -> String {
    match result {
        Ok((Entry::Clean, number)) => format!("{CLEAN}{number}"),
        Ok((Entry::OwnerDied, number)) => format!("{OWNER_DIED}{number}"),
        Err(error) => format!("{ERROR}{error}"),
    }
}

const CLEAN: &str = "clean ";
const OWNER_DIED: &str = "owner died ";
const READ: &str = "read ";
const ERROR: &str = "error ";

/// Adds 1 under the lock, and returns what `with_lock` passed to its closure.
fn add_one(counter: &Counter) -> io::Result<(Entry, u64)> {
    counter.with_lock(|number, entry| {
        let before = *number;
        *number = before.wrapping_add(1);
        (entry, before)
    })
}

/// Adds 1 under the lock in another process.
fn add_one_elsewhere(counter: &Counter) -> Outcome {
    Caller::enter(|| add_one(counter)).outcome()
}

/// Returns what `with_lock` passed to its closure, or fails the case. `call` is the subject of the sentence, and `never`
/// the whole sentence if the call never returned.
fn entered(outcome: Outcome, call: &str, never: &str) -> (Entry, u64) {
    entered_or(outcome, call, never, "Expected it to run its closure.")
}

/// As `entered`. `advice` ends the sentence if the call returned an error or its process ended.
fn entered_or(outcome: Outcome, call: &str, never: &str, advice: &str) -> (Entry, u64) {
    match outcome {
        Outcome::Entered(entry, number) => (entry, number),
        Outcome::Stuck => fail(never.to_owned()),
        other => fail(format!("{call} {other}. {advice}")),
    }
}

/// Calls `f` in a destructor while this thread panics, and catches the panic.
fn during_a_panic<R>(f: impl FnOnce() -> R) -> R {
    struct Calls<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Calls<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let (mut f, mut result) = (Some(f), None);
    let _ = panic::catch_unwind(AssertUnwindSafe(|| {
        let _calls = Calls(|| result = f.take().map(|f| f()));
        panic::resume_unwind(Box::new(()));
    }));
    result.expect("a destructor runs during a panic")
}

/// Calls `f` in a new thread. A panic goes on in this one.
fn in_a_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let joined = scope.spawn(f).join();
        joined.unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// A forked process that is inside `with_lock` until it is told to leave.
struct Holder {
    process: Process,
    leave: Event,
}

impl Holder {
    /// Forks a process that calls `with_lock`, and returns once it is inside. `hold` runs there. Its second argument
    /// returns when the process may leave.
    fn enter(counter: &Counter, hold: impl FnOnce(&mut u64, &dyn Fn())) -> Holder {
        Holder::enter_and_call(counter, "a second call that it made there", hold)
    }

    /// Like `enter`. `second` is what `hold` calls before the process is inside, the subject of a sentence.
    fn enter_and_call(
        counter: &Counter,
        second: &str,
        hold: impl FnOnce(&mut u64, &dyn Fn()),
    ) -> Holder {
        let [entered, inside, leave] = [(); 3].map(|()| Event::new());
        let caller = Caller::enter(|| {
            counter.with_lock(|number, entry| {
                let before = *number;
                entered.send();
                hold(number, &|| {
                    inside.send();
                    leave.wait();
                });
                (entry, before)
            })
        });
        if !inside.arrives() {
            fail(match (entered.has_arrived(), caller.outcome()) {
                (true, Outcome::Entered(..)) => {
                    format!("A process was inside with_lock, and {second} did not run its closure.")
                }
                (true, outcome) => {
                    format!("A process was inside with_lock, and {second} {outcome}.")
                }
                (false, outcome) => format!(
                    "with_lock in another process {outcome}, but nobody held the lock. Expected it to run its closure."
                ),
            });
        }
        Holder {
            process: caller.0,
            leave,
        }
    }

    /// Lets the process leave the closure, and waits for its end.
    fn leave(self) {
        self.leave.send();
        match Caller(self.process).outcome() {
            Outcome::Entered(..) => {}
            other => fail(format!(
                "The closure returned in a process, and then with_lock {other}. Expected it to release the lock and \
                 return."
            )),
        }
    }

    /// Kills the process inside `with_lock`.
    fn kill(self) {
        self.process.kill();
    }
}

/// A forked process that waits for a lock that another one holds.
struct Waiter {
    caller: Caller,
    past_the_lock: Event,
}

impl Waiter {
    /// Forks a process that adds 1 under the lock.
    fn adds(counter: &Counter) -> Waiter {
        Waiter::adds_after(|| (), counter)
    }

    /// Forks a process that calls `prepare`, and then adds 1 under the lock.
    fn adds_after(prepare: impl FnOnce(), counter: &Counter) -> Waiter {
        let started = Event::new();
        let prepare = || {
            prepare();
            started.send();
        };
        let waiter = Waiter::adds_later(prepare, counter);
        started.wait();
        waiter
    }

    /// As `adds_after`, but returns without waiting for `prepare`.
    fn adds_later(prepare: impl FnOnce(), counter: &Counter) -> Waiter {
        let past_the_lock = Event::new();
        let caller = Caller::enter(|| {
            prepare();
            counter.with_lock(|number, entry| {
                past_the_lock.send();
                let before = *number;
                *number = before.wrapping_add(1);
                (entry, before)
            })
        });
        Waiter {
            caller,
            past_the_lock,
        }
    }

    /// Forks a process that calls `get`.
    fn reads(counter: &Counter) -> Waiter {
        Waiter::reads_after(|| (), counter)
    }

    /// Forks a process that calls `prepare`, and then `get`.
    fn reads_after(prepare: impl FnOnce(), counter: &Counter) -> Waiter {
        let [started, past_the_lock] = [(); 2].map(|()| Event::new());
        let caller = Caller::read(|| {
            prepare();
            started.send();
            let number = counter.get()?;
            past_the_lock.send();
            Ok(number)
        });
        started.wait();
        Waiter {
            caller,
            past_the_lock,
        }
    }

    /// Whether the process got past the lock, although another one holds it.
    fn passes(&self) -> bool {
        self.passes_within(TRIAL)
    }

    /// As `passes`. `trial` is how long a process that polls may do so.
    fn passes_within(&self, trial: Duration) -> bool {
        let process = self.caller.0.pid;
        self.past_the_lock.arrives_unless_blocked(process, trial)
    }

    /// Waits for the end of the call.
    fn outcome(self) -> Outcome {
        self.caller.outcome()
    }
}

/// Waits for a process that finds the places of its code.
fn find_places(process: Process) {
    match process.end_within(Duration::from_secs(40)) {
        End::Reported(_) => {}
        End::Died(how) => fail(format!(
            "with_lock or get() did not return: its process {how}. Nobody held the lock; expected it to return."
        )),
        // Otherwise places could be missing, and the case would pass without them.
        End::Stuck => judge::skip("with_lock or get() did not return within 40 s of single steps"),
    }
}

/// Stops a process at each place of `with_lock` while another one calls `with_lock` and, if it gets in, stays inside.
/// Then the first one goes on, and must wait. `prepare` runs before each place. `mistake` gets what was passed to both, and
/// whether the closure of the first one had run before the second one called `with_lock`. It returns a sentence, if that
/// is wrong.
fn beside_each_place(
    counter: &Counter,
    prepare: impl Fn(),
    mistake: impl Fn([Entry; 2], bool) -> Option<String>,
) {
    let [begun, inside, leave] = [(); 3].map(|()| Event::new());
    let steps = Steps::of(&(), || {
        report(counter.with_lock(|number, entry| {
            begun.send();
            *number = number.wrapping_add(1);
            (entry, *number)
        }))
    });
    // The first call of a function in libc executes the dynamic linker.
    let _ = add_one(counter);
    prepare();
    find_places(Process::fork(|| steps.find()));
    begun.take();
    // `None` if the process did not stop there.
    let at = |place| {
        let passed = |outcome| {
            let call = "The grader stopped a process in with_lock while another one called with_lock, which";
            entered(
                outcome,
                call,
                &format!("{call} never returned. {NOT_RELEASED}"),
            )
            .0
        };
        passed(add_one_elsewhere(counter));
        prepare();
        let first = Caller(Process::fork(|| steps.stop_at(place)));
        if !judge::until_stopped() {
            let call = "with_lock in another process";
            entered(
                first.outcome(),
                call,
                &format!("{call} never returned. {NOT_RELEASED}"),
            );
            begun.take();
            return None;
        }
        let has_begun = begun.take();
        let second = Caller::enter(|| {
            counter.with_lock(|number, entry| {
                inside.send();
                leave.wait();
                *number = number.wrapping_add(1);
                (entry, *number)
            })
        });
        let is_inside = inside.arrives_unless_blocked(second.0.pid, SHORT_TRIAL);
        judge::go_on();
        let both =
            is_inside && !has_begun && begun.arrives_unless_blocked(first.0.pid, SHORT_TRIAL);
        leave.send();
        check!(
            !both,
            "The grader stopped a process in with_lock, before its closure ran, and another process ran its closure. \
             Then the first one went on, and both were inside. Test and take the lock in one atomic step."
        );
        let both = [first, second].map(|caller| passed(caller.outcome()));
        let _ = [begun.take(), inside.take()];
        Some((both, has_begun))
    };
    let mut stops = 0;
    for place in 0..judge::places() {
        let Some((both, has_run)) = at(place) else {
            continue;
        };
        stops += 1;
        let Some(sentence) = mistake(both, has_run) else {
            continue;
        };
        // What is cleared after the unlock is noticed at the places after the closure each time, and here by chance.
        let after_the_closure = (place + 1..judge::places())
            .rev()
            .filter_map(&at)
            .take_while(|(_, has_run)| *has_run)
            .find_map(|(both, has_run)| mistake(both, has_run));
        fail(after_the_closure.unwrap_or(sentence));
    }
    expect_stops(stops);
}

/// The number of times that `waits_repeatedly` waits.
const TIMES: usize = 3;

/// Makes one process wait for the lock several times. Fails the case if that leaves anything in the process.
///
/// `ends` ends each wait: it lets the holder leave, or kills it.
fn waits_repeatedly(counter: &Counter, call: &str, ends: fn(Holder)) {
    let [go_on, returned] = [(); 2].map(|()| Event::new());
    let process = Process::fork(|| {
        judge::rebase_state();
        let mut open = Vec::new();
        for _ in 0..TIMES {
            go_on.wait();
            let result = match call {
                "get()" => counter.get().map(drop),
                _ => counter.with_lock(|_, _| ()),
            };
            if let Err(error) = result {
                return format!(
                    "{call} in one process returned an error: {error}, while another process held the lock. Expected \
                     it to wait until the lock is released."
                );
            }
            returned.send();
            open.push(processes::open_descriptors());
        }
        // A process may keep a descriptor, but not one more each time.
        let open: Option<Vec<_>> = open.into_iter().collect();
        match open {
            None => format!(
                "{call} waited for the lock, and left so many descriptors open that the process cannot open another \
                 one. Close them on every path."
            ),
            Some(open) if open.is_sorted_by(|earlier, later| earlier < later) => format!(
                "{call} waited for the lock {TIMES} times in one process, and each time left a descriptor open. \
                 Close it on every path."
            ),
            Some(_) => judge::change_in_child().unwrap_or_default(),
        }
    });
    for _ in 0..TIMES {
        let holder = Holder::enter(counter, |_, pause| pause());
        go_on.send();
        let passed = returned.arrives_unless_blocked(process.pid, TRIAL);
        check!(!passed, "{NOT_EXCLUDED}");
        ends(holder);
        if !returned.arrives() {
            break;
        }
    }
    match process.end() {
        End::Reported(left) => check!(left.is_empty(), "{left}"),
        End::Died(how) => exclusion::must_wait(counter, call, &Outcome::Died(how)),
        End::Stuck => exclusion::must_wait(counter, call, &Outcome::Stuck),
    }
}

/// Skips the case if code has reached less than half of its places.
fn expect_stops(stops: usize) {
    if 2 * stops < judge::places() {
        judge::skip(
            "with_lock or get() executes other instructions each time, so it cannot be stopped where it was",
        );
    }
}

/// The sentence for a process that waited for the lock, and never returned after another one had released it. `held` is
/// the sentence if the lock is not free.
fn never_woken(counter: &Counter, call: &str, held: &str) -> String {
    match add_one_elsewhere(counter) {
        Outcome::Entered(..) => format!(
            "{call} in one process waited for the lock, and never returned after another process had released it: the \
             lock is free, but the waiter was not woken. Make the lock process-shared (for a mutex, \
             PTHREAD_PROCESS_SHARED)."
        ),
        _ => held.to_owned(),
    }
}

const NOT_RELEASED: &str = "with_lock returned in one process, but no other process can lock the counter any more. \
                            Release the lock when the closure has returned.";

const NOT_EXCLUDED: &str = "A second process was inside with_lock while the first one was still there. All processes \
                            must take the same lock, which is initialised once, in Counter::new.";

judge::answer!();

judge::compile_fail! {
    exclusion: returned, kept_outside
}
