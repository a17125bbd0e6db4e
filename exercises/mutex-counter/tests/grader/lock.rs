//! Stage 1: process-shared setup.

use std::fs;
use std::ops::Range;
use std::ptr::null_mut;

use judge::probe;
use nix::libc;

use super::*;

#[test]
fn begins_at_zero_and_counts() {
    case(|| {
        let counter = new_counter();
        let number = get(&counter);
        check!(
            number == 0,
            "get() returned {number} for a new counter; expected 0."
        );
        for value in [5, u64::from(u32::MAX) + 7, u64::MAX] {
            with_lock(&counter, |number, entry| {
                check!(
                    entry == Entry::Clean,
                    "with_lock passed Entry::OwnerDied, but no process has died; expected Entry::Clean."
                );
                *number = value;
            });
            let number = with_lock(&counter, |number, _| *number);
            check!(
                number == value,
                "A closure stored {value}, and the next with_lock passed {number} to its closure. Pass the closure a \
                 reference to a u64 in shared memory, not a copy."
            );
            for _ in 0..2 {
                let number = get(&counter);
                check!(
                    number == value,
                    "A closure stored {value}, and get() returned {number}. Read the number in shared memory."
                );
            }
        }
        let number = with_lock(&counter, |number, _| (&raw const *number).addr());
        let number = std::ptr::with_exposed_provenance(number);
        let before = get(&counter);
        let is_copy = !probe::permissions(number).shared
            && matches!(add_one_elsewhere(&counter), Outcome::Entered(..))
            && get(&counter) != before;
        check!(
            !is_copy,
            "with_lock passed its closure a reference to a copy outside the shared memory. If the process is killed in \
             the closure, what it stored is lost. Pass a reference to the number in the shared memory."
        );
        probe::expect_plain(
            "The counter's memory",
            number,
            size_of::<u64>(),
            probe::Kind::MayBeLocked,
        );
        // With glibc, other processes can use a robust mutex all the same.
        let mutex = probe::process_private_mutex();
        check!(
            !mutex.is_some_and(|mutex| probe::permissions(mutex).shared),
            "Counter::new() initialised a mutex without PTHREAD_PROCESS_SHARED, and other processes use it; POSIX leaves \
             undefined what happens then. Call pthread_mutexattr_setpshared after pthread_mutexattr_init."
        );
        check!(
            !probe::unlocked_a_copied_mutex(),
            "Counter::new() initialised a mutex in private memory, and with_lock used a copy of it in shared memory. \
             POSIX leaves undefined what a copy of a mutex does. Pass pthread_mutex_init the address in the shared \
             memory."
        );
    })
}

/// Numbers that the code counts must not overflow, and descriptors that it opens must not accumulate.
#[test]
fn used_many_times() {
    case(|| {
        let counter = new_counter();
        for nth in 1..=MANY {
            let result = counter.with_lock(|number, _| *number += 1);
            let result = result.and_then(|()| counter.get());
            match result {
                Ok(number) if number == nth => {}
                Ok(number) => fail(format!(
                    "with_lock was called {nth} times, and its closure added 1 each time. Then get() returned {number}; \
                     expected {nth}."
                )),
                Err(error) => fail(format!(
                    "with_lock and get() were called again and again. Call {nth} of one of them returned an error, but \
                     nobody held the lock: {error}."
                )),
            }
        }
    })
}

/// More often than 16 bits can count.
const MANY: u64 = 70_000;

#[test]
fn a_child_changes_the_same_number() {
    case(|| {
        let counter = new_counter();
        let added = Event::new();
        let reader = Caller::read(|| {
            added.wait();
            counter.get()
        });
        entered(
            add_one_elsewhere(&counter),
            "with_lock in a child",
            "with_lock in a child never returned, but nobody held the lock.",
        );
        let number = get(&counter);
        check!(
            number == 1,
            "A child added 1 to a new counter, and get() in its parent returned {number}; expected 1. The number must \
             be in shared memory (MAP_SHARED)."
        );
        let number = with_lock(&counter, |number, _| {
            *number += 1;
            *number
        });
        check!(
            number == 2,
            "A child and its parent each added 1 to a new counter, and the number is {number}; expected 2. The number \
             must be in shared memory (MAP_SHARED)."
        );
        added.send();
        let outcome = reader.outcome();
        check!(
            matches!(outcome, Outcome::Read(2)),
            "The counter was raised to 2 after a fork, and get() in the child {outcome}; expected 2. The number must be \
             in shared memory (MAP_SHARED)."
        );
    })
}

#[test]
fn two_counters() {
    case(|| {
        let [one, other] = [(); 2].map(|()| new_counter());
        with_lock(&one, |number, _| *number = 5);
        let number = get(&other);
        check!(
            number == 0,
            "A closure stored 5 in one counter, and get() of another counter returned {number}; expected 0. Map \
             separate memory for each counter."
        );
        let nested = Caller::enter(|| one.with_lock(|_, _| add_one(&other))?);
        entered_or(
            nested.outcome(),
            "with_lock inside with_lock of another counter",
            "with_lock inside with_lock of another counter never returned. Each counter needs a separate lock.",
            "Expected it to run its closure: only a second lock of the same counter is an error.",
        );
        let number = get(&other);
        check!(
            number == 1,
            "A child added 1 to the second of two counters, and get() in its parent returned {number}; expected 1."
        );
        // The lock of a moved counter is the same one.
        let holder = Holder::enter(&other, |_, pause| pause());
        let moved = Box::new(one);
        let outcome = add_one_elsewhere(&moved);
        check!(
            matches!(outcome, Outcome::Entered(Entry::Clean, 5)),
            "While a process held the lock of one counter, with_lock of another counter in another process {outcome}. \
             Expected it to run its closure: each counter needs a separate lock."
        );
        holder.leave();
        drop(moved);
        let number = get(&other);
        check!(
            number == 1,
            "A counter contained 1, another counter was dropped, and get() of the first one returned {number}; \
             expected 1. Each counter needs separate memory."
        );
        let number = get(&new_counter());
        check!(
            number == 0,
            "get() returned {number} for a new counter, after another counter had been used; expected 0. Initialise \
             the number to 0 in Counter::new."
        );
    })
}

/// Counts how often it is dropped.
struct Dropped<'a>(&'a Cell<usize>, [usize; 512]);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn returns_the_closures_result() {
    case(|| {
        let counter = new_counter();
        let [result, captured] = [(); 2].map(|()| Cell::new(0));
        let moved = Dropped(&captured, [1; 512]);
        let returned = with_lock(&counter, |_, _| {
            let values = moved.1.map(|value| value + 6);
            drop(moved);
            Dropped(&result, values)
        });
        check!(
            returned.1 == [7; 512],
            "The closure returned an array of 512 numbers, and with_lock returned other numbers. Return the closure's \
             result unchanged."
        );
        drop(returned);
        for (what, drops) in [("result", result.get()), ("captured value", captured.get())] {
            check!(
                drops == 1,
                "The closure's {what} was dropped {drops} times; expected once. Call the closure once, and return its \
                 result by value."
            );
        }
        let error = with_lock(&counter, |_, _| Err::<(), _>("its own error"));
        check!(
            error == Err("its own error"),
            "The closure returned Err, and with_lock returned Ok({error:?}); expected the closure's result in Ok."
        );
    })
}

#[test]
fn made_in_two_processes() {
    case(|| {
        let _first = new_counter();
        let made = Event::new();
        let child = Process::fork(|| {
            made.wait();
            let counter = new_counter();
            with_lock(&counter, |number, _| *number += 5);
            String::new()
        });
        let counter = new_counter();
        with_lock(&counter, |number, _| *number += 1);
        made.send();
        if let End::Died(how) = child.end() {
            fail(format!(
                "A child called Counter::new and added 5 to the new counter, but the child {how}. Expected it to go \
                 on."
            ));
        }
        let number = get(&counter);
        check!(
            number == 1,
            "A process and its child each called Counter::new after the fork. The process added 1 to its counter, the \
             child added 5 to the other one, and the process read {number}; expected 1. Map separate memory for each \
             counter."
        );
    })
}

#[test]
fn dropped_in_one_process() {
    case(|| {
        let counter = new_counter();
        let shared = &counter;
        let dropped = Process::fork(|| {
            let before = shared_mappings();
            // SAFETY: the child drops this copy, and exits without using or dropping the original.
            drop(unsafe { std::ptr::read(shared) });
            match shared_mappings() < before {
                true => String::new(),
                false => "kept".to_owned(),
            }
        });
        match dropped.end() {
            End::Died(how) => fail(format!(
                "A child dropped its counter, and Drop did not return: the child {how}. Expected Drop to unmap the \
                 memory and return."
            )),
            End::Reported(kept) => check!(
                kept.is_empty(),
                "A child dropped its counter, and the shared memory is still mapped in the child. Expected Drop to \
                 unmap it in each process that drops the counter."
            ),
            End::Stuck => {}
        }
        let advice = "Do not destroy or release the lock in Drop: other processes still use it.";
        let call = "After a child had dropped its counter, with_lock in another process";
        let never = format!("{call} never returned. {advice}");
        let (entry, _) = entered_or(add_one_elsewhere(&counter), call, &never, advice);
        check!(
            entry == Entry::Clean,
            "{call} passed Entry::OwnerDied; expected Entry::Clean, because no process died inside with_lock."
        );

        let dropped = Event::new();
        let callers = [(); 2].map(|()| {
            Caller::enter(|| {
                dropped.wait();
                add_one(&counter)
            })
        });
        let before = shared_mappings();
        drop(counter);
        check!(
            shared_mappings() < before,
            "A child dropped its counter, and then its parent did. The shared memory is still mapped in the parent. \
             Expected each process to unmap it: a child has a copy of each counter, so do not count copies or record \
             the unmapping in shared memory."
        );
        dropped.send();
        dropped.send();
        let when = "After the process that made the counter had dropped it,";
        let call = format!("{when} with_lock in another process");
        let never = format!("{call} never returned. {advice}");
        let [one, other] =
            callers.map(|caller| entered_or(caller.outcome(), &call, &never, advice).1);
        check!(
            one.min(other) == 1 && one.max(other) == 2,
            "{when} two processes each added 1 to a counter that contained 1, and with_lock passed {one} and {other} \
             to their closures; expected 1 and 2."
        );
    })
}

/// A counter that can be moved to another thread even if it is not `Send`. The case uses it only if it is.
struct Moved(Counter);

// SAFETY: `unmapped_wherever_it_is_dropped` moves it only if `Counter` is `Send`.
unsafe impl Send for Moved {}

impl Moved {
    fn drop_it(self) {
        drop(self.0);
    }
}

#[test]
fn unmapped_wherever_it_is_dropped() {
    case(|| {
        judge::expect_panics();
        let outer = new_counter();
        let used = || {
            let counter = new_counter();
            with_lock(&counter, |number, _| *number += 1);
            counter
        };
        let during_a_panic = || {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                let _counter = used();
                panic::resume_unwind(Box::new(()));
            }));
        };
        let in_a_closure = || {
            let counter = used();
            with_lock(&outer, |_, _| drop(counter));
        };
        let in_a_thread = || {
            let moved = Moved(used());
            if impls::impls!(Counter: Send) {
                let _ = std::thread::spawn(|| moved.drop_it()).join();
            }
        };
        let places: [(&str, &dyn Fn()); 4] = [
            ("before it was used", &|| drop(new_counter())),
            ("while its thread was panicking", &during_a_panic),
            ("inside with_lock of another counter", &in_a_closure),
            ("in another thread", &in_a_thread),
        ];
        for (place, drop_a_counter) in places {
            let before = shared_mappings();
            drop_a_counter();
            let left = shared_mappings().saturating_sub(before);
            check!(
                left == 0,
                "A counter was dropped {place}, and its shared memory is still mapped. Expected Drop to unmap it each \
                 time."
            );
        }
    })
}

/// Does nothing if `Counter` is not `Clone`.
#[test]
fn cloned() {
    case(|| {
        let before = shared_mappings();
        for (original_first, first, other, when) in [
            (true, "original", "clone", ""),
            (false, "clone", "original", ""),
            (
                true,
                "original",
                "clone",
                ", a child dropped its copies of both, another child made one more clone and exited",
            ),
        ] {
            let counter = new_counter();
            let Some(clone) = judge::clone_if_possible!(Counter, &counter) else {
                return;
            };
            with_lock(&counter, |number, _| *number += 1);
            let number = get(&clone);
            check!(
                number == 1,
                "A counter was cloned, and a closure added 1 through the original. Then get() of the clone returned \
                 {number}; expected 1. A clone is the same counter: share the mapping (Arc), or leave out Clone."
            );
            let inside = Caller::enter(|| counter.with_lock(|_, _| add_one(&clone))?).outcome();
            let how = match inside {
                Outcome::Error(_) => None,
                Outcome::Entered(..) => {
                    Some("ran its closure: there are two &mut to one number now")
                }
                Outcome::Read(_) | Outcome::Died(_) | Outcome::Stuck => Some("did not return"),
            };
            if let Some(how) = how {
                fail(format!(
                    "with_lock of a clone, called inside with_lock of the original, {how}. A clone is the same counter: \
                     expected an error."
                ));
            }
            if !when.is_empty() {
                let drops = Process::fork(|| {
                    for copied in [&counter, &clone] {
                        // SAFETY: the child drops this copy, and exits without using or dropping the original.
                        drop(unsafe { std::ptr::read(copied) });
                    }
                    String::new()
                });
                let _ = drops.end();
                let clones = Process::fork(|| {
                    std::mem::forget(judge::clone_if_possible!(Counter, &counter));
                    String::new()
                });
                let _ = clones.end();
            }
            let (dropped, kept) = match original_first {
                true => (counter, clone),
                false => (clone, counter),
            };
            drop(dropped);
            let read = Caller::read(|| kept.get()).outcome();
            if !matches!(read, Outcome::Read(1)) {
                // Its drop may unmap the memory once more.
                std::mem::forget(kept);
                fail(format!(
                    "A counter was cloned, a closure added 1{when}, and the {first} was dropped. Then get() of the {other} \
                     {read}; expected 1. Share the mapping (Arc), so that the last one \
                     unmaps it, or leave out Clone."
                ));
            }
            drop(kept);
            let left = shared_mappings().saturating_sub(before);
            let advice = match when.is_empty() {
                true => "",
                false => {
                    " Count the clones of each process separately, in private memory (Rc, Arc): a child has copies of \
                     its own."
                }
            };
            check!(
                left == 0,
                "A counter was cloned{when}, and the counter and its clone were dropped. The memory is still mapped. The \
                 last one to be dropped in a process must unmap it.{advice}"
            );
        }
    })
}

/// Calls `Counter::new` with an errno that none of its calls has set.
fn new_after_another_error() -> io::Result<Counter> {
    Errno::EXDEV.set();
    Counter::new()
}

/// The calls that may fail while a counter is made or dropped.
const SETUP: [(&str, Errno); 13] = [
    ("mmap", Errno::ENOMEM),
    ("memfd_create", Errno::EMFILE),
    ("ftruncate", Errno::ENOSPC),
    ("open", Errno::EMFILE),
    ("shmget", Errno::ENOSPC),
    ("shmat", Errno::ENOMEM),
    ("pthread_mutexattr_setpshared", Errno::EINVAL),
    ("pthread_mutexattr_settype", Errno::EINVAL),
    ("pthread_mutexattr_setrobust", Errno::EINVAL),
    ("pthread_mutexattr_setprotocol", Errno::EINVAL),
    ("pthread_mutex_init", Errno::EAGAIN),
    ("pthread_mutexattr_init", Errno::ENOMEM),
    ("munmap", Errno::ENOMEM),
];

/// The calls after whose failure an answer may still make a counter.
const REPEATABLE: [&str; 6] = [
    "mmap",
    "memfd_create",
    "ftruncate",
    "open",
    "shmget",
    "shmat",
];

/// What `leaves_nothing` notes after it has dropped a counter.
const DROPPED: u64 = 1;

#[test]
fn leaves_nothing() {
    refusals(
        &SETUP,
        |refused| {
            watch(|| {
                let refused = refused.filter(|refusal| refusal.call != "munmap");
                let counter = match (refuse(new_after_another_error), refused) {
                    (Ok(counter), None) => counter,
                    // An answer may do without this call, or repeat it.
                    (Ok(counter), Some(refusal)) if REPEATABLE.contains(&refusal.call) => counter,
                    (Ok(_), Some(refusal)) => fail(format!(
                        "Counter::new() returned Ok; expected the error {:?}. Check the result of each call.",
                        refusal.errno
                    )),
                    (Err(error), None) => fail(format!(
                        "Counter::new() returned an error: {error}. Expected a counter."
                    )),
                    (Err(error), Some(refusal)) => {
                        let same = error.raw_os_error() == Some(refusal.errno as i32);
                        check!(same, "{}", wrong_error(&error, refusal, "Counter::new()"));
                        if let Err(error) = Counter::new() {
                            fail(format!(
                                "Counter::new() returned the error. Then it was called again, and returned an error although \
                                 no call failed: {error}. Expected a counter."
                            ));
                        }
                        return;
                    }
                };
                with_lock(&counter, |number, _| *number += 1);
                get(&counter);
                refuse(|| drop(counter));
                note(DROPPED);
            });
            if refused.is_some_and(|refusal| refusal.call == "munmap") {
                // Memory that is still mapped may be locked.
                judge::rebase_state();
            }
        },
        |seen| {
            let when = match seen.notes().contains(&DROPPED) {
                true => "After the counter was dropped,",
                false => "After Counter::new() had returned an error,",
            };
            let ledger = seen.ledger();
            check!(
                ledger.contains("still mapped: nothing"),
                "{when} its memory is still mapped. Unmap all of it on every path."
            );
            check!(
                ledger.contains("descriptors left: 0"),
                "{when} a descriptor that your code opened is still open. Close it on every path."
            );
            seen.expect_nothing_left();
        },
    )
}

/// Code may report that munmap failed. Nothing may come of it if that cannot be printed.
#[test]
fn drop_does_not_panic() {
    refusals(
        &[("munmap", Errno::ENOMEM)],
        |refused| {
            judge::expect_panics();
            let [counter, other] = [(); 2].map(|()| new_counter());
            let drops = |counter: &Counter| {
                without_output();
                // SAFETY: the process exits without using or dropping the original.
                let copied = unsafe { std::ptr::read(counter) };
                refuse(|| drop(copied));
                String::new()
            };
            // Code that prints all the time is being debugged.
            let prints = || {
                without_output();
                // SAFETY: as above.
                drop(unsafe { std::ptr::read(&other) });
                String::new()
            };
            if matches!(Process::fork(prints).end(), End::Died(_)) {
                return;
            }
            if let End::Died(how) = Process::fork(|| drops(&counter)).end() {
                let when = match refused {
                    Some(_) => "Then Drop",
                    None => "Drop",
                };
                fail(format!(
                    "{when} did not return while nothing could be printed: its process {how}. Expected Drop to return. \
                     eprintln! panics if it cannot write: ignore the error."
                ));
            }
        },
        |_| (),
    )
}

#[test]
fn unmaps_only_its_own_memory() {
    case(|| {
        let page = probe::page_size();
        // The kernel puts new mappings side by side. This one is likely to be the counter's neighbour.
        let first = map_a_page(null_mut(), 0);
        let before = mappings();
        let counter = new_counter();
        let new: Vec<_> = mappings()
            .into_iter()
            .filter(|mapping| mapping.shared && !overlaps(&before, &mapping.range))
            .collect();
        let mut neighbours: Vec<usize> = first.into_iter().collect();
        for Mapping { range, .. } in &new {
            for address in [range.start - page, range.end] {
                let is_free = map_a_page(address as *mut _, libc::MAP_FIXED_NOREPLACE).is_some();
                if is_free || overlaps(&before, &(address..address + page)) {
                    neighbours.push(address);
                }
            }
        }
        drop(counter);
        let is_mapped = |address: &&usize| probe::mapped_pages(**address as *const u8, page) == 1;
        let left = neighbours.iter().filter(is_mapped).count();
        check!(
            left == neighbours.len(),
            "Dropping the counter also unmapped a page directly before or after its memory, which belongs to another \
             mapping. Pass munmap the start and the length of your mapping."
        );
        let left = new
            .iter()
            .find(|mapping| fs::exists(&mapping.file).unwrap_or(false));
        if let Some(Mapping { file, .. }) = left {
            // It would be left for good.
            let _ = fs::remove_file(file);
            fail(format!(
                "After the counter was dropped, the file {file} still exists. Use memory without a name (MAP_ANONYMOUS, \
                 memfd_create), or unlink the name as soon as the file is mapped."
            ));
        }
    })
}

/// Maps a page without access, and returns its address; `None` if mmap fails.
fn map_a_page(address: *mut libc::c_void, flag: libc::c_int) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flag;
    // SAFETY: neither flags nor address replace a mapping.
    let start = unsafe { libc::mmap(address, probe::page_size(), libc::PROT_NONE, flags, -1, 0) };
    let at = start.addr();
    (start != libc::MAP_FAILED && (flag == 0 || at == address.addr())).then_some(at)
}

/// A line of /proc/self/maps.
struct Mapping {
    range: Range<usize>,
    shared: bool,
    /// The path of the mapped file, or another name.
    file: String,
}

fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        Some(Mapping {
            range: usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?,
            shared: fields.next()?.ends_with('s'),
            // "(deleted)" after the name of an unlinked file makes it a name that no file has.
            file: fields.skip(3).collect::<Vec<_>>().join(" "),
        })
    };
    maps.lines().filter_map(parse).collect()
}

fn shared_mappings() -> usize {
    mappings().iter().filter(|mapping| mapping.shared).count()
}

fn overlaps(mappings: &[Mapping], range: &Range<usize>) -> bool {
    mappings
        .iter()
        .any(|other| other.range.start < range.end && range.start < other.range.end)
}
