//! Grades `shared-ipc`: a module for each stage, a case for each test.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use judge::probe::{mapped_pages, page_size, resident_pages, rights};
use judge::{case, check, in_child, pretend, watch, watched};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use shared_ipc::{Shared, ask_a_child};
use zerocopy::FromBytes;

/// 512 KiB, across many pages of any size.
type Numbers = [AtomicU64; 64 << 10];

/// A macro, and no function: a function would name the bound that the learner is to find.
macro_rules! new {
    ($type:ty) => {
        match Shared::<$type>::new() {
            Ok(shared) => shared,
            Err(error) => judge::fail(format!(
                "Shared::new() must map a value of {} bytes, and gave an error: {error}.",
                size_of::<$type>()
            )),
        }
    };
}

mod by_hand {
    use super::*;

    fn asked(answer: fn() -> u64) -> u64 {
        match ask_a_child(answer) {
            Ok(answer) => answer,
            Err(error) => judge::fail(format!(
                "ask_a_child must give the child's answer, and gave an error: {error}."
            )),
        }
    }

    #[test]
    fn the_answer_arrives() {
        case(|| {
            let answer = asked(|| 0xFEED_FACE_CAFE_BEEF);
            check!(
                answer != 0,
                "The child's answer did not arrive, and the parent reads 0: is the memory shared, mapped before the fork, \
                 and read after the wait?"
            );
            check!(
                answer == 0xFEED_FACE_CAFE_BEEF,
                "The child answered 0xFEED_FACE_CAFE_BEEF, and the parent reads {answer:#X}."
            );
        })
    }

    #[test]
    fn the_child_answers() {
        case(|| {
            let answer = asked(|| std::process::id().into());
            check!(
                answer != u64::from(std::process::id()),
                "The parent has answered itself: the question must be put in the child."
            );
        })
    }

    #[test]
    fn asks_for_these_calls() {
        watched(
            || {
                watch(|| asked(|| 1));
            },
            |seen| seen.expect_transcript("by_hand"),
        )
    }
}

mod shared {
    use super::*;

    #[test]
    fn zeroed() {
        case(|| {
            for _ in 0..2 {
                let numbers = new!(Numbers);
                check!(
                    numbers.iter().all(|number| number.load(SeqCst) == 0),
                    "A new value's bytes must be zero."
                );
                numbers.iter().for_each(|number| number.store(1, SeqCst));
            }
        })
    }

    #[test]
    fn a_childs_writes_arrive() {
        case(|| {
            let numbers = new!(Numbers);
            in_child(|| {
                for (index, number) in numbers.iter().enumerate() {
                    number.store(index as u64 + 1, SeqCst);
                }
                0
            });
            let mut numbers = numbers.iter().zip(1..);
            check!(
                numbers.all(|(number, value)| number.load(SeqCst) == value),
                "A child wrote every number, and its parent does not see them: this memory is private."
            );
        })
    }

    #[test]
    fn nobody_elses() {
        case(|| {
            let one = new!(Numbers);
            let other = new!(Numbers);
            one.iter().for_each(|number| number.store(1, SeqCst));
            check!(
                other.iter().all(|number| number.load(SeqCst) == 0),
                "A write to one value is seen in another: each must have memory of its own."
            );
        })
    }

    #[test]
    fn never_on_the_stack() {
        case(|| {
            // 64 MiB: no thread's stack holds it.
            let bytes = new!([AtomicU8; 64 << 20]);
            let start = bytes.as_ptr().cast();
            check!(
                resident_pages(start, 64 << 20) == 0,
                "Pages of a new value were resident before anything had touched them: the kernel has zeroed it already."
            );
            bytes[(64 << 20) - 1].store(1, SeqCst);
        })
    }

    #[test]
    fn mapped_as_asked() {
        case(|| {
            let numbers = new!(Numbers);
            let start: *const u8 = numbers.as_ptr().cast();
            let first = rights(start);
            check!(
                first.read && first.write && !first.execute,
                "The value must be mapped to be read and written, and not to be executed."
            );
            check!(
                first.shared,
                "The value lies in private memory: a child would write to a copy."
            );
            let mut pages = (0..size_of::<Numbers>()).step_by(page_size());
            check!(
                pages.all(|offset| rights(start.wrapping_add(offset)) == first),
                "The value reaches past the end of its mapping: all of its bytes must be mapped."
            );
        })
    }

    #[derive(FromBytes)]
    #[repr(C, align(2097152))]
    struct Aligned([u8; 2 << 20]);

    #[test]
    fn aligned_to_more_than_a_page() {
        watched(
            || {
                watch(|| {
                    match Shared::<Aligned>::new() {
                    Ok(_) => judge::fail(
                        "A value aligned to 2 MiB must be an error: a mapping begins with a page, wherever that is."
                            .to_owned(),
                    ),
                    Err(error) => check!(
                        error.kind() == ErrorKind::InvalidInput,
                        "A value aligned to 2 MiB must be InvalidInput, and the error was {:?}.",
                        error.kind()
                    ),
                }
                })
            },
            |seen| seen.expect_ledger("refused"),
        )
    }

    /// Aligned to the largest page of aarch64.
    #[derive(FromBytes)]
    #[repr(C, align(65536))]
    struct PageAligned([u8; 64 << 10]);

    #[test]
    fn asks_the_page_size() {
        case(|| {
            pretend::page_size(align_of::<PageAligned>());
            if let Err(error) = Shared::<PageAligned>::new() {
                judge::fail(format!(
                    "On a machine whose pages are 64 KiB a mapping has room for a value aligned to 64 KiB, and \
                     Shared::new() gave an error ({error}): the page size must come from sysconf."
                ));
            }
        })
    }

    #[test]
    fn of_no_size() {
        case(|| {
            let nothing = new!([AtomicU64; 0]);
            check!(
                mapped_pages(nothing.as_ptr().cast(), 1) == 1,
                "A value of no size must have a page of its own, too."
            );
        })
    }

    #[test]
    fn gone_after_drop() {
        case(|| {
            let numbers = new!(Numbers);
            let start = numbers.as_ptr().cast();
            let pages = size_of::<Numbers>() / page_size();
            drop(numbers);
            let left = mapped_pages(start, size_of::<Numbers>());
            check!(
                left < pages,
                "After the value was dropped the kernel still maps all of it: Drop must unmap."
            );
            check!(
                left == 0,
                "After the value was dropped the kernel still maps a part of it: Drop must unmap the whole length."
            );
        })
    }

    #[test]
    fn leaves_nothing() {
        watched(
            || watch(|| drop(new!(Numbers))),
            |seen| seen.expect_ledger("shared"),
        )
    }
}

mod child {
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
}

mod bound {
    use super::*;

    #[test]
    fn plain_values_may_be_shared() {
        case(|| {
            let number = new!(AtomicU64);
            number.store(1, SeqCst);
            let _plain = new!([[u32; 4]; 4]);
        })
    }
}

judge::compile_fail! {
    bound: a_string, a_box, a_reference, a_pointer, a_cell, a_mutex, written_through
}
