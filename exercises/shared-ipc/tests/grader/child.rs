//! Stage 3: how a forked child exits, and how its parent waits for it.

use super::*;

/// Runs `f` in a child of the answer's.
fn run(numbers: &Shared<Numbers>, f: impl FnOnce(&Numbers)) -> io::Result<()> {
    // SAFETY: a case has one thread of its own besides libtest's, which holds no lock while it waits for the case.
    unsafe { numbers.run_child(f) }
}

fn expect_well(result: io::Result<()>) {
    if let Err(error) = result {
        judge::fail(format!(
            "The child ended well, and run_child gave an error: {error}."
        ));
    }
}

fn expect_told(result: io::Result<()>, how: &str, words: &str) {
    match result {
        Ok(()) => judge::fail(format!(
            "The child {how}, and run_child said that all was well."
        )),
        Err(error) => {
            let told = error.to_string();
            check!(
                told.contains(words),
                "The child {how}, and run_child's error does not say `{words}`: {told}."
            );
        }
    }
}

#[test]
fn its_writes_arrive() {
    case(|| {
        let numbers = new!(Numbers);
        let me = std::process::id();
        expect_well(run(&numbers, |numbers| {
            numbers[0].store(std::process::id().into(), SeqCst);
            numbers[numbers.len() - 1].store(7, SeqCst);
        }));
        check!(
            numbers[numbers.len() - 1].load(SeqCst) == 7,
            "What the child wrote has not arrived when run_child returns."
        );
        check!(
            numbers[0].load(SeqCst) != u64::from(me),
            "The closure ran in the parent: run_child must fork."
        );
    })
}

#[test]
fn output_is_not_doubled() {
    case(|| {
        let numbers = new!(Numbers);
        let captured = Captured::begin();
        register_handler();
        // Still in the buffer when the child is forked.
        print!("once");
        expect_well(run(&numbers, |_| ()));
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

/// From here on a child that ends by exit says so on standard output.
fn register_handler() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler() {
        if std::process::id() != PARENT.load(SeqCst) {
            // SAFETY: the words are that long.
            unsafe { libc::write(1, c"handler".as_ptr().cast(), 7) };
        }
    }
    PARENT.store(std::process::id(), SeqCst);
    // SAFETY: the handler may be called at any exit.
    unsafe { libc::atexit(handler) };
}

/// Standard output, into a file in memory.
struct Captured {
    memory: i32,
    before: i32,
}

impl Captured {
    fn begin() -> Captured {
        // SAFETY: the name is a C string.
        let memory = unsafe { libc::memfd_create(c"output".as_ptr(), 0) };
        // SAFETY: duplicates a descriptor, and touches no memory.
        let before = unsafe { libc::dup(1) };
        // SAFETY: standard output stays open, and leads elsewhere.
        unsafe { libc::dup2(memory, 1) };
        Captured { memory, before }
    }

    fn end(self) -> String {
        let _ = io::Write::flush(&mut io::stdout());
        // SAFETY: as in `begin`.
        unsafe { libc::dup2(self.before, 1) };
        let mut text = vec![0; 64];
        // SAFETY: `text` has room for its length.
        let read = unsafe { libc::pread(self.memory, text.as_mut_ptr().cast(), text.len(), 0) };
        text.truncate(usize::try_from(read).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn a_panic_is_told() {
    case(|| {
        judge::expect_panics();
        let numbers = new!(Numbers);
        expect_told(
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
            // SAFETY: sends a signal to this very process, a child.
            unsafe { libc::raise(libc::SIGKILL) };
        });
        expect_told(result, "was killed by signal 9", "signal 9");
    })
}

#[test]
fn a_status_is_told() {
    case(|| {
        let numbers = new!(Numbers);
        // SAFETY: ends this very process, a child.
        let result = run(&numbers, |_| unsafe { libc::_exit(3) });
        expect_told(result, "ended with status 3", "status 3");
    })
}

#[test]
fn other_children_are_left_alone() {
    case(|| {
        let numbers = new!(Numbers);
        // SAFETY: as in `run`.
        let other = unsafe { libc::fork() };
        if other == 0 {
            // SAFETY: ends this very process, a child.
            unsafe { libc::_exit(5) };
        }
        // It has ended before the answer's child begins.
        std::thread::sleep(Duration::from_millis(20));
        let result = run(&numbers, |_| {
            std::thread::sleep(Duration::from_millis(50));
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
        interruptible();
        let (process, thread) = (
            nix::unistd::getpid().as_raw(),
            nix::unistd::gettid().as_raw(),
        );
        let result = run(&numbers, |_| {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(20));
                // SAFETY: sends a signal to the thread that waits for this child.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
            }
            std::thread::sleep(Duration::from_millis(20));
        });
        if let Err(error) = result {
            judge::fail(format!(
                "A signal interrupted the wait for the child, and run_child gave an error ({error}): wait again."
            ));
        }
    })
}

/// From here on SIGUSR1 does nothing but interrupt.
fn interruptible() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("a handler");
}

#[test]
fn leaves_nothing() {
    watched(
        || {
            watch(|| {
                let numbers = new!(Numbers);
                expect_well(run(&numbers, |_| ()));
            })
        },
        |seen| seen.expect_ledger("shared"),
    )
}
