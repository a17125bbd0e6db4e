//! Grades `mutex-counter`: a module for each stage, a case for each test.
//!
//! Exclusion is never judged by a sum, which may come out right without a lock, too. The processes are made to meet,
//! over pipes.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use judge::{case, check, in_child, watch, watched};
use mutex_counter::{Counter, Entry};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

fn new() -> Counter {
    match Counter::new() {
        Ok(counter) => counter,
        Err(error) => judge::fail(format!(
            "Counter::new() must map a counter, and gave an error: {error}."
        )),
    }
}

fn locked<R>(counter: &Counter, f: impl FnOnce(&mut u64, Entry) -> R) -> R {
    match counter.with_lock(f) {
        Ok(result) => result,
        Err(error) => judge::fail(format!(
            "with_lock must lock a lock that nobody has, and gave an error: {error}."
        )),
    }
}

fn got(counter: &Counter) -> u64 {
    match counter.get() {
        Ok(number) => number,
        Err(error) => judge::fail(format!(
            "get() must read a counter that nobody has locked, and gave an error: {error}."
        )),
    }
}

/// Forks; the child runs `f` and ends.
fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: a case has one thread of its own besides libtest's, which holds no lock while it waits for the case.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let ended = panic::catch_unwind(AssertUnwindSafe(f));
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
    }
}

/// A child that says something once it is done.
struct Speaker {
    pid: Pid,
    said: PipeReader,
}

impl Speaker {
    /// Forks; the child runs `f`, and says what that gives.
    fn new(f: impl FnOnce() -> String) -> Speaker {
        let (said, mut say) = io::pipe().expect("a pipe");
        let pid = child(|| say.write_all(f().as_bytes()).expect("the pipe is open"));
        Speaker { pid, said }
    }

    /// What it has said; nothing if it was killed.
    fn said(mut self) -> String {
        let mut said = String::new();
        self.said
            .read_to_string(&mut said)
            .expect("the child has ended");
        said
    }
}

/// A child that is to wait at a locked door: it says the error if `f` gives one.
fn waiter(f: impl FnOnce() -> io::Result<()>) -> Speaker {
    Speaker::new(|| {
        f().err()
            .map_or_else(String::new, |error| error.to_string())
    })
}

/// Fails the case if `call`, which the waiter made, has given an error.
fn expect_no_error(waiter: Speaker, call: &str) {
    let error = waiter.said();
    check!(
        error.is_empty(),
        "{call} must wait until another process gives the lock back, and gave an error: {error}."
    );
}

/// A message between processes.
struct Message {
    from: PipeReader,
    to: PipeWriter,
}

impl Message {
    fn new() -> Message {
        let (from, to) = io::pipe().expect("a pipe");
        Message { from, to }
    }

    fn send(&self) {
        (&self.to).write_all(b"!").expect("the pipe is open");
    }

    fn wait(&self) {
        (&self.from).read_exact(&mut [0]).expect("the pipe is open");
    }

    /// Whether it comes in time.
    fn comes_within(&self, time: Duration) -> bool {
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).expect("a short time");
        poll(&mut fds, timeout) == Ok(1)
    }
}

/// Long enough for a process that nothing holds back, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(3);
/// Long enough for a process at the door to get in, where nothing keeps it out.
const A_WHILE: Duration = Duration::from_millis(100);

/// What `with_lock` told a child, or its error in words.
type Told = Result<Entry, String>;

/// Locks in a child, and fails with the sentence if that takes too long.
fn lock_in_a_child(counter: &Counter, otherwise: &str) -> Told {
    let locked = Message::new();
    let child = Speaker::new(|| {
        let entry = counter.with_lock(|number, entry| {
            *number += 1;
            entry
        });
        locked.send();
        match entry {
            Ok(Entry::Clean) => CLEAN.to_owned(),
            Ok(Entry::OwnerDied) => OWNER_DIED.to_owned(),
            Err(error) => error.to_string(),
        }
    });
    let in_time = locked.comes_within(SOON);
    if !in_time {
        let _ = kill(child.pid, Signal::SIGKILL);
    }
    let _ = waitpid(child.pid, None);
    check!(in_time, "{otherwise}");
    match child.said() {
        said if said == CLEAN => Ok(Entry::Clean),
        said if said == OWNER_DIED => Ok(Entry::OwnerDied),
        error => Err(error),
    }
}

/// As a child says it.
const CLEAN: &str = "clean";
const OWNER_DIED: &str = "owner died";

/// `said Clean`, `gave an error: ...`.
fn in_words(told: &Told) -> String {
    match told {
        Ok(entry) => format!("said {entry:?}"),
        Err(error) => format!("gave an error: {error}"),
    }
}

mod lock {
    use super::*;

    #[test]
    fn begins_at_zero_and_counts() {
        case(|| {
            let counter = new();
            check!(got(&counter) == 0, "A new counter must be 0.");
            locked(&counter, |number, entry| {
                check!(
                    entry == Entry::Clean,
                    "Nobody has had the lock yet, and with_lock says that its owner died."
                );
                *number += 5;
            });
            check!(
                got(&counter) == 5,
                "with_lock added 5 to the number, and get() does not see it."
            );
        })
    }

    #[test]
    fn gives_the_closures_result() {
        case(|| {
            let counter = new();
            check!(
                locked(&counter, |_, _| "result") == "result",
                "with_lock must give the closure's result."
            );
        })
    }

    #[test]
    fn a_child_counts_on_the_same_number() {
        case(|| {
            let counter = new();
            in_child(|| {
                locked(&counter, |number, _| *number += 1);
                0
            });
            check!(
                got(&counter) == 1,
                "A child added 1, and its parent does not see it: the number must lie in shared memory."
            );
        })
    }

    #[test]
    fn leaves_nothing() {
        watched(
            || {
                watch(|| {
                    let counter = new();
                    locked(&counter, |number, _| *number += 1);
                })
            },
            |seen| {
                let ledger = seen.ledger();
                check!(
                    ledger.contains("still mapped: nothing"),
                    "After the counter was dropped its memory is still mapped: Drop must unmap."
                );
                check!(
                    ledger.contains("descriptors left: 0"),
                    "After the counter was dropped a descriptor is still open."
                );
            },
        )
    }

    #[test]
    fn dropped_in_a_child() {
        case(|| {
            let counter = new();
            let theirs = &counter;
            in_child(|| {
                // SAFETY: the child drops its copy of the value, and ends without using it again.
                drop(unsafe { std::ptr::read(theirs) });
                0
            });
            let told = lock_in_a_child(
                &counter,
                "After one process had dropped its counter another could not lock it: Drop must only unmap.",
            );
            check!(
                told == Ok(Entry::Clean),
                "After one process had dropped its counter, with_lock in another {}: Drop must only unmap.",
                in_words(&told)
            );
        })
    }
}

mod exclusion {
    use super::*;

    /// One process waits inside; whether another gets in meanwhile, and whether it does afterwards.
    #[test]
    fn one_process_at_a_time() {
        case(|| {
            let counter = new();
            let [inside, leave, at_the_door, second_inside] = [(); 4].map(|()| Message::new());
            let first = child(|| {
                locked(&counter, |number, _| {
                    let before = *number;
                    inside.send();
                    leave.wait();
                    *number = before + 1;
                });
            });
            inside.wait();
            let second = waiter(|| {
                at_the_door.send();
                counter.with_lock(|number, _| {
                    second_inside.send();
                    *number += 1;
                })
            });
            at_the_door.wait();
            let both = second_inside.comes_within(A_WHILE);
            leave.send();
            let after = both || second_inside.comes_within(SOON);
            if !after {
                let _ = kill(second.pid, Signal::SIGKILL);
            }
            for pid in [first, second.pid] {
                let _ = waitpid(pid, None);
            }
            expect_no_error(second, "with_lock");
            check!(
                !both,
                "A second process had the number while the first still had it: the lock does not keep it out."
            );
            check!(
                after,
                "A process that waited for the lock was never woken when another gave it back: a mutex wakes nobody in \
                 another process unless it is told that it is shared."
            );
            check!(
                got(&counter) == 2,
                "Two processes added 1 each, one after the other, and the number is not 2."
            );
        })
    }

    #[test]
    fn get_waits_too() {
        case(|| {
            let counter = new();
            let [inside, leave, at_the_door, read] = [(); 4].map(|()| Message::new());
            let first = child(|| {
                locked(&counter, |number, _| {
                    *number = 1;
                    inside.send();
                    leave.wait();
                    *number = 2;
                });
            });
            inside.wait();
            let second = waiter(|| {
                at_the_door.send();
                counter.get()?;
                read.send();
                Ok(())
            });
            at_the_door.wait();
            let early = read.comes_within(A_WHILE);
            leave.send();
            let after = early || read.comes_within(SOON);
            if !after {
                let _ = kill(second.pid, Signal::SIGKILL);
            }
            for pid in [first, second.pid] {
                let _ = waitpid(pid, None);
            }
            expect_no_error(second, "get()");
            check!(
                !early,
                "get() read the number while another process was changing it: it must lock, too."
            );
        })
    }
}

mod paths {
    use super::*;

    #[test]
    fn a_panic_goes_on_and_the_lock_is_given_back() {
        case(|| {
            judge::expect_panics();
            let counter = new();
            let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
                let _ = counter.with_lock(|_, _| panic!("on purpose"));
            }));
            let Err(payload) = panicked else {
                judge::fail(
                    "A panic in the closure must go on to the caller of with_lock, and was lost."
                        .to_owned(),
                )
            };
            check!(
                payload.downcast_ref::<&str>() == Some(&"on purpose"),
                "A panic in the closure must go on to the caller of with_lock as it is, and another one came."
            );
            let told = lock_in_a_child(
                &counter,
                "After a panic in the closure the lock was never given back: unlock where the closure unwinds, too.",
            );
            check!(
                told == Ok(Entry::Clean),
                "After a panic in the closure the lock must be given back, and the next with_lock {}.",
                in_words(&told)
            );
        })
    }

    #[test]
    fn twice_by_one_owner() {
        case(|| {
            let counter = new();
            let nested = locked(&counter, |_, _| counter.with_lock(|_, _| ()).is_err());
            check!(
                nested,
                "with_lock inside with_lock must be an error: there are two &mut to one number now."
            );
            let read = locked(&counter, |_, _| counter.get().is_err());
            check!(
                read,
                "get() inside with_lock must be an error: it would read the number while the closure holds a &mut to it."
            );
            let told = lock_in_a_child(
                &counter,
                "After a refused with_lock the lock was never given back: only who has locked unlocks.",
            );
            check!(
                told == Ok(Entry::Clean),
                "After a refused with_lock the next one must find all well, and it {}.",
                in_words(&told)
            );
        })
    }

    #[test]
    fn the_refusal_keeps_the_lock() {
        case(|| {
            let counter = new();
            let [at_the_door, inside] = [(); 2].map(|()| Message::new());
            let mut second = None;
            let kept_out = locked(&counter, |_, _| {
                let _ = counter.with_lock(|_, _| ());
                second = Some(child(|| {
                    at_the_door.send();
                    let _ = counter.with_lock(|_, _| ());
                    inside.send();
                }));
                at_the_door.wait();
                !inside.comes_within(A_WHILE)
            });
            let after = inside.comes_within(SOON);
            if let Some(pid) = second {
                if !after {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                let _ = waitpid(pid, None);
            }
            check!(
                kept_out,
                "A refused with_lock gave the lock of the outer one away."
            );
        })
    }
}

mod death {
    use super::*;

    /// A process that writes `number` under the lock, and is killed there.
    fn die_inside(counter: &Counter, number: u64) {
        let inside = Message::new();
        let pid = child(|| {
            let _ = counter.with_lock(|shared, _| {
                *shared = number;
                inside.send();
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        });
        let came = inside.comes_within(SOON);
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
        check!(
            came,
            "A process never got the lock: after an owner's death it must be usable again and again \
             (pthread_mutex_consistent)."
        );
    }

    const NEVER: &str = "A process died with the lock, and the next one waits for it forever: ask for a robust mutex.";

    fn expect_told(told: Told, expected: Entry, when: &str) {
        check!(
            told == Ok(expected),
            "{when}, with_lock must say {expected:?}, and it {}.",
            in_words(&told)
        );
    }

    #[test]
    fn the_next_is_told_once() {
        case(|| {
            let counter = new();
            die_inside(&counter, 7);
            let told = lock_in_a_child(&counter, NEVER);
            expect_told(told, Entry::OwnerDied, "Right after its owner's death");
            let told = lock_in_a_child(&counter, NEVER);
            expect_told(told, Entry::Clean, "Once somebody has been told");
            check!(
                got(&counter) == 9,
                "The number must stay as the dead owner left it, and two more were added to 7."
            );
        })
    }

    #[test]
    fn again_and_again() {
        case(|| {
            let counter = new();
            for _ in 0..3 {
                die_inside(&counter, 7);
                let told = lock_in_a_child(&counter, NEVER);
                expect_told(told, Entry::OwnerDied, "After each owner's death");
            }
        })
    }

    #[test]
    fn get_leaves_the_news() {
        case(|| {
            let counter = new();
            die_inside(&counter, 7);
            check!(
                got(&counter) == 7,
                "After its owner's death get() must read what is there."
            );
            let told = lock_in_a_child(&counter, NEVER);
            expect_told(told, Entry::OwnerDied, "After get() has read");
        })
    }

    #[test]
    fn the_parent_is_told_too() {
        case(|| {
            let counter = new();
            die_inside(&counter, 7);
            let entry = locked(&counter, |_, entry| entry);
            check!(
                entry == Entry::OwnerDied,
                "A child died with the lock, and its parent's with_lock does not say so."
            );
        })
    }
}

judge::compile_fail! {
    exclusion: returned, kept_outside
}
