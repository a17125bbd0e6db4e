//! Stage 1: raw `mmap` and `fork`.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize};

use shared_ipc::ask_a_child;

use super::*;

fn ask(answer: fn() -> u64) -> io::Result<u64> {
    // `ask_a_child` may also be a safe function, as in earlier versions of the stub.
    #[allow(unused_unsafe)]
    // SAFETY: every `answer` in this module computes a number or ends the child, and needs no lock.
    unsafe {
        ask_a_child(answer)
    }
}

fn expect_answer(answer: fn() -> u64) -> u64 {
    match ask(answer) {
        Ok(answer) => answer,
        Err(error) => judge::fail(format!(
            "ask_a_child returned the error \"{error}\"; expected the child's answer. Every u64 is an answer, 0 too."
        )),
    }
}

#[test]
fn the_answer_arrives() {
    case(|| {
        let answer = expect_answer(|| 0xFEED_FACE_CAFE_BEEF);
        check!(
            answer != 0,
            "The child answered 0xFEED_FACE_CAFE_BEEF, and ask_a_child returned 0. Map shared memory before the fork, \
             and read it after the wait."
        );
        check!(
            answer == 0xFEED_FACE_CAFE_BEEF,
            "The child answered 0xFEED_FACE_CAFE_BEEF, and ask_a_child returned {answer:#X}. Pass on all 64 bits."
        );
        // An answer of 0 is an answer, and an answer does not depend on earlier ones.
        let answers = [(|| 0) as fn() -> u64, || u64::MAX, || 1].map(expect_answer);
        check!(
            answers == [0, u64::MAX, 1],
            "Three children answered 0, u64::MAX and 1, and ask_a_child returned {answers:?}. Each call needs a new \
             child and a new mapping."
        );
    })
}

#[test]
fn the_child_answers() {
    case(|| {
        let answer = expect_answer(|| std::process::id().into());
        check!(
            answer != u64::from(std::process::id()),
            "`answer` ran in the parent. Call it only in the child."
        );
    })
}

#[test]
fn ignores_an_earlier_errno() {
    case(|| expect_ok_whatever_errno("ask_a_child", || ask(|| 7).map(drop)))
}

/// The signal or the status with which the next child ends.
static HOW: AtomicI32 = AtomicI32::new(0);

fn killed() -> u64 {
    child::die_of(HOW.load(SeqCst));
    0
}

#[test]
fn no_answer_is_an_error() {
    case(|| {
        let expect_error = |answer, how: &str, number: libc::c_int| {
            // Private memory, of which the child has a copy.
            HOW.store(number, SeqCst);
            if let Ok(answer) = ask(answer) {
                judge::fail(format!(
                    "The child {how} {number} before it answered, and ask_a_child returned Ok({answer}); expected an \
                     error. Check the status that waitpid returns."
                ));
            }
        };
        // SAFETY: ends the child, which is this process.
        let exited = || unsafe { libc::_exit(HOW.load(SeqCst)) };
        for signal in [9].into_iter().chain(child::FATAL).chain(child::REAL_TIME) {
            expect_error(killed, "was killed by signal", signal);
        }
        // All of them, because an answer may give any status a meaning.
        for status in 1..=255 {
            expect_error(exited, "ended with status", status);
        }
        judge::pretend::core_dumps();
        expect_error(
            killed,
            "dumped core (bit 0x80 of the status) after signal",
            11,
        );
    })
}

/// The index of the panic in `PANICS` with which the next child ends.
static PANIC: AtomicUsize = AtomicUsize::new(0);

fn panics() -> u64 {
    PANICS[PANIC.load(SeqCst)]();
    0
}

#[test]
fn a_panic_is_an_error() {
    case(|| {
        judge::expect_panics();
        for index in 0..PANICS.len() {
            PANIC.store(index, SeqCst);
            expect_no_answer(&ask(panics));
        }
        let caught = ask(|| {
            let caught = panic::catch_unwind(|| panic!("caught by the answer"));
            u64::from(caught.is_err())
        });
        let caught = caught.map_err(|error| error.to_string());
        check!(
            caught == Ok(1),
            "`answer` panicked, caught that panic itself and returned 1, and ask_a_child returned {caught:?}; expected \
             Ok(1). Not each panic ends the child: use catch_unwind, and no panic hook."
        );
        expect_while_unwinding("ask_a_child", 7, || ask(|| 7));
        let result = expect_payload_kept(|| ask(|| panic::panic_any(PanicsInDrop)));
        expect_no_answer(&result);
    })
}

/// Fails the case if `ask_a_child` returned an answer although its child panicked.
fn expect_no_answer(result: &io::Result<u64>) {
    if let Ok(number) = result {
        judge::fail(format!(
            "The child panicked before it answered, and ask_a_child returned Ok({number}); expected an error. Check the \
             status that waitpid returns."
        ));
    }
}

#[test]
fn a_panic_without_output_is_an_error() {
    case(|| {
        judge::expect_panics();
        output::with_full_output(|| expect_answer(|| 1));
        for index in 0..PANICS.len() {
            PANIC.store(index, SeqCst);
            expect_no_answer(&output::with_full_output(|| ask(panics)));
        }
    })
}

/// The descriptor of a pipe to which a thread of the child writes if it outlives the first thread. Private memory, of which
/// the child has a copy.
static OUTLIVED: AtomicI32 = AtomicI32::new(-1);

/// Starts a thread that reports if it goes on running after the first thread of its process has ended.
fn leave_a_thread() {
    child::leave_a_thread(|| {
        // SAFETY: the call reads one byte of a constant.
        unsafe { libc::write(OUTLIVED.load(SeqCst), c"x".as_ptr().cast(), 1) };
        // SAFETY: ends the child, which is this process.
        unsafe { libc::_exit(0) };
    });
}

#[test]
fn a_thread_of_the_child_ends_with_it() {
    case(|| {
        judge::expect_panics();
        let returns: fn() -> u64 = || {
            leave_a_thread();
            7
        };
        let panics: fn() -> u64 = || {
            leave_a_thread();
            panic!("on purpose")
        };
        for (answer, how) in [(returns, "returned"), (panics, "panicked")] {
            let (mut reader, writer) = io::pipe().expect("a pipe");
            OUTLIVED.store(writer.as_raw_fd(), SeqCst);
            // Other cases grade the result.
            let _ = ask(answer);
            drop(writer);
            let mut text = String::new();
            let _ = reader.read_to_string(&mut text);
            check!(
                text.is_empty(),
                "`answer` had started a thread, and that thread went on running in the child after `answer` had {how}. End the \
                 process with _exit: the system call exit and pthread_exit end one thread only."
            );
        }
    })
}

/// The process and the thread that wait for the child.
static WAITING: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

#[test]
fn a_signal_does_not_end_the_wait() {
    case(|| {
        handle_interrupting_signals();
        WAITING[0].store(std::process::id().into(), SeqCst);
        WAITING[1].store(nix::unistd::gettid().as_raw() as u64, SeqCst);
        let result = ask(|| {
            let [process, thread] = [0, 1].map(|index: usize| WAITING[index].load(SeqCst));
            for signal in &INTERRUPTING[..3] {
                child::until_steady(thread as i32, &['S']);
                send_to_thread(process as i32, thread as i32, *signal);
            }
            child::until_steady(thread as i32, &['S']);
            7
        });
        match result {
            Ok(answer) => check!(
                answer == 7,
                "A signal interrupted the wait for the child, and ask_a_child returned {answer}; expected the child's \
                 answer, 7. Wait again after EINTR."
            ),
            Err(error) => judge::fail(format!(
                "A signal interrupted the wait for the child, and ask_a_child returned the error \"{error}\"; expected \
                 it to wait again after EINTR."
            )),
        }
        expect_handled("ask_a_child", &INTERRUPTING[..3]);
    })
}

#[test]
fn the_child_keeps_its_callers_state() {
    case(|| {
        caller::expect_inherited(|| {
            let answer = || {
                caller::compare();
                1
            };
            expect_answer(answer);
        })
    })
}

#[test]
fn output_is_not_doubled() {
    case(|| {
        judge::expect_panics();
        output::expect_silent_children(|| expect_answer(|| 1));
        for index in 0..PANICS.len() {
            PANIC.store(index, SeqCst);
            expect_no_answer(&output::expect_silent_panics(|| ask(panics)));
        }
    })
}

#[test]
fn makes_the_prescribed_calls() {
    watched(
        || {
            watch(|| expect_answer(|| 1));
        },
        |seen| seen.expect_transcript("by_hand"),
    )
}

#[test]
fn two_threads_at_every_step() {
    case(|| {
        let alone = ask(|| 1);
        check!(
            matches!(alone, Ok(1)),
            "The child answered 1, and ask_a_child returned {}; expected Ok(1).",
            returned(&alone)
        );
        let steps = Steps::of(&(), || ask(|| 1));
        let _ = steps.find_in_thread();
        for place in 0..judge::places() {
            let (first, second) = steps.beside(place, || ask(|| 2));
            check!(
                matches!((&first, &second), (Ok(1), Ok(2))),
                "Two threads called ask_a_child at the same time. Their children answered 1 and 2, and ask_a_child \
                 returned {} and {}. Keep the PID, the status and the address of the mapping in local variables.",
                returned(&first),
                returned(&second)
            );
        }
    })
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            judge::expect_panics();
            HOW.store(9, SeqCst);
            let answers: [fn() -> u64; 4] = [
                || 1,
                || panic!("on purpose"),
                killed,
                // SAFETY: ends the child, which is this process.
                || unsafe { libc::_exit(3) },
            ];
            for answer in answers {
                let _ = watch(|| ask(answer));
            }
        },
        |seen| seen.expect_nothing_left(),
    )
}

#[test]
fn calls_that_fail() {
    refusals(
        &[
            ("mmap", Errno::ENOMEM),
            ("fork", Errno::EAGAIN),
            ("wait4", Errno::EINTR),
            ("wait4", Errno::ECHILD),
            ("munmap", Errno::ENOMEM),
        ],
        |refused| match watch(|| {
            let result = refuse(|| ask(|| std::process::id().into()));
            if refused.is_some_and(|refusal| refusal.errno == Errno::ECHILD) {
                reap();
            }
            result
        }) {
            Ok(answer) => {
                check!(
                    refused.is_none_or(|refusal| refusal.errno != Errno::ECHILD),
                    "ask_a_child returned Ok; expected that error, because without a status nothing is known about \
                     the child. Check the result of waitpid."
                );
                check!(
                    answer != u64::from(std::process::id()),
                    "ask_a_child returned Ok, but `answer` ran in the parent. Return an error if it did not run in a child."
                );
                check!(
                    answer != 0,
                    "The child answered with its PID, and ask_a_child returned 0."
                );
            }
            Err(error) => {
                check!(
                    refused.is_none_or(|refusal| refusal.errno != Errno::EINTR),
                    "ask_a_child returned the error \"{error}\"; expected it to call waitpid again after EINTR."
                );
                expect_errno("ask_a_child", &error, refused);
            }
        },
        |seen| seen.expect_nothing_left(),
    )
}
