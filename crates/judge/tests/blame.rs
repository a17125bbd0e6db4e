//! Unusual programs, right and wrong: the judge blames none for what it did not do.

mod common {
    pub mod fork;
}

use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::ptr::null_mut;
use std::time::Duration;
use std::{mem, thread};

use common::fork::child;
use judge::{Limits, observe};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pause};

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
const LEN: usize = 512 << 10;
const PART: usize = 64 << 10;

/// Expects this sentence about `body`; `passed` if there is none.
#[track_caller]
fn earns(expected: &str, body: impl FnOnce()) {
    earns_within(Limits::default(), expected, body);
}

#[track_caller]
fn earns_within(limits: Limits, expected: &str, body: impl FnOnce()) {
    let outcome = observe(limits, body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(without_lines(&sentence), expected, "{outcome:#?}");
}

#[track_caller]
fn passes(body: impl FnOnce()) {
    earns("passed", body);
}

/// Replaces line numbers of this file, which change with every edit.
fn without_lines(sentence: &str) -> String {
    match sentence.split_once("blame.rs:") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}blame.rs:LINE{rest}")
        }
        None => sentence.to_owned(),
    }
}

fn one_second() -> Limits {
    Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    }
}

fn map(len: usize, protection: i32, flags: i32) -> *mut u8 {
    map_at(null_mut(), len, protection, flags)
}

fn map_at(hint: *mut u8, len: usize, protection: i32, flags: i32) -> *mut u8 {
    // SAFETY: callers with MAP_FIXED name memory that they have mapped and no longer use.
    let start = unsafe { libc::mmap(hint.cast(), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}

fn unmap(start: *mut u8, len: usize) {
    // SAFETY: callers pass mappings of their own. What they do to them afterwards is the purpose of these tests.
    assert_eq!(unsafe { libc::munmap(start.cast(), len) }, 0);
}

fn remap(start: *mut u8, old: usize, new: usize, flags: i32) -> *mut u8 {
    // SAFETY: callers pass mappings of their own. What they do to them afterwards is the purpose of these tests.
    let moved = unsafe { libc::mremap(start.cast(), old, new, flags) };
    assert_ne!(moved, libc::MAP_FAILED);
    moved.cast()
}

fn advise(start: *mut u8, len: usize, advice: i32) -> bool {
    // SAFETY: callers pass mappings of their own, and only advice that leaves other memory alone.
    unsafe { libc::madvise(start.cast(), len, advice) == 0 }
}

/// Makes an access that the kernel must refuse.
fn poke(address: *mut u8) {
    // SAFETY: none. The kernel must refuse the access, and the process exists to be killed by it.
    unsafe { address.write_volatile(1) }
}

fn peek(address: *const u8) -> u8 {
    // SAFETY: the address is mapped, or the kernel must refuse the access.
    unsafe { address.read_volatile() }
}

/// Calls the function at `address`, which the kernel must refuse.
fn call(address: *const u8) {
    // SAFETY: none. The kernel must refuse to fetch the instruction.
    let function: extern "C" fn() = unsafe { mem::transmute(address) };
    function();
}

// ---- Faults

#[test]
fn a_child_does_not_inherit_what_dontfork_keeps() {
    earns(
        "A forked child was killed by SIGSEGV: memory that a forked child does not inherit (MADV_DONTFORK) was \
         accessed, 64 KiB into a mapping of 512 KiB.",
        || {
            let start = map(LEN, BOTH, PRIVATE);
            assert!(advise(start, LEN, libc::MADV_DONTFORK));
            judge::in_child(|| {
                poke(start.wrapping_add(PART));
                0
            });
        },
    );
}

#[test]
fn dofork_takes_dontfork_back() {
    passes(|| {
        let start = map(LEN, BOTH, PRIVATE);
        assert!(advise(start, LEN, libc::MADV_DONTFORK));
        assert!(advise(start, LEN, libc::MADV_DOFORK));
        judge::in_child(|| {
            poke(start);
            0
        });
    });
}

#[test]
fn what_a_child_unmaps_stays_in_its_parent() {
    passes(|| {
        let start = map(LEN, BOTH, PRIVATE);
        judge::in_child(|| {
            unmap(start, LEN);
            0
        });
        poke(start);
    });
}

#[test]
fn a_child_that_wipes_reads_zeros() {
    passes(|| {
        let start = map(LEN, BOTH, PRIVATE);
        poke(start);
        assert!(advise(start, LEN, libc::MADV_WIPEONFORK));
        judge::check!(judge::in_child(|| peek(start)) == 0, "Not wiped.");
    });
}

#[test]
fn the_old_address_after_mremap_has_moved_the_mapping() {
    earns(
        "SIGSEGV: memory was accessed at its old address after mremap had moved it, at the first byte of a mapping of \
         512 KiB. Use the address that mremap returned.",
        || {
            let start = map(LEN, BOTH, PRIVATE);
            // A neighbour on the upper side makes the mapping move.
            map_at(start.wrapping_add(LEN), PART, libc::PROT_NONE, PRIVATE);
            let moved = remap(start, LEN, 64 << 20, libc::MREMAP_MAYMOVE);
            assert_ne!(moved, start);
            poke(start);
        },
    );
}

#[test]
fn the_end_that_mremap_has_cut_off() {
    earns(
        "SIGSEGV: memory was accessed after mremap had shortened its mapping, 64 KiB into a mapping of 512 KiB.",
        || {
            let start = map(LEN, BOTH, PRIVATE);
            remap(start, LEN, PART, 0);
            poke(start.wrapping_add(PART));
        },
    );
}

#[test]
fn memory_that_map_fixed_has_replaced() {
    earns(
        "SIGSEGV: memory that is mapped without PROT_WRITE was written, at the first byte of a mapping of 64 KiB.",
        || {
            let start = map(LEN, BOTH, PRIVATE);
            unmap(start, LEN);
            map_at(start, PART, libc::PROT_READ, PRIVATE | libc::MAP_FIXED);
            poke(start);
        },
    );
}

#[test]
fn memory_without_permissions_is_read() {
    earns(
        "SIGSEGV: memory that is mapped with PROT_NONE was accessed, 64 KiB into a mapping of 512 KiB.",
        || {
            peek(map(LEN, libc::PROT_NONE, PRIVATE).wrapping_add(PART));
        },
    );
}

#[test]
fn data_is_executed() {
    earns(
        "SIGSEGV: memory that is mapped without PROT_EXEC was executed, 64 KiB into a mapping of 512 KiB.",
        || call(map(LEN, BOTH, PRIVATE).wrapping_add(PART)),
    );
}

#[test]
fn unmapped_code_is_executed() {
    earns(
        "SIGSEGV: memory was executed after it had been unmapped, at the first byte of a mapping of 512 KiB. Unmap it only when nothing uses it any more.",
        || {
            let start = map(LEN, libc::PROT_READ | libc::PROT_EXEC, PRIVATE);
            unmap(start, LEN);
            call(start);
        },
    );
}

#[test]
fn a_null_function_is_called() {
    earns("SIGSEGV: a null function pointer was called.", || {
        call(std::hint::black_box(std::ptr::without_provenance(0)))
    });
}

#[test]
fn a_field_behind_a_null_pointer() {
    earns(
        "SIGSEGV: a null pointer was dereferenced, with an offset of 16 bytes.",
        || poke(std::ptr::without_provenance_mut(16)),
    );
}

/// The judge has mapped memory of its own just before.
#[test]
fn past_the_end_of_the_first_mapping() {
    earns(
        "SIGSEGV: memory was accessed just past the end of a mapping of 512 KiB.",
        || poke(map(LEN, BOTH, PRIVATE).wrapping_add(LEN)),
    );
}

#[test]
fn nothing_is_mapped_near_the_address() {
    earns(
        "SIGSEGV: an address was accessed where nothing is mapped.",
        || poke(std::ptr::without_provenance_mut(64 << 30)),
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn an_address_that_no_mapping_can_have() {
    earns("SIGSEGV: an access to memory was invalid.", || {
        poke(std::ptr::without_provenance_mut(1 << 62))
    });
}

#[test]
fn the_program_itself_is_written() {
    let outcome = observe(Limits::default(), || {
        poke((poke as fn(*mut u8) as *const u8).cast_mut())
    });
    let sentence = outcome.sentence().unwrap();
    let begin = "SIGSEGV: memory that is mapped without PROT_WRITE was written, in /";
    assert!(sentence.starts_with(begin), "{sentence}");
    assert!(sentence.ends_with(" (r-xp)."), "{sentence}");
}

/// System V shared memory, which is removed when nobody has it attached. It is attached at `hint` if that is not null.
fn system_v(hint: *mut u8, flags: i32) -> *mut u8 {
    // SAFETY: the call takes numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, LEN, 0o600) };
    assert_ne!(id, -1);
    // SAFETY: the kernel attaches it where nothing is mapped, or, with SHM_REMAP, where callers name their own memory.
    let start = unsafe { libc::shmat(id, hint.cast(), flags) };
    // SAFETY: IPC_RMID uses no buffer.
    unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) };
    assert_ne!(start.addr(), usize::MAX);
    start.cast()
}

#[test]
fn system_v_memory_that_is_attached_for_reading() {
    earns(
        "SIGSEGV: memory that is mapped without PROT_WRITE was written, in /SYSV00000000 (r--s).",
        || poke(system_v(null_mut(), libc::SHM_RDONLY)),
    );
}

#[test]
fn system_v_memory_that_has_replaced_a_file() {
    earns(
        "SIGSEGV: memory that is mapped without PROT_WRITE was written, in /SYSV00000000 (r--s).",
        || {
            // SAFETY: the name is a C string.
            let file = unsafe { libc::memfd_create(c"file".as_ptr(), 0) };
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start = unsafe { libc::mmap(null_mut(), LEN, BOTH, libc::MAP_SHARED, file, 0) };
            poke(system_v(start.cast(), libc::SHM_RDONLY | libc::SHM_REMAP));
        },
    );
}

#[test]
fn system_v_memory_where_something_was_unmapped() {
    passes(|| {
        let start = map(LEN, BOTH, PRIVATE);
        unmap(start, LEN);
        poke(system_v(null_mut(), 0));
    });
}

#[test]
fn shared_memory_that_mremap_has_grown_past_its_object() {
    earns(
        "SIGBUS: byte 512 KiB of shared memory was accessed, but that memory is only 64 KiB long. mremap lengthens only the mapping, not \
         the memory behind it.",
        || {
            let start = map(PART, BOTH, SHARED);
            let moved = remap(start, PART, 2 * LEN, libc::MREMAP_MAYMOVE);
            poke(moved.wrapping_add(LEN));
        },
    );
}

#[test]
fn a_memfd_that_was_truncated() {
    earns(
        "SIGBUS: byte 64 KiB of the file behind a mapping was accessed, but the file is only 64 KiB long.",
        || {
            // SAFETY: the name is a C string.
            let file = unsafe { libc::memfd_create(c"file".as_ptr(), 0) };
            // SAFETY: the calls take numbers.
            assert_eq!(unsafe { libc::ftruncate(file, LEN as i64) }, 0);
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start = unsafe { libc::mmap(null_mut(), LEN, BOTH, libc::MAP_SHARED, file, 0) };
            // SAFETY: the calls take numbers.
            assert_eq!(unsafe { libc::ftruncate(file, PART as i64) }, 0);
            poke(start.cast::<u8>().wrapping_add(PART));
        },
    );
}

#[test]
fn no_huge_page_is_free() {
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let mut lines = free.lines();
    let none = |line: &str| line.starts_with("HugePages_Free:") && line.ends_with(" 0");
    if !lines.any(none) {
        eprintln!("skipped: this machine has free huge pages, or none at all");
        return;
    }
    let expected = "SIGBUS: the kernel provided no huge page for an access to memory that is mapped with huge pages, \
                    at the first byte of a mapping of 2 MiB.";
    earns(expected, || {
        let flags = PRIVATE | libc::MAP_HUGETLB | libc::MAP_NORESERVE;
        poke(map(2 << 20, BOTH, flags));
    });
}

#[test]
fn a_guard_that_madvise_has_installed() {
    const MADV_GUARD_INSTALL: i32 = 102;
    if !advise(map(LEN, BOTH, PRIVATE), PART, MADV_GUARD_INSTALL) {
        eprintln!("skipped: this kernel has no MADV_GUARD_INSTALL (6.13)");
        return;
    }
    earns(
        "SIGSEGV: the kernel refused an access to memory that is mapped rw-p, as it does for a guard \
         (MADV_GUARD_INSTALL), 64 KiB into a mapping of 512 KiB.",
        || {
            let start = map(LEN, BOTH, PRIVATE);
            assert!(advise(start.wrapping_add(PART), PART, MADV_GUARD_INSTALL));
            poke(start.wrapping_add(PART));
        },
    );
}

/// Removes the handler, which Rust installs for some signals. It returns once, for the access to be repeated.
fn reset(signal: Signal) {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(signal, &action) }.unwrap();
}

#[track_caller]
fn is_sent(signal: Signal) {
    let expected = format!(
        "{signal}: a process sent the signal (kill, raise or tgkill), and no instruction caused it."
    );
    earns(&expected, || {
        reset(signal);
        raise(signal).unwrap();
    });
}

#[test]
fn a_sigsegv_that_was_sent_is_no_fault() {
    is_sent(Signal::SIGSEGV);
}

#[test]
fn a_sigfpe_that_was_sent_is_no_division() {
    is_sent(Signal::SIGFPE);
}

/// Its frames are so large that few of them fill a stack.
fn deeper(depth: usize) -> usize {
    let local = std::hint::black_box([depth; 1000]);
    match local[0] {
        usize::MAX => 0,
        _ => deeper(depth + 1) + local[999],
    }
}

const OVERFLOW: &str =
    "The stack overflowed: a recursion is too deep, or a local variable is too large.";

#[test]
fn a_thread_overflows_its_stack() {
    earns(OVERFLOW, || {
        thread::spawn(|| deeper(0)).join().unwrap();
    });
}

#[test]
fn a_large_array_overflows_the_stack() {
    #[inline(never)]
    fn large() -> u8 {
        std::hint::black_box([1_u8; 64 << 20])[0]
    }
    earns(OVERFLOW, || {
        std::hint::black_box(large());
    });
}

#[test]
fn a_child_overflows_its_stack() {
    earns(
        "A forked child was killed by SIGABRT: the stack overflowed. A recursion is too deep, or a local variable is \
         too large.",
        || {
            judge::in_child(|| deeper(0) as u8);
        },
    );
}

#[test]
fn text_about_an_overflow_is_none() {
    earns(
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted.",
        || {
            println!("thread 'main' has overflowed its stack");
            std::process::abort();
        },
    );
}

#[test]
fn a_program_that_a_child_executes_crashes_by_itself() {
    passes(|| {
        let mut shell = Command::new("/bin/sh");
        let status = shell.args(["-c", "kill -SEGV $$"]).status().unwrap();
        assert!(!status.success());
    });
}

// ---- Waits that something ends

extern "C" fn ignore(_: i32) {}

fn catch(signal: Signal) {
    let action = SigAction::new(
        SigHandler::Handler(ignore),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// Sends SIGALRM after 400 ms: longer than the judge takes to report a deadlock.
fn set_alarm() {
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: 0,
            tv_usec: 400_000,
        },
    };
    // SAFETY: `timer` outlives the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, null_mut()) };
}

#[test]
fn an_alarm_ends_a_pause() {
    passes(|| {
        let child = child(|| {
            catch(Signal::SIGALRM);
            set_alarm();
            pause();
        });
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    });
}

/// Restores the default action.
fn release(signal: Signal) {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// libtest's thread is not the one that the signal interrupts.
#[test]
fn an_alarm_ends_a_pause_of_the_case() {
    passes(|| {
        catch(Signal::SIGALRM);
        set_alarm();
        pause();
        release(Signal::SIGALRM);
    });
}

/// The signal has arrived before it is waited for.
#[test]
fn the_end_of_a_child_ends_a_sigsuspend() {
    passes(|| {
        catch(Signal::SIGCHLD);
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGCHLD);
        blocked.thread_block().unwrap();
        let child = child(|| ());
        thread::sleep(Duration::from_millis(100));
        let none = SigSet::empty();
        // SAFETY: the set outlives the call.
        unsafe { libc::sigsuspend(none.as_ref()) };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        blocked.thread_unblock().unwrap();
        release(Signal::SIGCHLD);
    });
}

#[test]
fn a_signal_that_the_case_blocks_stays_pending() {
    passes(|| {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.thread_block().unwrap();
        kill(nix::unistd::getpid(), Signal::SIGUSR1).unwrap();
        assert_eq!(blocked.wait(), Ok(Signal::SIGUSR1));
        blocked.thread_unblock().unwrap();
    });
}

#[test]
fn an_alarm_without_a_handler_ends_a_child_and_the_wait_for_it() {
    passes(|| {
        let child = child(|| {
            set_alarm();
            pause();
        });
        let status = waitpid(child, None).unwrap();
        assert!(matches!(
            status,
            WaitStatus::Signaled(_, Signal::SIGALRM, _)
        ));
    });
}

#[test]
fn a_posix_timer_with_another_signal_ends_a_wait() {
    let wait_for_timer = || {
        catch(Signal::SIGUSR1);
        // SAFETY: all zeros are a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGUSR1;
        let mut timer: libc::timer_t = null_mut();
        // SAFETY: both pointers are valid for the call.
        let created = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        assert_eq!(created, 0);
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: 0,
                tv_nsec: 400_000_000,
            },
        };
        // SAFETY: the timer exists, and `time` outlives the call.
        let set = unsafe { libc::timer_settime(timer, 0, &time, null_mut()) };
        assert_eq!(set, 0);
        pause();
    };
    passes(|| {
        let child = child(wait_for_timer);
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    });
}

#[test]
fn a_deadlock_of_two_processes_is_reported() {
    earns(
        "Deadlock: no process or thread can run again (the parent waits for a child, the child waits for a signal).",
        || {
            let child = child(|| {
                pause();
            });
            waitpid(child, None).unwrap();
        },
    );
}

#[test]
fn a_child_stops_and_goes_on() {
    passes(|| {
        let (mut from_parent, to_child) = std::io::pipe().unwrap();
        let child = child(|| {
            raise(Signal::SIGSTOP).unwrap();
            std::io::Read::read_exact(&mut from_parent, &mut [0]).unwrap();
        });
        let wait = |flags| waitpid(child, Some(flags)).unwrap();
        let stopped = wait(WaitPidFlag::WUNTRACED);
        assert_eq!(stopped, WaitStatus::Stopped(child, Signal::SIGSTOP));
        std::io::Write::write_all(&mut &to_child, &[1]).unwrap();
        thread::sleep(Duration::from_millis(300));
        let still = wait(WaitPidFlag::WNOHANG);
        judge::check!(
            still == WaitStatus::StillAlive,
            "It went on by itself: {still:?}."
        );
        kill(child, Signal::SIGCONT).unwrap();
        assert_eq!(wait(WaitPidFlag::empty()), WaitStatus::Exited(child, 0));
    });
}

#[test]
fn a_child_reports_that_it_goes_on() {
    passes(|| {
        let child = child(|| thread::sleep(Duration::from_secs(60)));
        let wait = |flags| waitpid(child, Some(flags)).unwrap();
        kill(child, Signal::SIGSTOP).unwrap();
        wait(WaitPidFlag::WUNTRACED);
        kill(child, Signal::SIGCONT).unwrap();
        let resumed = wait(WaitPidFlag::WCONTINUED);
        assert_eq!(resumed, WaitStatus::Continued(child));
        kill(child, Signal::SIGKILL).unwrap();
        wait(WaitPidFlag::empty());
    });
}

#[test]
fn a_stopped_child_is_killed() {
    passes(|| {
        let child = child(|| thread::sleep(Duration::from_secs(60)));
        kill(child, Signal::SIGSTOP).unwrap();
        waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap();
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    });
}

// ---- Time

/// Replaces measured times, which are never the same.
fn without_times(sentence: &str) -> String {
    let (before, after) = sentence.split_once(" and had used ").unwrap();
    let before = before.split(", not counting waits").next().unwrap();
    let after = after.split_once(" of CPU time").unwrap().1;
    format!("{before}; CPU time{after}")
}

#[track_caller]
fn is_stopped(expected: &str, body: impl FnOnce()) {
    let outcome = observe(one_second(), body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(without_times(&sentence), expected, "{outcome:#?}");
}

#[test]
fn a_case_that_sleeps_has_no_endless_loop() {
    is_stopped(
        "The case was still running after 1 s; CPU time: your code waits in nanosleep.",
        || thread::sleep(Duration::from_secs(60)),
    );
}

#[test]
fn a_case_that_is_stopped_by_a_signal() {
    is_stopped(
        "The case was still running after 1 s; CPU time: your code is stopped by a signal.",
        || raise(Signal::SIGSTOP).unwrap(),
    );
}

#[test]
fn a_case_that_reads_what_nobody_writes() {
    is_stopped(
        "The case was still running after 1 s; CPU time: your code waits in read.",
        || {
            let (mut reader, _writer) = std::io::pipe().unwrap();
            let _ = std::io::Read::read(&mut reader, &mut [0]);
        },
    );
}

// ---- Exits

#[test]
fn a_thread_calls_exit() {
    earns(
        "Your code ended the process with status 97 (exit, _exit or exit_group) before the case had ended. Return \
         instead.",
        || {
            thread::spawn(|| std::process::exit(97)).join().unwrap();
        },
    );
}

#[test]
fn a_program_replaces_the_case() {
    let outcome = observe(Limits::default(), || {
        let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        panic!("{error}");
    });
    let sentence = outcome.sentence().unwrap();
    let end = " in place of the case (execve). Call execve only in a child process.";
    assert!(sentence.starts_with("Your code executed /"), "{sentence}");
    assert!(sentence.ends_with(end), "{sentence}");
}

#[test]
fn a_child_executes_a_program() {
    passes(|| assert!(Command::new("/bin/true").status().unwrap().success()));
}

#[test]
fn the_judges_descriptor_is_replaced() {
    earns(
        "Your code closed, replaced or filled a file descriptor that it had not opened: the judge's socket. Use only \
         your own descriptors.",
        || {
            let null = std::fs::File::options()
                .write(true)
                .open("/dev/null")
                .unwrap();
            for descriptor in 3..1024 {
                // SAFETY: the code below uses none of them. To replace the judge's is the purpose of this test.
                unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), descriptor) };
            }
        },
    );
}

#[test]
fn a_child_may_return_any_status() {
    passes(|| judge::check!(judge::in_child(|| 101) == 101, "Not 101."));
}

#[test]
fn a_child_exits_where_it_should_return() {
    earns(
        "A forked child exited with status 0 before the code that it ran returned.",
        || {
            judge::in_child(|| std::process::exit(0));
        },
    );
}

#[test]
fn a_grandchild_returns_from_the_code_of_its_parent() {
    earns(
        "A forked child left your function, by returning or by a panic, and ran the caller's code. End it with _exit \
         on every path, also after a panic.",
        || {
            judge::in_child(|| {
                // SAFETY: this child has one thread.
                let forked = unsafe { fork() }.unwrap();
                if let ForkResult::Parent { child } = forked {
                    waitpid(child, None).unwrap();
                }
                0
            });
        },
    );
}

// ---- Panics

fn replace_the_hook() {
    panic::set_hook(Box::new(|_| println!("a hook of its own")));
}

#[test]
fn a_check_fails_under_another_hook() {
    earns("It is wrong.", || {
        replace_the_hook();
        judge::fail("It is wrong.".to_owned());
    });
}

#[test]
fn a_check_fails_in_a_child_under_another_hook() {
    earns("In a forked child: It is wrong.", || {
        replace_the_hook();
        judge::in_child(|| judge::fail("It is wrong.".to_owned()));
    });
}

#[test]
fn a_todo_under_another_hook() {
    earns("Not started: a todo!() was reached.", || {
        replace_the_hook();
        todo!()
    });
}

#[test]
fn a_skip_under_another_hook() {
    earns("Skipped: no reason.", || {
        replace_the_hook();
        judge::skip("no reason")
    });
}

#[test]
fn a_panic_under_another_hook() {
    earns("The code panicked: oh no.", || {
        replace_the_hook();
        panic!("oh no");
    });
}

const LOST: &str = "The case ended normally, although a panic had begun to unwind (in a thread, or inside \
                    catch_unwind). Pass the panic on to the caller.";

#[test]
fn a_panic_in_a_thread_without_a_hook() {
    earns(LOST, || {
        let _ = panic::take_hook();
        let _ = thread::spawn(|| panic!("lost")).join();
    });
}

#[test]
fn an_unwind_without_a_hook_in_a_thread() {
    earns(LOST, || {
        let _ = thread::spawn(|| panic::resume_unwind(Box::new("lost"))).join();
    });
}

#[test]
fn a_thread_that_nobody_joins_panics() {
    earns(
        "The case ended normally, although the code had panicked at crates/judge/tests/blame.rs:LINE (in a thread, or \
         inside catch_unwind). Pass the panic on to the caller. Its message: late.",
        || {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(30));
                panic!("late");
            });
        },
    );
}

#[test]
fn a_panic_that_is_caught_and_passed_on_keeps_its_place() {
    earns(
        "The code panicked at crates/judge/tests/blame.rs:LINE: passed on.",
        || {
            let caught = panic::catch_unwind(|| panic!("passed on"));
            panic::resume_unwind(caught.unwrap_err());
        },
    );
}

#[test]
fn an_expected_panic_that_is_passed_on_and_caught() {
    passes(|| {
        judge::expect_panics();
        let outer = panic::catch_unwind(|| {
            let caught = panic::catch_unwind(|| panic!("passed on"));
            panic::resume_unwind(caught.unwrap_err());
        });
        assert!(outer.is_err());
    });
}

/// More panics than the socket to the judge has room for. Short ones take the most, for their length.
fn many_panics() {
    judge::expect_panics();
    for number in 0..2000 {
        let caught = panic::catch_unwind(|| panic!("{number}"));
        assert!(caught.is_err());
    }
}

#[test]
fn many_caught_panics() {
    passes(many_panics);
}

#[test]
fn a_check_fails_after_many_caught_failures() {
    earns("It is wrong.", || {
        many_panics();
        for _ in 0..1000 {
            let caught = panic::catch_unwind(|| judge::fail("It is wrong.".to_owned()));
            assert!(caught.is_err());
        }
        judge::fail("It is wrong.".to_owned());
    });
}

#[test]
fn a_check_fails_after_many_caught_panics() {
    earns("It is wrong.", || {
        many_panics();
        judge::fail("It is wrong.".to_owned());
    });
}

#[test]
fn a_panic_after_many_caught_panics() {
    earns(
        "The code panicked at crates/judge/tests/blame.rs:LINE: the last one.",
        || {
            many_panics();
            panic!("the last one");
        },
    );
}

#[test]
fn a_todo_after_many_caught_panics() {
    earns(
        "Not started: a todo!() at crates/judge/tests/blame.rs:LINE was reached.",
        || {
            many_panics();
            todo!()
        },
    );
}

#[test]
fn a_panic_that_aborts_after_many_caught_panics() {
    extern "C" fn handler() {
        panic!("in a handler");
    }
    earns(
        "The code panicked at crates/judge/tests/blame.rs:LINE where a panic cannot unwind (in Drop during another \
         panic, or in an extern \"C\" function), so the process aborted: in a handler.",
        || {
            many_panics();
            handler();
        },
    );
}

#[test]
fn undefined_behaviour_that_the_standard_library_finds() {
    earns(
        "A check for undefined behaviour failed, so the process aborted: \
         ptr::copy_nonoverlapping requires that both pointer arguments are aligned and non-null and the specified memory \
         ranges do not overlap.",
        copy_over_itself,
    );
}

fn copy_over_itself() {
    let mut bytes = std::hint::black_box([0_u8; 8]);
    let start = bytes.as_mut_ptr();
    // SAFETY: not sound, on purpose: the ranges overlap.
    unsafe { start.copy_to_nonoverlapping(start.wrapping_add(1), 4) };
}

#[test]
fn undefined_behaviour_that_the_compiled_code_finds() {
    earns(
        "A check for undefined behaviour failed at crates/judge/tests/blame.rs:LINE, so the process aborted: misaligned \
         pointer dereference: address must be a multiple of 0x4 but is 0x1.",
        || {
            let odd = std::hint::black_box(std::ptr::without_provenance::<u32>(1));
            // SAFETY: not sound, on purpose: the address is not aligned.
            std::hint::black_box(unsafe { *odd });
        },
    );
}

#[test]
fn undefined_behaviour_in_a_child() {
    earns(
        "In a forked child: A check for undefined behaviour failed, so the process aborted: ptr::copy_nonoverlapping \
         requires that both pointer arguments are aligned and non-null and the specified memory ranges do not overlap.",
        || {
            judge::in_child(|| {
                copy_over_itself();
                0
            });
        },
    );
}

#[test]
fn many_children_panic_and_are_waited_for() {
    earns("It is wrong.", || {
        judge::expect_panics();
        for _ in 0..400 {
            let child = child(|| {
                let _ = panic::catch_unwind(AssertUnwindSafe(|| panic!("{}", "x".repeat(500))));
            });
            waitpid(child, None).unwrap();
        }
        judge::fail("It is wrong.".to_owned());
    });
}

#[test]
fn an_abort_after_a_caught_panic() {
    earns(
        "SIGABRT: the process aborted. Look for a call of abort(), or for a message that a library printed before it \
         aborted.",
        || {
            judge::expect_panics();
            assert!(panic::catch_unwind(|| panic!("caught")).is_err());
            std::process::abort();
        },
    );
}

#[test]
fn the_address_of_a_process_is_its_own() {
    // A fault in a child says nothing about its parent, which fails for another reason later.
    earns(
        "SIGSEGV: a process sent the signal (kill, raise or tgkill), and no instruction caused it.",
        || {
            let child = child(|| poke(null_mut()));
            waitpid(child, None).unwrap();
            reset(Signal::SIGSEGV);
            raise(Signal::SIGSEGV).unwrap();
        },
    );
}
