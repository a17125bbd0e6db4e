//! Runs one case in a watched child process and explains the outcome in one sentence.
//!
//! ```ignore
//! #[test]
//! fn zeroed() {
//!     judge::case(|| {
//!         let region = Region::new(100).unwrap();
//!         judge::check!(region.as_slice()[0] == 0, "Fresh memory must read as zero.");
//!     })
//! }
//! ```
//!
//! The test runs again in another process of the test binary. There the closure runs traced, with resource limits, and
//! alone. Processes that it leaves running are killed. The result is a closed `Verdict` and one plain sentence.
//!
//! That process is forked by the zygote: the test binary is started once more, and waits before `main`. Without a tracer,
//! the binary is started for each case.
//!
//! # What it guards against
//! Mistakes of an honest learner, however bad: a crash, an endless loop, a deadlock, `exit()` in the middle, a
//! forked child that returns from the function, a zombie, a process left running, a panic that a joined thread
//! swallows, closed descriptors, a flood of output, a memory hog, a fork bomb, a signal to a process that the answer did
//! not start. None of them stops the other cases, passes, or outlives its case. After a body that returned, the state
//! of its process must be what it was before: signals, timers, threads, limits, environment, the panic hook and more.
//!
//! A case has a session of its own and inherits no descriptor, variable or capability with which it could reach the
//! judge. Seccomp filters refuse ptrace, other namespaces, and signals to processes outside of the case. System V
//! objects, POSIX queues and files in /dev/shm that a case creates are removed after it; one that its first process has
//! left fails the case. Output is shown with its control characters made visible.
//!
//! A fault of the judge, its limits or the machine is "could not grade", and never a verdict.
//!
//! # What it does not guard against
//! An answer that lies can still
//! - run code while it is compiled, in a build script or a procedural macro;
//! - run code before `main` in the judge's own process, where no limit applies: it can write verdicts, with the key of
//!   the report, and signal any process. The command only notices that a grader ends or hangs;
//! - report a pass from inside a case: it runs in the process that reports, and can find the secret in its memory, or
//!   replace a function with which the report is written;
//! - write and delete files, use the network, and fill a disk: a case may do whatever its user may. It can also pass
//!   memory on where the judge does not look, such as a descriptor in the queue of a socket;
//! - as root, do what the remaining capabilities permit.
//!
//! Plain `cargo test` names code before `main` that does not end, crashes, or calls exit(3) or _exit(2). Other ends, such as
//! a signal from `kill`, are reported by cargo and by the command. `cargo test -p EXERCISE FILTER` also runs the library's
//! own test binary, which has no judge; `cargo test -p EXERCISE -- FILTER` does not.
//!
//! On a kernel without seccomp notifications, or in a sandbox that refuses them, signals are refused only if they name
//! the judge, its parent, their groups, or everything. If ptrace is refused as well, a fork bomb run by root is only
//! noticed every 20 ms, and objects may be left.
//!
//! Grade strangers' code with `workbook class`, in a sandbox. There, the judge is another binary than the answer's
//! (`JUDGE_PROGRAM`), so that code before `main` runs in no process of the judge.
//!
//! # Environment
//! `JUDGE_REPORT=file` appends one JSON line per case. With `JUDGE_REPORT_KEY=text` each line carries that text as its
//! `key`. Cases see no variable of this kind. `JUDGE_INLINE=1` runs a case in the test's own process, for a
//! debugger. `JUDGE_PROGRAM=file` runs the cases of that test binary, a build of the same grader with another answer. Then
//! the judge has no code of that answer in its process. `JUDGE_NO_PTRACE=1` disables tracing, as if ptrace were not
//! permitted. `JUDGE_CHECK_ANSWER=1` ends a grader with status 96 if it was built from another version of the answer.
//!
//! # Modules
//! - `case` grades one case, `compile_fail` the code that must not compile. `answer` detects a grader that was built from
//!   other sources and reads the answer's text, `before_main` detects code of the answer that does not reach `main`.
//!   `role` decides whether this process is the judge or the child.
//! - `supervise` is the judge's side: it starts the child, traces it, watches its `limits` and kills what it leaves,
//!   with the help of `procfs`.
//! - `child` is the child's side: it runs the body and reports to the judge. The graders' `probe`s and `pretend` work
//!   there. `child::zygote` waits before `main`, and `child::steps` stops code where it changes shared memory. `protocol`
//!   defines the messages between the two sides, and `descriptors` passes open files.
//! - `injection` plans which calls fail, one in each run of a case.
//! - `record` holds what the tracer saw: address spaces, calls, the ledger, the transcript. `seen` compares it with the
//!   snapshots of the grader.
//! - `verdict` derives the verdict from the evidence, phrases its sentence and reports it. `format` formats sizes and
//!   signals, and `visible` prepares texts for display.
//! - `secret` is what a case shares with its judge only. `cloned` and `shown` copy and format values whose types may not
//!   permit it.

#[cfg(not(target_os = "linux"))]
compile_error!("the judge needs Linux: open the dev container in .devcontainer, or use WSL2");

pub mod answer;
pub mod before_main;
mod case;
mod child;
#[doc(hidden)]
pub mod cloned;
pub mod compile_fail;
mod descriptors;
mod format;
mod injection;
mod limits;
mod procfs;
mod protocol;
mod record;
mod role;
mod secret;
mod seen;
#[doc(hidden)]
pub mod shown;
mod supervise;
mod verdict;
mod visible;

use std::panic;

pub use child::neighbours::{Neighbours, Spacer};
pub use child::panics::{expect_panics, failed_check, panic_message, skip};
pub use child::steps::{Steps, go_on, places, until_stopped};
pub use child::window::refuse;
pub use child::{change_in_child, in_child, note, pretend, probe, rebase_state, watch};
pub use injection::Refusal;
pub use limits::Limits;
pub use nix::errno::Errno;
pub use record::call::Call;
pub use seen::Seen;
pub use verdict::report::Outcome;

use case::once;

/// Grades `body`, the whole of a `#[test]`.
///
/// # Panics
/// If the case did not pass. The reason has been printed by then.
pub fn case(body: impl FnOnce()) {
    case::settle(&[], &mut once(|_| body()), None);
}

/// Like `case`, with other limits.
///
/// # Panics
/// If the case did not pass. The reason has been printed by then.
pub fn case_with(limits: Limits, body: impl FnOnce()) {
    case::settle_within(&limits, &[], &mut once(|_| body()), None);
}

/// Grades `body` and, if it passes, what the kernel saw of its `watch`ed part. `check` runs in the judge.
///
/// If the calls cannot be seen, the case is skipped, visibly.
///
/// # Panics
/// If the case did not pass. The reason has been printed by then.
pub fn watched(body: impl FnOnce(), check: impl Fn(&Seen)) {
    case::settle(&[], &mut once(|_| body()), Some(&check));
}

/// Like `watched`, with other limits.
///
/// # Panics
/// If the case did not pass. The reason has been printed by then.
pub fn watched_with(limits: Limits, body: impl FnOnce(), check: impl Fn(&Seen)) {
    case::settle_within(&limits, &[], &mut once(|_| body()), Some(&check));
}

/// Grades `body` as `watched` does, and then once more for each call in the window of `refuse` that `plan` names, with
/// that call made to fail, and once with all calls of that name made to fail. `body` gets the refusal; `None` in the first
/// run.
///
/// The plan pairs calls with errors that their manual pages list. A call has the name of the kernel's manual page (`mmap`,
/// `wait4`, `fork`; `clone` starts a thread), or of a `pthread_mutex` function. Only calls of the answer fail: those of
/// libc's malloc, for example, do not. A plan that names a call several times tries several errors. `open` fails only with
/// O_CREAT, as in shm_open(3). If its error is EEXIST, the judge creates the file in /dev/shm first, with contents, and
/// then executes the call: without O_EXCL it succeeds. The same holds for `shmget` with a key.
///
/// # Panics
/// If the case did not pass. The reason has been printed by then.
pub fn refusals(
    plan: &[(&'static str, Errno)],
    body: impl FnOnce(Option<Refusal>),
    check: impl Fn(&Seen),
) {
    case::settle(plan, &mut once(body), Some(&check));
}

/// Runs `body` as a case and returns its result, for the judge's own tests.
pub fn observe(limits: Limits, body: impl FnOnce()) -> Outcome {
    case::observe(&limits, &[], &mut once(|_| body()), None)
}

/// Like `observe`, for a case that `watched` would grade.
pub fn observe_watched(body: impl FnOnce(), check: impl Fn(&Seen)) -> Outcome {
    case::observe(&Limits::default(), &[], &mut once(|_| body()), Some(&check))
}

/// Like `observe`, for a case that `refusals` would grade.
pub fn observe_refusals(
    plan: &[(&'static str, Errno)],
    body: impl FnOnce(Option<Refusal>),
    check: impl Fn(&Seen),
) -> Outcome {
    case::observe(&Limits::default(), plan, &mut once(body), Some(&check))
}

/// The grader's assertion: if the condition is false, the case fails with this sentence.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            $crate::fail(format!($($sentence)+));
        }
    };
}

/// `bytes` in the largest unit that divides them, as sentences name them: `512 KiB`, `5000 bytes`.
pub fn amount(bytes: usize) -> String {
    format::size(bytes as u64)
}

/// `number` with its noun: `1 page fault`, `2 page faults`.
pub fn count(number: usize, noun: &str) -> String {
    format::count(number, noun)
}

/// Fails the case with this sentence.
///
/// # Panics
/// Always: that is how it ends the case.
pub fn fail(sentence: String) -> ! {
    panic::panic_any(child::panics::CheckFailed(sentence))
}
