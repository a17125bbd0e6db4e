//! Stage 3: child exit and waitpid.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::panic;
use std::process;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Duration;

use judge::in_child;
use judge::probe::changes;
use nix::libc;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

use nix::unistd::getpgrp;

use super::shared::Size;
use super::*;

/// The index of the last number.
const LAST: usize = size_of::<Numbers>() / size_of::<AtomicU64>() - 1;

/// Calls the answer's `run_child`.
fn run(numbers: &Shared<Numbers>, f: impl FnOnce(&Numbers)) -> io::Result<()> {
    // SAFETY: the only other thread is libtest's main thread, which holds no lock while it waits for the case.
    unsafe { numbers.run_child(f) }
}

/// A new value that is the same in a child. Otherwise the checks of what a closure has noted there would blame something
/// else.
fn shared_numbers() -> Shared<Numbers> {
    let numbers = new!(Numbers);
    in_child(|| {
        numbers[0].store(1, SeqCst);
        0
    });
    check!(
        numbers[0].swap(0, SeqCst) == 1,
        "A child wrote to a value of 512 KiB, and its parent does not see it. Map the value with MAP_SHARED before the \
         fork."
    );
    numbers
}

fn expect_success(result: io::Result<()>) {
    if let Err(error) = result {
        judge::fail(format!(
            "The closure returned in the child, and run_child returned the error \"{error}\"; expected Ok."
        ));
    }
}

/// Fails the case unless `run_child` returned an error whose message says how the child ended, with one of these texts,
/// and nothing else.
fn expect_reported(result: io::Result<()>, how: &str, texts: &[&str]) {
    let advice = match texts {
        ["panicked"] => "Catch the panic in the child, and end the child with status 101.",
        _ => "Take the wait status apart with WIFEXITED, WEXITSTATUS, WIFSIGNALED and WTERMSIG.",
    };
    let message = match result {
        Ok(()) => judge::fail(format!(
            "The child {how}, and run_child returned Ok; expected an error with `{}`. {advice}",
            texts[0]
        )),
        Err(error) => error.to_string(),
    };
    check!(
        texts.iter().any(|text| says(&message, text)),
        "The child {how}, and the message of run_child's error is \"{message}\"; expected it to contain `{}`. {advice}",
        texts[0]
    );
    // What waitpid stored is no exit status.
    let rest = message.replace("wait status ", "");
    let says_number = |word| (0..=255).any(|number| says(&rest, &format!("{word} {number}")));
    let said = [
        ("signal", says_number("signal")),
        ("status", says_number("status")),
        ("panicked", rest.contains("panicked")),
    ];
    // A panic may also be reported with its status.
    let is_panics =
        |word: &str| word == "status" && texts == ["panicked"] && says(&message, "status 101");
    let expected = |word: &str| texts.iter().any(|text| text.starts_with(word)) || is_panics(word);
    if let Some((word, _)) = said.iter().find(|(word, said)| *said && !expected(word)) {
        judge::fail(format!(
            "The child {how}, and the message of run_child's error is \"{message}\"; expected nothing about `{word}`. {advice} The \
             whole value of waitpid may be in the message as `wait status`."
        ));
    }
}

/// Whether the result is an error whose message contains the text, or Ok if the text is empty.
fn is_reported(result: &io::Result<()>, text: &str) -> bool {
    match result {
        Ok(()) => text.is_empty(),
        Err(error) => !text.is_empty() && says(&error.to_string(), text),
    }
}

/// What `is_reported` expects, in words.
fn wanted(text: &str) -> String {
    match text {
        "" => "Ok(())".to_owned(),
        text => format!("an error with `{text}`"),
    }
}

/// Whether the message contains the text, not followed by another digit, or by the rest of a hexadecimal number.
fn says(message: &str, text: &str) -> bool {
    message.match_indices(text).any(|(at, _)| {
        let rest = &message[at + text.len()..];
        !rest.starts_with(|next: char| next.is_ascii_alphanumeric())
    })
}

/// Private memory, of which a child has a copy.
static CALLS: AtomicU32 = AtomicU32::new(0);

#[test]
fn its_writes_arrive() {
    case(|| {
        let numbers = shared_numbers();
        numbers[1].store(5, SeqCst);
        let parent = process::id();
        let address = (&raw const *numbers).addr();
        let on_the_stack = Cell::new(0);
        for turn in 1..4 {
            expect_success(run(&numbers, |numbers| {
                CALLS.fetch_add(1, SeqCst);
                on_the_stack.set(1);
                numbers[0].store(process::id().into(), SeqCst);
                numbers[1].fetch_add(1, SeqCst);
                numbers[2].store((&raw const *numbers).addr() as u64, SeqCst);
                // SAFETY: getppid(2) accesses no memory.
                numbers[3].store(unsafe { libc::getppid() } as u64, SeqCst);
                numbers[LAST].store(turn, SeqCst);
            }));
            check!(
                numbers[LAST].load(SeqCst) == turn,
                "run_child returned, but the last write of its closure has not arrived. Wait until the child has \
                 ended."
            );
            check!(
                numbers[0].load(SeqCst) != u64::from(parent),
                "The closure ran in the parent. Run it only in a forked child."
            );
            check!(
                CALLS.load(SeqCst) == 0 && on_the_stack.get() == 0,
                "The closure changed a variable in private memory, and the caller sees the change. Run the closure in \
                 a child made by fork, not in a thread or after vfork."
            );
            let count = numbers[1].load(SeqCst);
            check!(
                count == 5 + turn,
                "A number in the shared value was 5, and {turn} children incremented it once each; now it is {count}. \
                 Pass the closure the shared value, and call it once."
            );
            check!(
                numbers[2].load(SeqCst) == address as u64,
                "The value that the closure got has another address than the parent's value. Pass the closure the \
                 shared value itself."
            );
            check!(
                numbers[3].load(SeqCst) == u64::from(parent),
                "The parent of the closure's process is not the caller. Fork once, and run the closure in that child."
            );
        }
    })
}

#[test]
fn ignores_an_earlier_errno() {
    case(|| {
        let numbers = new!(Numbers);
        expect_ok_whatever_errno("run_child", || run(&numbers, |_| ()));
    })
}

#[test]
fn output_is_not_doubled() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        expect_success(output::expect_silent_children(|| run(&numbers, |_| ())));
        for f in PANICS {
            let result = output::expect_silent_panics(|| run(&numbers, |_| f()));
            expect_reported(result, "panicked", &["panicked"]);
        }
    })
}

#[test]
fn a_panic_is_reported() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        // First what is no panic of the child, because an answer may remember one.
        let caught = run(&numbers, |_| {
            let caught = panic::catch_unwind(|| panic!("caught by the closure"));
            assert!(caught.is_err());
        });
        if let Err(error) = caught {
            judge::fail(format!(
                "The closure panicked, caught that panic itself and returned, and run_child returned the error \"{error}\"; \
                 expected Ok. Not each panic ends the child: use catch_unwind, and no panic hook."
            ));
        }
        expect_while_unwinding("run_child", (), || run(&numbers, |_| ()));
        for f in PANICS {
            expect_reported(run(&numbers, |_| f()), "panicked", &["panicked"]);
        }
        let result = expect_payload_kept(|| run(&numbers, |_| panic::panic_any(PanicsInDrop)));
        expect_reported(result, "panicked", &["panicked"]);
    })
}

#[test]
fn a_long_panic_is_reported() {
    case(|| {
        judge::expect_panics();
        let numbers = shared_numbers();
        let waiting = nix::unistd::gettid();
        let result = run(&numbers, |numbers| {
            let child = nix::unistd::getpid();
            // SAFETY: only this thread exists in the child, and the new process only makes system calls and reads files.
            let helper = unsafe { libc::fork() };
            if helper == 0 {
                let lives = || nix::unistd::getppid() == child;
                let both = || waits_in(child, "pipe_write") && waits_in(waiting, "do_wait");
                if stays_while(lives, both) {
                    numbers[0].store(1, SeqCst);
                    // SAFETY: kill(2) accesses no memory. The child waits in write, so its id is not reused.
                    unsafe { libc::kill(child.as_raw(), libc::SIGKILL) };
                }
                numbers[1].store(process::id().into(), SeqCst);
                // SAFETY: ends the helper.
                unsafe { libc::_exit(0) };
            }
            // More than a pipe holds.
            panic::resume_unwind(Box::new("x".repeat(4 << 20)))
        });
        await_orphan(&numbers[1]);
        check!(
            numbers[0].load(SeqCst) == 0,
            "The closure panicked with a String of 4 MiB. The child waits until somebody reads from its pipe, and run_child \
             waits for the child. Write no more than a pipe holds (pipe(7))."
        );
        expect_reported(result, "panicked", &["panicked"]);
    })
}

#[test]
fn a_panic_without_output_is_reported() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        if let Err(error) = output::with_full_output(|| run(&numbers, |_| ())) {
            judge::fail(format!(
                "Standard output and standard error were full, and run_child returned the error \"{error}\"; expected Ok. \
                 Leave it to the caller and the closure to write and flush output."
            ));
        }
        for f in PANICS {
            let result = output::with_full_output(|| run(&numbers, |_| f()));
            expect_reported(result, "panicked", &["panicked"]);
        }
    })
}

#[test]
fn a_panic_in_any_language_is_reported() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        // More than a page, in characters of 4 bytes. After at least one of these beginnings, a cut at any byte is inside of a
        // character.
        for beginning in ["", "x"] {
            let text = || format!("{beginning}{}", "\u{1D11E}".repeat(20_000));
            let result =
                panic::catch_unwind(AssertUnwindSafe(|| run(&numbers, |_| panic!("{}", text()))));
            let Ok(result) = result else {
                judge::fail(
                    "The closure panicked with a message of 80,000 bytes in characters of 4 bytes, and run_child panicked in \
                     the parent; expected an error. If you shorten the message, a cut may be inside of a character: use \
                     String::from_utf8_lossy."
                        .to_owned(),
                );
            };
            expect_reported(result, "panicked", &["panicked"]);
        }
    })
}

/// A closure, how its child ends, and what the error's message contains, if there is an error.
type End = (fn(&Numbers), &'static str, &'static str);

#[test]
fn each_child_counts_alone() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        let pattern = |index: usize| (index as u64 + 1).wrapping_mul(0x0101_0101_0101_0101) | 1;
        for (index, number) in (*numbers).iter().enumerate() {
            number.store(pattern(index), SeqCst);
        }
        // SAFETY: ends the child, which is this process.
        let exits: fn(&Numbers) = |_| unsafe { libc::_exit(3) };
        let ends: [End; 4] = [
            (|_| (), "returned", ""),
            (|_| panic!("on purpose"), "panicked", "panicked"),
            (exits, "ended with status 3", "status 3"),
            (|_| die_of(9), "was killed by signal 9", "signal 9"),
        ];
        // Other cases grade an end that is wrong without earlier children.
        let ends = ends.map(|(f, how, expected)| {
            let alone = in_child(|| {
                let numbers = new!(Numbers);
                u8::from(is_reported(&run(&numbers, f), expected))
            });
            (alone == 1).then_some((f, how, expected))
        });
        // Each end follows every other one, and itself.
        for (first, ..) in ends.iter().flatten() {
            for (second, how, expected) in ends.iter().flatten() {
                let _ = run(&numbers, first);
                let result = run(&numbers, second);
                check!(
                    is_reported(&result, expected),
                    "The child {how}, after others that had ended in other ways, and run_child returned {}; expected {}. \
                     Clear before each fork what you note about a child.",
                    returned(&result),
                    wanted(expected)
                );
            }
        }
        let changed = (*numbers)
            .iter()
            .enumerate()
            .find(|(index, number)| number.load(SeqCst) != pattern(*index));
        if let Some((index, _)) = changed {
            judge::fail(format!(
                "The closures did not write to the value, but number {index} of {} changed. Keep run_child's own data \
                 outside of the value.",
                LAST + 1
            ));
        }
    })
}

/// Counts its drops in each process: the child's count is the first of these numbers, its parent's the second.
struct Counted<'a>(&'a Numbers, u32);
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let index = usize::from(process::id() == self.1);
        self.0[index].fetch_add(1, SeqCst);
    }
}

#[test]
fn destructors_run_once() {
    case(|| {
        judge::expect_panics();
        let [captured_drops, caller_drops] = [shared_numbers(), shared_numbers()];
        let numbers = shared_numbers();
        for panics in [false, true] {
            let _caller = Counted(&caller_drops, process::id());
            let captured = Counted(&captured_drops, process::id());
            let _ = run(&numbers, move |_| {
                let _captured = &captured;
                if panics {
                    panic!("on purpose");
                }
            });
            let dropped = captured_drops[1].swap(0, SeqCst);
            check!(
                dropped == 1,
                "After run_child, a value that the closure had captured was dropped {dropped} times in the parent; \
                 expected once. Drop the closure in the parent, and do not run it there."
            );
            check!(
                caller_drops[0].load(SeqCst) == 0,
                "The child dropped a variable of the caller of run_child. End the child with _exit, also after a panic."
            );
        }
    })
}

/// The signals that end a process by default. SIGTRAP stops a traced process instead.
pub const FATAL: [libc::c_int; 22] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGUSR1,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// The real-time signals, without those that glibc uses.
pub const REAL_TIME: std::ops::RangeInclusive<libc::c_int> = 34..=64;

/// Kills this process with the signal, whatever its disposition and the signal mask are.
pub fn die_of(signal: libc::c_int) {
    // SAFETY: the default action is no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let process = std::process::id() as libc::pid_t;
    // raise(3) fails for a real-time signal if the queue of the user's signals is full. kill(2) does not.
    // SAFETY: kill(2) accesses no memory.
    unsafe { libc::kill(process, signal) };
}

#[test]
fn a_signal_is_reported() {
    case(|| {
        let numbers = new!(Numbers);
        for signal in FATAL {
            let result = run(&numbers, |_| die_of(signal));
            let text = format!("signal {signal}");
            expect_reported(result, &format!("was killed by {text}"), &[&text]);
        }
        judge::pretend::core_dumps();
        for signal in [libc::SIGQUIT, libc::SIGSEGV, libc::SIGSYS] {
            let result = run(&numbers, |_| die_of(signal));
            let text = format!("signal {signal}");
            let how = format!("was killed by {text} and dumped core (bit 0x80 of the status)");
            expect_reported(result, &how, &[&text]);
        }
    })
}

#[test]
fn of_any_size() {
    case(|| {
        judge::expect_panics();
        for Size { name, new, .. } in shared::sizes() {
            let value = new();
            shared::fill(value.bytes(), 0);
            let returned_ok = value.run(&|bytes| shared::fill(bytes, 100)).is_ok();
            check!(
                returned_ok && shared::is_filled(value.bytes(), 100),
                "The closure wrote to a value of {name} and returned. run_child returned an error, or the value is not what the \
                 closure wrote. Keep run_child's own data outside of the value."
            );
            let result = value.run(&|_| panic!("on purpose"));
            expect_reported(result, "panicked", &["panicked"]);
            check!(
                shared::is_filled(value.bytes(), 100),
                "The closure panicked, and its value of {name} changed. Keep run_child's own data outside of the value."
            );
        }
        let nothing = new!([AtomicU64; 0]);
        // SAFETY: as in `run`.
        expect_success(unsafe { nothing.run_child(|_| ()) });
        // SAFETY: as in `run`.
        let result = unsafe { nothing.run_child(|_| panic!("on purpose")) };
        expect_reported(result, "panicked", &["panicked"]);
    })
}

#[test]
fn without_standard_input() {
    case(|| {
        judge::expect_panics();
        let numbers = shared_numbers();
        let returns: fn(&Numbers) = |_| ();
        let ends = [(returns, ""), (|_| panic!("on purpose"), "panicked")];
        // Other cases grade an end that is wrong with standard input.
        let ends = ends
            .map(|(f, expected)| is_reported(&run(&numbers, f), expected).then_some((f, expected)));
        close_standard_input();
        for (f, expected) in ends.into_iter().flatten() {
            let result = run(&numbers, f);
            check!(
                is_reported(&result, expected),
                "Standard input was closed, and run_child returned {}; expected {}. Then 0 is a valid descriptor: a call that \
                 returns one has failed only if it returns -1.",
                returned(&result),
                wanted(expected)
            );
        }
    })
}

#[test]
fn a_real_time_signal_is_an_error() {
    case(|| {
        let numbers = new!(Numbers);
        for signal in REAL_TIME {
            // nix has no name for these signals, so the message may say anything.
            check!(
                run(&numbers, |_| die_of(signal)).is_err(),
                "The child was killed by signal {signal}, and run_child returned Ok; expected an error. Check the \
                 whole wait status."
            );
        }
    })
}

#[test]
fn a_status_is_reported() {
    case(|| {
        let numbers = new!(Numbers);
        // All of them, because an answer may give any status a meaning.
        for status in (1..=255).filter(|status| *status != 101) {
            // SAFETY: ends the child, which is this process.
            let result = run(&numbers, |_| unsafe { libc::_exit(status) });
            let text = format!("status {status}");
            expect_reported(result, &format!("ended with {text}"), &[&text]);
        }
        // SAFETY: as above.
        let result = run(&numbers, |_| unsafe { libc::_exit(101) });
        expect_reported(
            result,
            "ended with status 101, that of a panic,",
            &["panicked", "status 101"],
        );
        // SAFETY: as above.
        expect_success(run(&numbers, |_| unsafe { libc::_exit(0) }));
    })
}

/// Waits until a process has been in one of these states (proc_pid_stat(5)) at several looks in a row, or for a second.
pub fn until_steady(process: libc::pid_t, states: &[char]) {
    let mut steady = 0;
    for _ in 0..500 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        steady = match state {
            Some(state) if states.contains(&state) => steady + 1,
            _ => 0,
        };
        if steady == 4 {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a thread sleeps in the kernel's function with this name, or one whose name ends with it. False if the kernel
/// does not tell.
fn waits_in(thread: nix::unistd::Pid, function: &str) -> bool {
    let wchan = fs::read_to_string(format!("/proc/{thread}/wchan"));
    wchan.is_ok_and(|wchan| wchan.ends_with(function))
}

/// Whether `state` holds 20 times in a row, a millisecond apart. Looks as long as `goes_on` returns true.
fn stays_while(goes_on: impl Fn() -> bool, state: impl Fn() -> bool) -> bool {
    let mut looks = 0;
    while goes_on() && looks < 20 {
        looks = if state() { looks + 1 } else { 0 };
        thread::sleep(Duration::from_millis(1));
    }
    looks == 20
}

/// Waits until a process that is not a child of this one has stored its id here and has ended. A process that still runs when
/// the case ends would fail it.
fn await_orphan(id: &AtomicU64) {
    let ended = |id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
    };
    while id.load(SeqCst) == 0 || !ended(id.load(SeqCst)) {
        thread::sleep(Duration::from_millis(1));
    }
    reap_orphan(id);
}

/// Waits for a process that a child had forked and that has ended. Without a tracer, orphans become children of the case's
/// first process, and would be taken for zombies that the answer has left.
fn reap_orphan(id: &AtomicU64) {
    // SAFETY: waitpid(2) accepts a null status.
    unsafe {
        libc::waitpid(
            id.load(SeqCst) as libc::pid_t,
            std::ptr::null_mut(),
            libc::WNOHANG,
        )
    };
}

#[test]
fn a_stopped_child_has_not_ended() {
    case(|| {
        let numbers = shared_numbers();
        let parent = process::id() as libc::pid_t;
        let result = run(&numbers, |numbers| {
            let stopped = process::id() as libc::pid_t;
            // SAFETY: only this thread exists in the child, and the new process only makes system calls.
            let helper = unsafe { libc::fork() };
            if helper == 0 {
                // The kernel wakes the parent when its child stops. If it waits for the end alone, it sleeps again.
                until_steady(stopped, &['T', 't']);
                until_steady(parent, &['S']);
                while numbers[0].load(SeqCst) == 0 {
                    // SAFETY: kill(2) accesses no memory. The process waits for this one, so its id is not reused.
                    unsafe { libc::kill(stopped, libc::SIGCONT) };
                    thread::sleep(Duration::from_millis(1));
                }
                // SAFETY: ends the helper.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: raise(3) accesses no memory.
            unsafe { libc::raise(libc::SIGSTOP) };
            thread::sleep(Duration::from_millis(10));
            numbers[0].store(1, SeqCst);
            // SAFETY: waitpid(2) accepts a null status.
            unsafe { libc::waitpid(helper, std::ptr::null_mut(), 0) };
            numbers[1].store(1, SeqCst);
        });
        check!(
            numbers[1].load(SeqCst) == 1,
            "The child was stopped and continued, and run_child returned before the child had ended. Do not pass \
             WUNTRACED or WCONTINUED to waitpid."
        );
        expect_success(result);
    })
}

/// Waits until the number is set, or for a while: an answer may have one child at a time.
fn await_set(number: &AtomicU64) {
    for _ in 0..1000 {
        if number.load(SeqCst) != 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Fails the case unless two calls of `run_child` by two threads have reported their own children. `values` is "" or " on the same value".
fn expect_a_child_each(values: &str, first: io::Result<()>, second: io::Result<()>) {
    check!(
        is_reported(&first, "status 3") && second.is_ok(),
        "Two threads called run_child{values} at the same time. One child ended with status 3, the closure of the other one \
         returned, and run_child returned {} and {}; expected an error with `status 3`, and Ok(()). Wait for the PID that \
         this call's fork has returned, and keep it and the status in local variables.",
        returned(&first),
        returned(&second)
    );
}

#[test]
fn two_threads_have_a_child_each() {
    case(|| {
        let common = shared_numbers();
        // SAFETY: ends the child, which is this process.
        let alone = run(&common, |_| unsafe { libc::_exit(3) });
        expect_reported(alone, "ended with status 3", &["status 3"]);
        let [began, second_began, first_returned] = [&common[0], &common[1], &common[2]];
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| {
                let numbers = new!(Numbers);
                let result = run(&numbers, |_| {
                    began.store(1, SeqCst);
                    await_set(second_began);
                    // SAFETY: ends the child, which is this process.
                    unsafe { libc::_exit(3) }
                });
                first_returned.store(1, SeqCst);
                result
            });
            await_set(began);
            let numbers = new!(Numbers);
            let second = run(&numbers, |_| {
                second_began.store(1, SeqCst);
                await_set(first_returned);
            });
            let first = first.join();
            (
                first.unwrap_or_else(|payload| panic::resume_unwind(payload)),
                second,
            )
        });
        expect_a_child_each("", first, second);
    })
}

/// `Threads::<S>::call_on` calls `run` on one value in two threads at the same time if `S` is `Sync`: the inherent function
/// takes precedence over the trait's.
struct Threads<S>(std::marker::PhantomData<S>);

#[allow(dead_code)] // Unused if `Shared` is not `Sync`.
impl<S: Sync> Threads<S> {
    fn call_on(value: &S, run: fn(&S, libc::c_int) -> io::Result<()>) {
        let steps = Steps::of(value, || run(value, 3));
        let _ = steps.find_in_thread();
        for place in 0..judge::places() {
            let (first, second) = steps.beside(place, || run(value, 0));
            expect_a_child_each(" on the same value", first, second);
        }
        // A panic may be noted in another way than a status.
        let steps = Steps::of(value, || run(value, 0));
        let _ = steps.find_in_thread();
        for place in 0..judge::places() {
            let (first, second) = steps.beside(place, || run(value, 101));
            check!(
                first.is_ok() && is_reported(&second, "panicked"),
                "Two threads called run_child on the same value at the same time. The closure of one returned, the other \
                 one panicked, and run_child returned {} and {}; expected Ok(()), and an error with `panicked`. Note what \
                 you know about a child for this call only.",
                returned(&first),
                returned(&second)
            );
        }
    }
}

#[allow(dead_code)] // Unused if `Shared` is `Sync`.
trait NotInThreads<S> {
    fn call_on(_: &S, _: fn(&S, libc::c_int) -> io::Result<()>) {}
}

impl<S> NotInThreads<S> for Threads<S> {}

#[test]
fn two_threads_at_every_step() {
    case(|| {
        judge::expect_panics();
        let on = |numbers: &_, status| {
            run(numbers, |_| match status {
                101 => panic!("on purpose"),
                // SAFETY: ends the child, which is this process.
                status => unsafe { libc::_exit(status) },
            })
        };
        let in_thread = |status| on(&new!(Numbers), status);
        expect_reported(in_thread(3), "ended with status 3", &["status 3"]);
        expect_reported(in_thread(101), "panicked", &["panicked"]);
        let numbers = new!(Numbers);
        // `Cell`, `RefCell` and `UnsafeCell` are not RefUnwindSafe; atomics and locks are.
        if impls::impls!(Shared<Numbers>: Sync & !panic::RefUnwindSafe) {
            check!(
                !changes(&numbers, || drop(on(&numbers, 3))),
                "run_child writes to the Shared through &self, without an atomic or a lock. Two threads may call it at the \
                 same time, so Sync is not sound. Keep the PID and the status in local variables."
            );
        }
        let steps = Steps::of(&(), || in_thread(3));
        let _ = steps.find_in_thread();
        for place in 0..judge::places() {
            let (first, second) = steps.beside(place, || in_thread(0));
            expect_a_child_each("", first, second);
        }
        Threads::<Shared<Numbers>>::call_on(&numbers, on);
    })
}

#[test]
fn children_of_the_child() {
    case(|| {
        judge::expect_panics();
        let numbers = shared_numbers();
        let result = run(&numbers, |_| {
            // The closure may fork, and may call run_child itself.
            let nested = run(&numbers, |numbers| numbers[0].store(1, SeqCst));
            numbers[1].store(u64::from(nested.is_ok()), SeqCst);
            // SAFETY: ends the child of the child.
            let failed = run(&numbers, |_| unsafe { libc::_exit(9) });
            numbers[2].store(u64::from(failed.is_err()), SeqCst);
            let _ = run(&numbers, |_| panic!("on purpose"));
        });
        if let Err(error) = result {
            judge::fail(format!(
                "A closure called run_child itself, with closures that write, exit with status 9 and panic, and returned. \
                 run_child returned the error \"{error}\" for it; expected Ok. Note what you know about a child for this \
                 call only."
            ));
        }
        let said = [0, 1, 2].map(|index| numbers[index].load(SeqCst));
        check!(
            said == [1, 1, 1],
            "A closure called run_child itself: first with a closure that writes, then with one that exits with \
             status 9. The write, the Ok and the error that arrived are {said:?} (1: yes, 0: no); expected [1, 1, 1]."
        );
    })
}

#[test]
fn a_process_of_the_child_may_run_on() {
    case(|| {
        let numbers = shared_numbers();
        let waiting = nix::unistd::gettid();
        let result = run(&numbers, |numbers| {
            let child = nix::unistd::getpid();
            // SAFETY: only this thread exists in the child, and the new process only makes system calls and reads files.
            let helper = unsafe { libc::fork() };
            if helper == 0 {
                // It inherits all descriptors of the child, so a pipe never reaches end of file.
                let runs = || numbers[0].load(SeqCst) == 0;
                let waits = || nix::unistd::getppid() != child && waits_in(waiting, "pipe_read");
                numbers[1].store(u64::from(stays_while(runs, waits)), SeqCst);
                numbers[2].store(process::id().into(), SeqCst);
                // SAFETY: ends the helper.
                unsafe { libc::_exit(0) };
            }
        });
        numbers[0].store(1, SeqCst);
        await_orphan(&numbers[2]);
        check!(
            numbers[1].load(SeqCst) == 0,
            "The child had ended, but run_child went on reading from a pipe, because a process that the child had forked \
             held the other end. Wait for the child, and not for the end of a pipe."
        );
        expect_success(result);
    })
}

#[test]
fn a_process_of_the_child_counts_for_nothing() {
    case(|| {
        judge::expect_panics();
        let numbers = shared_numbers();
        let of_the_other: [(fn(), &str); 2] = [
            (|| (), "returned from the closure, too"),
            (|| panic!("on purpose"), "panicked"),
        ];
        for (of_the_other, how) in of_the_other {
            let with_status = |status| {
                run(&numbers, |_| {
                    // SAFETY: only this thread exists in the child.
                    let other = unsafe { libc::fork() };
                    if other == 0 {
                        return of_the_other();
                    }
                    numbers[0].store(other as u64, SeqCst);
                    await_end(other);
                    if status != 0 {
                        // SAFETY: ends the child, which is this process.
                        unsafe { libc::_exit(status) };
                    }
                })
            };
            for (status, ended, expected) in
                [(0, "returned", ""), (3, "exited with status 3", "status 3")]
            {
                let result = with_status(status);
                reap_orphan(&numbers[0]);
                check!(
                    is_reported(&result, expected),
                    "The closure forked. The new process {how}, and then the child {ended}. run_child returned {}; expected {}. \
                     Report how the child has ended, whatever its own children do.",
                    returned(&result),
                    wanted(expected)
                );
            }
        }
    })
}

/// Starts a thread that calls `at_last` if it goes on running after the first thread of its process has ended.
pub fn leave_a_thread(at_last: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        // If only the first thread ends, it is a zombie, and its process lives on.
        let first = process::id();
        let mut looks = 0;
        while looks < 4 {
            let stat = fs::read_to_string(format!("/proc/{first}/task/{first}/stat"));
            looks += usize::from(stat.is_ok_and(|stat| stat.contains(") Z ")));
            thread::sleep(Duration::from_millis(1));
        }
        at_last();
    });
}

#[test]
fn a_thread_of_the_child_ends_with_it() {
    case(|| {
        judge::expect_panics();
        let numbers = shared_numbers();
        for (panics, how) in [(false, "returned"), (true, "panicked")] {
            let result = run(&numbers, |numbers| {
                let address = (&raw const *numbers).expose_provenance();
                leave_a_thread(move || {
                    // SAFETY: the mapping lives as long as this process.
                    let numbers: &Numbers = unsafe { &*std::ptr::with_exposed_provenance(address) };
                    numbers[0].store(1, SeqCst);
                    // SAFETY: ends the child, which is this process.
                    unsafe { libc::_exit(0) };
                });
                if panics {
                    panic!("on purpose");
                }
            });
            check!(
                numbers[0].load(SeqCst) == 0,
                "The closure had started a thread, and that thread went on running in the child after the closure had \
                 {how}. End the process with _exit: the system call exit and pthread_exit end one thread only."
            );
            match panics {
                true => expect_reported(result, how, &["panicked"]),
                false => expect_success(result),
            }
        }
    })
}

#[test]
fn other_children_are_not_waited_for() {
    case(|| {
        let numbers = shared_numbers();
        // One child of the caller's has ended when `run_child` forks, and one runs until the third number is set.
        let [ended, running] = [0, 1].map(|index| {
            // SAFETY: as in `run`.
            let other = unsafe { libc::fork() };
            if other == 0 {
                while index == 1 && numbers[2].load(SeqCst) == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                // SAFETY: ends the child, which is this process.
                unsafe { libc::_exit(5) };
            }
            other
        });
        await_end(ended);
        let result = run(&numbers, |_| {
            thread::sleep(Duration::from_millis(50));
        });
        numbers[2].store(1, SeqCst);
        if let Err(error) = result {
            judge::fail(format!(
                "The closure returned in the child, and run_child returned the error \"{error}\"; expected Ok. \
                 Another child of the caller had ended with status 5. Pass waitpid the PID that fork returned."
            ));
        }
        for other in [ended, running] {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let waited = unsafe { libc::waitpid(other, &raw mut status, 0) };
            check!(
                waited == other && libc::WEXITSTATUS(status) == 5,
                "run_child waited for another child of the caller, so its status is lost. Pass waitpid the PID that \
                 fork returned."
            );
        }
    })
}

#[test]
fn a_signal_does_not_end_the_wait() {
    case(|| {
        let numbers = shared_numbers();
        handle_interrupting_signals();
        let (process, thread) = (
            nix::unistd::getpid().as_raw(),
            nix::unistd::gettid().as_raw(),
        );
        let result = run(&numbers, |numbers| {
            // The child has inherited the handlers, and has its own copy of what they note.
            HANDLED.store(0, SeqCst);
            for signal in INTERRUPTING.iter().cycle().take(2 * INTERRUPTING.len()) {
                until_steady(thread, &['S']);
                send_to_thread(process, thread, *signal);
            }
            until_steady(thread, &['S']);
            numbers[0].store(HANDLED.load(SeqCst), SeqCst);
        });
        let in_child = numbers[0].load(SeqCst);
        if let Some(signal) = INTERRUPTING
            .iter()
            .find(|it| in_child & (1 << **it as i32) != 0)
        {
            judge::fail(format!(
                "A signal interrupted the wait for the child, and the child got a {signal}; expected it to run undisturbed. \
                 Wait again after EINTR, and send the child no signal."
            ));
        }
        if let Err(error) = result {
            judge::fail(format!(
                "A signal interrupted the wait for the child, and run_child returned the error \"{error}\"; expected \
                 it to wait again after EINTR."
            ));
        }
        expect_handled("run_child", &INTERRUPTING);
    })
}

#[test]
fn a_lost_status_is_an_error() {
    case(|| {
        let numbers = new!(Numbers);
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: to ignore a signal is no handler.
        unsafe { sigaction(Signal::SIGCHLD, &ignore) }.expect("sigaction ignores SIGCHLD");
        judge::rebase_state();
        // SAFETY: ends the child, which is this process.
        let result = run(&numbers, |_| unsafe { libc::_exit(3) });
        check!(
            result.is_err(),
            "SIGCHLD is ignored, so waitpid fails with ECHILD and the child's status is lost; run_child returned Ok, \
             although the child ended with status 3. Return the error."
        );
    })
}

#[test]
fn the_closure_keeps_descriptors() {
    case(|| {
        let numbers = shared_numbers();
        let (mut reader, writer) = io::pipe().expect("a pipe");
        expect_success(run(&numbers, |numbers| {
            numbers[0].store((&writer).write_all(b"here").is_ok().into(), SeqCst);
        }));
        drop(writer);
        let mut text = String::new();
        let read = reader.read_to_string(&mut text);
        check!(
            numbers[0].load(SeqCst) == 1 && read.is_ok() && text == "here",
            "The closure wrote to a pipe that the caller of run_child had opened, and the text did not arrive. The \
             child must keep its parent's descriptors open."
        );
    })
}

#[test]
fn the_closure_keeps_mask_and_group() {
    case(|| {
        let numbers = shared_numbers();
        let mut one = SigSet::empty();
        one.add(Signal::SIGUSR2);
        // With all signals blocked, it is seen if any is unblocked. The judge compares the parent's mask at the end.
        for mask in [one, SigSet::all()] {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).expect("a valid mask");
            let mask = current_mask();
            judge::rebase_state();
            expect_success(run(&numbers, |numbers| {
                numbers[0].store(u64::from(current_mask() == mask), SeqCst);
                numbers[1].store(getpgrp().as_raw() as u64, SeqCst);
            }));
            check!(
                numbers[1].load(SeqCst) == getpgrp().as_raw() as u64,
                "The closure runs in another process group than the caller of run_child; expected the same one. Leave \
                 out setpgid and setsid."
            );
            check!(
                numbers[0].load(SeqCst) == 1,
                "The closure runs with another signal mask than the caller of run_child; expected the same one. If you \
                 block signals for the fork, restore the mask in the child, too."
            );
        }
    })
}

#[test]
fn the_closure_keeps_its_callers_state() {
    case(|| {
        let numbers = new!(Numbers);
        caller::expect_inherited(|| expect_success(run(&numbers, |_| caller::compare())))
    })
}

#[test]
fn pending_signals_stay_pending() {
    case(|| {
        let numbers = new!(Numbers);
        let mut mask = SigSet::empty();
        // SIGCONT and the signals that stop a process cancel each other.
        let cancelling = [
            Signal::SIGCONT,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ];
        let unblockable = [Signal::SIGKILL, Signal::SIGSTOP];
        for signal in
            Signal::iterator().filter(|it| !cancelling.contains(it) && !unblockable.contains(it))
        {
            mask.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).expect("a valid mask");
        for signal in &mask {
            nix::sys::signal::raise(signal).expect("a valid signal");
        }
        judge::rebase_state();
        expect_success(run(&numbers, |_| ()));
        // The judge compares the pending signals when the case ends.
    })
}

#[test]
fn running_is_unsafe() {
    case(|| {
        // Ends the case here if the answer has no `Shared::new` yet.
        let _numbers = new!(Numbers);
        let safe = judge::is_safe_fn!(
            Shared::<Numbers>::run_child,
            fn(&Shared<Numbers>, fn(&Numbers)) -> io::Result<()>
        );
        check!(
            !safe,
            "run_child can be called without `unsafe`, but the caller must promise that the closure needs no lock that \
             another thread may hold. Keep it an `unsafe fn`, as in the stub."
        );
    })
}

fn current_mask() -> SigSet {
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, None, Some(&mut mask)).expect("the mask can be read");
    mask
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            judge::expect_panics();
            let numbers = watch(|| new!(Numbers));
            let ends: [fn(&Numbers); 5] = [
                |_| (),
                // SAFETY: ends the child, which is this process.
                |_| unsafe { libc::_exit(3) },
                |_| panic!("on purpose"),
                |_| die_of(9),
                |_| die_of(34),
            ];
            for end in ends {
                let _ = watch(|| run(&numbers, end));
            }
            watch(|| drop(numbers));
        },
        |seen| seen.expect_nothing_left(),
    )
}

#[test]
fn calls_that_fail() {
    refusals(
        &[
            ("fork", Errno::EAGAIN),
            ("wait4", Errno::EINTR),
            ("waitid", Errno::EINTR),
            ("poll", Errno::EINTR),
            ("read", Errno::EINTR),
            ("pipe", Errno::EMFILE),
            ("pidfd_open", Errno::EMFILE),
            ("mmap", Errno::ENOMEM),
            ("munmap", Errno::ENOMEM),
        ],
        |refused| {
            let numbers = shared_numbers();
            // A child of the caller's: a wait for child -1 would take its status.
            // SAFETY: as in `run`.
            let other = unsafe { libc::fork() };
            if other == 0 {
                // SAFETY: ends the child, which is this process.
                unsafe { libc::_exit(5) };
            }
            await_end(other);
            let note_process = |numbers: &Numbers| numbers[0].store(process::id().into(), SeqCst);
            match watch(|| refuse(|| run(&numbers, note_process))) {
                Ok(()) => {
                    let ran_in = numbers[0].load(SeqCst);
                    check!(
                        ran_in != 0,
                        "run_child returned Ok, but the closure's write has not arrived. Return an error if the closure \
                         did not run in a child."
                    );
                    check!(
                        ran_in != u64::from(process::id()),
                        "run_child returned Ok, but the closure ran in the parent. Return an error if the closure did not \
                         run in a child."
                    );
                }
                Err(error) => {
                    check!(
                        refused.is_none_or(|refusal| refusal.errno != Errno::EINTR),
                        "run_child returned the error \"{error}\"; expected it to wait again after EINTR."
                    );
                    expect_errno("run_child", &error, refused);
                }
            }
            // SAFETY: waitpid(2) accepts a null status.
            let waited = unsafe { libc::waitpid(other, std::ptr::null_mut(), 0) };
            check!(
                waited == other,
                "run_child waited for another child of the caller, so its status is lost. Wait only for the PID that \
                 fork returned, and only if it is not -1."
            );
            expect_success(run(&numbers, |_| ()));
        },
        |seen| seen.expect_nothing_left(),
    )
}
