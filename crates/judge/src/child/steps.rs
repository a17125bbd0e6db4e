//! Stops a thread or a process at each place where it changes what others can see.
//!
//! A lock, a counter or a list is shared memory that several threads change in several steps. What another thread, or the
//! death of this one, can do between two steps is decided in a window of a few instructions. No amount of repetition
//! finds such a window for certain. Here the tracer executes the code instruction by instruction, notes each one that
//! changes the shared memory, and stops the code just before it or just after it.
//!
//! ```ignore
//! let steps = Steps::of(&counter, || counter.get());
//! steps.find();
//! for place in 0..judge::places() {
//!     let child = fork(|| steps.stop_at(place));
//!     if judge::until_stopped() {
//!         // The child is in the middle of `get`. Do what others could do now, and kill it, or let it go on.
//!         judge::go_on();
//!     }
//! }
//! ```

use std::panic;
use std::ptr::from_ref;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};

use super::panics;
use super::window::{mark, mark_memory};
use crate::procfs;
use crate::protocol::{GIVE_UP, Mark, NO_PLACE};

/// Why a case is skipped that needs steps.
const WITHOUT_PTRACE: &str =
    "the code cannot be executed step by step, because ptrace is refused here";
const WITHOUT_ATOMICS: &str = "the code cannot be executed step by step: this processor has no atomic instructions, \
                               only exclusive loads and stores (Armv8.0)";
const TOO_LONG: &str = "the code executes more than 100,000 instructions, or changes shared memory and makes system \
                        calls more than 500 times: it cannot be stopped each time";

const WITH_TRAPS: &str = "the code cannot be executed step by step, because it uses SIGTRAP or saves the processor's \
                          flags (pushf)";

/// The answers of the tracer to `Mark::Places` if the code cannot be executed step by step.
pub const REFUSED: i32 = -1;
pub const EXCLUSIVE: i32 = 0;
pub const TOO_MANY: i32 = i32::MAX;
pub const TRAPS: i32 = i32::MAX - 1;

/// Code that is executed instruction by instruction.
///
/// Its places are just before and just after the instructions that change `state`, the program's statics, or memory that
/// the process shares with others, and around its system calls, but not inside of `fork`. One run finds them, and later runs stop at one of them, in
/// threads or in forked processes.
pub struct Steps<'a, T, F> {
    state: &'a T,
    code: F,
}

impl<'a, T, R, F: Fn() -> R> Steps<'a, T, F> {
    /// `code`, which changes `state`. In a case about processes that may be `&()`.
    pub fn of(state: &'a T, code: F) -> Steps<'a, T, F> {
        Steps { state, code }
    }

    /// Runs the code in this thread, and finds its places.
    pub fn find(&self) -> R {
        self.run(NO_PLACE)
    }

    /// Runs the code in this thread. It stops at the place with this number until `go_on`.
    pub fn stop_at(&self, place: usize) -> R {
        self.run(place)
    }

    /// Runs the code up to the place with this number in a thread, then `second` in another one, and then the rest of the
    /// code. If `second` waits for the code, for a lock that it holds for example, or takes long, the code goes on
    /// meanwhile.
    ///
    /// # Panics
    /// If the code or `second` panics.
    pub fn beside<B: Send>(&self, place: usize, second: impl FnOnce() -> B + Send) -> (R, B)
    where
        Self: Sync,
        R: Send,
    {
        let (mut first, mut rest) = (None, None);
        let mut second = Some(second);
        beside(&mut || first = Some(self.stop_at(place)), &mut || {
            rest = second.take().map(|second| second())
        });
        first.zip(rest).expect("both have ended")
    }

    /// As `find`, in a new thread.
    ///
    /// # Panics
    /// If the code panics.
    pub fn find_in_thread(&self) -> R
    where
        Self: Sync,
        R: Send,
    {
        let mut found = None;
        in_thread(&mut || found = Some(self.find()));
        found.expect("it has ended")
    }

    fn run(&self, place: usize) -> R {
        /// Ends the steps, also if the code panics.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                mark_memory(Mark::StepsEnd, 0, &[]);
            }
        }
        let start = from_ref(self.state).addr();
        let _end = End;
        mark_memory(Mark::Steps, place, &[start, start + size_of::<T>()]);
        self.call()
    }

    /// A place is the address of an instruction, so all runs must execute the same copy of the code.
    #[inline(never)]
    fn call(&self) -> R {
        (self.code)()
    }
}

/// Runs `code` in a thread, and `second` in another one once the first is stopped. The parameters are not generic, so that
/// the compiler does not compile the threads again for each case.
fn beside(code: &mut (dyn FnMut() + Send), second: &mut (dyn FnMut() + Send)) {
    thread::scope(|scope| {
        let first = scope.spawn(code);
        until_stopped();
        let (sender, receiver) = mpsc::channel();
        let second = scope.spawn(move || {
            let _ = sender.send(gettid());
            second();
        });
        if let Ok(tid) = receiver.recv() {
            wait_while_it_runs(tid, || second.is_finished());
        }
        go_on();
        join(first);
        join(second);
    });
}

/// Runs `code` in a new thread.
fn in_thread(code: &mut (dyn FnMut() + Send)) {
    thread::scope(|scope| join(scope.spawn(code)));
}

/// Runs `f`. If the thread is executed step by step, there are no places in `f`.
pub fn pass<R>(f: impl FnOnce() -> R) -> R {
    mark(Mark::Pass, 1);
    let result = f();
    mark(Mark::Pass, 0);
    result
}

/// Panics if the thread has panicked.
fn join(thread: ScopedJoinHandle<()>) {
    thread
        .join()
        .unwrap_or_else(|payload| panic::resume_unwind(payload));
}

/// How much processor time the second thread of `beside` may use before the first one goes on.
const MOST_CPU_TIME: Duration = Duration::from_millis(20);
/// How much it may use after it has used `MOST_CPU_TIME` at this many places of the case. A thread that spins until a lock
/// is free does so at each place where the lock is held, and 500 such places would take most of the case's time.
const MOST_CPU_TIME_LATER: Duration = Duration::from_millis(2);
const SPINNING_PLACES: u32 = 50;
/// How long it may take in all.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Waits until the thread `tid` has finished, waits for something, or has run for a while.
fn wait_while_it_runs(tid: Pid, is_finished: impl Fn() -> bool) {
    static SPUN: AtomicU32 = AtomicU32::new(0);
    let most_cpu_time = if SPUN.load(Relaxed) < SPINNING_PLACES {
        MOST_CPU_TIME
    } else {
        MOST_CPU_TIME_LATER
    };
    let tid = tid.as_raw();
    let begun = Instant::now();
    let mut asleep = 0;
    while !is_finished() && asleep < 2 {
        if procfs::ran(tid) >= most_cpu_time {
            SPUN.fetch_add(1, Relaxed);
            return;
        }
        if begun.elapsed() >= MOST_TIME {
            return;
        }
        asleep = match procfs::sleeps(tid) {
            Some(true) => asleep + 1,
            _ => 0,
        };
        thread::sleep(Duration::from_micros(200));
    }
}

/// The number of places that the last `Steps::find` has found, in this process or another one of the case.
///
/// # Panics
/// If the code cannot be executed step by step. That ends the case as skipped.
pub fn places() -> usize {
    match mark_memory(Mark::Places, 0, &[]) {
        EXCLUSIVE => panics::skip(WITHOUT_ATOMICS),
        TOO_MANY => panics::skip(TOO_LONG),
        TRAPS => panics::skip(WITH_TRAPS),
        ..=REFUSED => panics::skip(WITHOUT_PTRACE),
        // The tracer adds one, because a mark cannot return zero.
        number => number as usize - 1,
    }
}

/// Waits until a thread is stopped in `stop_at`. Returns false if it has left `stop_at` without reaching its place, if it
/// has ended, or if it waits for something that only another task can end. After that, it no longer stops.
pub fn until_stopped() -> bool {
    let mut pause = SHORTEST_PAUSE;
    let mut last = None;
    let mut waits_since = Instant::now();
    loop {
        let tid = match mark_memory(Mark::HasStopped, 0, &[]) {
            STOPPED => return true,
            ..=0 => return false,
            awaited => awaited - AWAITED,
        };
        let wait = procfs::waits_for_another(tid).then(|| procfs::context_switches(tid));
        if wait.is_none() || wait != last {
            waits_since = Instant::now();
        } else if waits_since.elapsed() >= LONG_WAIT {
            mark_memory(Mark::HasStopped, GIVE_UP, &[]);
            return false;
        }
        last = wait;
        thread::sleep(pause);
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// The pauses of `until_stopped`. Most threads reach their place after a few instructions.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
/// How long a thread may wait for another one before it is not awaited any more.
const LONG_WAIT: Duration = Duration::from_millis(100);

// The answers of the tracer to `Mark::HasStopped`. Without a tracer it is below 0, and 0 if the thread will not stop.
/// The thread is stopped.
pub const STOPPED: i32 = 1;
/// The thread may still stop. Its id is added, if it has begun.
pub const AWAITED: i32 = 2;

/// Lets the thread go on that is stopped in `stop_at`, without steps.
pub fn go_on() {
    mark_memory(Mark::GoOn, 0, &[]);
}
