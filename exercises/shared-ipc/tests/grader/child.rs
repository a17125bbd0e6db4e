//! Stage 3: child exit and waitpid.

use std::io::{self, Write};
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::*;

/// Calls the answer's `run_child`.
fn run(numbers: &Shared<Numbers>, f: impl FnOnce(&Numbers)) -> io::Result<()> {
    // SAFETY: the only other thread is libtest's main thread, which holds no lock while it waits for the case.
    unsafe { numbers.run_child(f) }
}

fn expect_success(result: io::Result<()>) {
    if let Err(error) = result {
        judge::fail(format!(
            "The child ended well, and run_child gave an error: {error}."
        ));
    }
}

/// Fails the case unless `run_child` returned an error whose message contains `words`.
fn expect_reported(result: io::Result<()>, how: &str, words: &str) {
    match result {
        Ok(()) => judge::fail(format!(
            "The child {how}, and run_child said that all was well."
        )),
        Err(error) => {
            let message = error.to_string();
            check!(
                message.contains(words),
                "The child {how}, and run_child's error does not say `{words}`: {message}."
            );
        }
    }
}

#[test]
fn its_writes_arrive() {
    case(|| {
        let numbers = new!(Numbers);
        let parent = std::process::id();
        expect_success(run(&numbers, |numbers| {
            numbers[0].store(std::process::id().into(), SeqCst);
            numbers[numbers.len() - 1].store(7, SeqCst);
        }));
        check!(
            numbers[numbers.len() - 1].load(SeqCst) == 7,
            "What the child wrote has not arrived when run_child returns."
        );
        check!(
            numbers[0].load(SeqCst) != u64::from(parent),
            "The closure ran in the parent: run_child must fork."
        );
    })
}

#[test]
fn output_is_not_doubled() {
    case(|| {
        let numbers = new!(Numbers);
        let captured = CapturedStdout::begin();
        register_exit_handler();
        // Without a newline, the text is still in the buffer when the child is forked.
        print!("once");
        expect_success(run(&numbers, |_| ()));
        let text = captured.end();
        check!(
            text.matches("once").count() == 1,
            "Output that was buffered before the fork came out twice: the child must end by _exit, which flushes \
             nothing."
        );
        check!(
            !text.contains("handler"),
            "The child ran a handler that its parent had registered with atexit: it must end by _exit, which runs \
             none."
        );
    })
}

/// Registers a handler with atexit that writes to standard output, unless it runs in this process.
fn register_exit_handler() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler() {
        if std::process::id() != PARENT.load(SeqCst) {
            // SAFETY: the string is 7 bytes long.
            unsafe { libc::write(1, c"handler".as_ptr().cast(), 7) };
        }
    }
    PARENT.store(std::process::id(), SeqCst);
    // SAFETY: `handler` is never unloaded and may run at any exit: it uses only an atomic and write(2).
    unsafe { libc::atexit(handler) };
}

/// Standard output, redirected to a memfd.
struct CapturedStdout {
    memfd: i32,
    saved: i32,
}

impl CapturedStdout {
    fn begin() -> CapturedStdout {
        // SAFETY: the name is a C string.
        let memfd = unsafe { libc::memfd_create(c"output".as_ptr(), 0) };
        // SAFETY: dup(2) accesses no memory.
        let saved = unsafe { libc::dup(1) };
        // SAFETY: dup2(2) accesses no memory, and descriptor 1 stays open.
        unsafe { libc::dup2(memfd, 1) };
        CapturedStdout { memfd, saved }
    }

    /// Restores standard output and returns the captured text.
    fn end(self) -> String {
        let _ = io::stdout().flush();
        // SAFETY: as in `begin`.
        unsafe { libc::dup2(self.saved, 1) };
        let mut text = vec![0; 64];
        // SAFETY: `text` has room for `text.len()` bytes.
        let read = unsafe { libc::pread(self.memfd, text.as_mut_ptr().cast(), text.len(), 0) };
        text.truncate(usize::try_from(read).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn a_panic_is_told() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        expect_reported(
            run(&numbers, |_| panic!("on purpose")),
            "panicked",
            "panicked",
        );
    })
}

#[test]
fn a_signal_is_told() {
    case(|| {
        let numbers = new!(Numbers);
        let result = run(&numbers, |_| {
            // SAFETY: raise(3) accesses no memory. It kills the child, which is this process.
            unsafe { libc::raise(libc::SIGKILL) };
        });
        expect_reported(result, "was killed by signal 9", "signal 9");
    })
}

#[test]
fn a_status_is_told() {
    case(|| {
        let numbers = new!(Numbers);
        // SAFETY: ends the child, which is this process.
        let result = run(&numbers, |_| unsafe { libc::_exit(3) });
        expect_reported(result, "ended with status 3", "status 3");
    })
}

#[test]
fn other_children_are_left_alone() {
    case(|| {
        let numbers = new!(Numbers);
        // SAFETY: as in `run`.
        let other = unsafe { libc::fork() };
        if other == 0 {
            // SAFETY: ends the child, which is this process.
            unsafe { libc::_exit(5) };
        }
        // The other child exits before `run_child` forks.
        thread::sleep(Duration::from_millis(20));
        let result = run(&numbers, |_| {
            thread::sleep(Duration::from_millis(50));
        });
        if let Err(error) = result {
            judge::fail(format!(
                "The child ended well, and run_child told how another child of its caller's had ended ({error}): \
                 wait for the one that you forked."
            ));
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let waited = unsafe { libc::waitpid(other, &raw mut status, 0) };
        check!(
            waited == other,
            "run_child took the status of another child of its caller's: wait for the one that you forked."
        );
    })
}

#[test]
fn a_signal_does_not_end_the_wait() {
    case(|| {
        let numbers = new!(Numbers);
        interrupt_on_sigusr1();
        let (process, thread) = (
            nix::unistd::getpid().as_raw(),
            nix::unistd::gettid().as_raw(),
        );
        let result = run(&numbers, |_| {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(20));
                // SAFETY: tgkill(2) accesses no memory. It signals the thread that waits for this child.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
            }
            thread::sleep(Duration::from_millis(20));
        });
        if let Err(error) = result {
            judge::fail(format!(
                "A signal interrupted the wait for the child, and run_child gave an error ({error}): wait again."
            ));
        }
    })
}

/// Installs a SIGUSR1 handler without SA_RESTART that does nothing, so that the signal interrupts system calls.
fn interrupt_on_sigusr1() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction accepts a SIGUSR1 handler");
    judge::rebase_state();
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            let numbers = watch(|| new!(Numbers));
            watch(|| {
                expect_success(run(&numbers, |_| ()));
                drop(numbers);
            })
        },
        |seen| seen.expect_ledger("shared"),
    )
}
