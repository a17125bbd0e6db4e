//! The state of the process that a case must leave as it found it. Apart from that, every case here passes.

mod common {
    pub mod fork;
}

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic;
use std::ptr::null_mut;
use std::thread;

use common::fork::child;
use judge::{Limits, in_child, observe};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};
use nix::sys::wait::waitpid;

const NO_PTRACE: &str = "JUDGE_NO_PTRACE";

/// Expects this sentence about `body`; `passed` if there is none.
#[track_caller]
fn earns(expected: &str, body: impl FnOnce()) {
    let outcome = observe(Limits::default(), body);
    let sentence = outcome.sentence().unwrap_or_else(|| "passed".to_owned());
    assert_eq!(sentence, expected, "{outcome:#?}");
}

#[track_caller]
fn passes(body: impl FnOnce()) {
    earns("passed", body);
}

#[test]
fn the_sentences_are_the_same_without_ptrace() {
    if std::env::var_os(NO_PTRACE).is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut again = std::process::Command::new(this);
    let output = again.env(NO_PTRACE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\ntest result: ok."), "{text}");
}

#[test]
fn a_panic_hook() {
    earns(
        "Your code left the panic hook replaced. Put back the hook that panic::take_hook() returned, on every path, or \
         leave the hook alone.",
        || panic::set_hook(Box::new(|_| {})),
    );
}

#[test]
fn a_panic_hook_that_calls_the_former_one() {
    earns(
        "Your code left the panic hook replaced. Put back the hook that panic::take_hook() returned, on every path, or \
         leave the hook alone.",
        || {
            let former = panic::take_hook();
            panic::set_hook(Box::new(move |info| former(info)));
        },
    );
}

#[test]
fn a_panic_hook_that_was_put_back() {
    passes(|| {
        let former = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        panic::set_hook(former);
    });
}

#[test]
fn a_thread() {
    earns(
        "Your code left a thread running that it had started. Join it.",
        || drop(thread::spawn(thread::park)),
    );
}

#[test]
fn two_threads() {
    earns(
        "Your code left 2 threads running that it had started. Join them.",
        || {
            for _ in 0..2 {
                thread::spawn(thread::park);
            }
        },
    );
}

#[test]
fn joined_threads() {
    passes(|| {
        for _ in 0..20 {
            thread::spawn(|| ()).join().unwrap();
        }
    });
}

fn mask(how: SigmaskHow, signals: &[Signal]) {
    let signals = signals.iter().copied().collect::<SigSet>();
    sigprocmask(how, Some(&signals), None).unwrap();
}

#[test]
fn a_blocked_signal() {
    earns(
        "Your code left SIGCHLD blocked in the signal mask. Restore the mask that it found.",
        || mask(SigmaskHow::SIG_BLOCK, &[Signal::SIGCHLD]),
    );
}

#[test]
fn all_signals_blocked() {
    earns(
        "Your code left 60 signals blocked in the signal mask. Restore the mask that it found.",
        || {
            // An init of a container may leave some blocked.
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).unwrap();
            judge::rebase_state();
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
        },
    );
}

#[test]
fn an_unblocked_signal() {
    earns(
        "Your code left SIGINT, SIGCHLD unblocked in the signal mask. Restore the mask that it found.",
        || {
            mask(SigmaskHow::SIG_BLOCK, &[Signal::SIGCHLD, Signal::SIGINT]);
            judge::rebase_state();
            mask(SigmaskHow::SIG_UNBLOCK, &[Signal::SIGCHLD, Signal::SIGINT]);
        },
    );
}

#[test]
fn a_mask_that_was_put_back() {
    passes(|| {
        mask(SigmaskHow::SIG_BLOCK, &[Signal::SIGCHLD]);
        mask(SigmaskHow::SIG_UNBLOCK, &[Signal::SIGCHLD]);
    });
}

fn handle(signal: Signal, handler: SigHandler, flags: SaFlags) -> SigAction {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: the handlers of these tests do nothing, and no case here relies on std's handler for SIGSEGV.
    unsafe { sigaction(signal, &action) }.unwrap()
}

extern "C" fn nothing(_: libc::c_int) {}
const HANDLER: SigHandler = SigHandler::Handler(nothing);

const RESTORE: &str = "Restore the action that sigaction(2) returned when you changed it.";

#[test]
fn an_ignored_signal() {
    earns(
        &format!(
            "Your code left SIG_IGN installed for SIGCHLD, where it found the default action. {RESTORE}"
        ),
        || {
            handle(Signal::SIGCHLD, SigHandler::SigIgn, SaFlags::empty());
        },
    );
}

#[test]
fn the_default_for_an_ignored_signal() {
    earns(
        &format!(
            "Your code left the default action installed for SIGPIPE, where it found SIG_IGN. {RESTORE}"
        ),
        || {
            handle(Signal::SIGPIPE, SigHandler::SigDfl, SaFlags::empty());
        },
    );
}

#[test]
fn another_handler() {
    earns(
        &format!(
            "Your code left another handler installed for SIGSEGV, where it found a handler. {RESTORE}"
        ),
        || {
            handle(Signal::SIGSEGV, HANDLER, SaFlags::empty());
        },
    );
}

#[test]
fn a_real_time_signal() {
    earns(
        &format!(
            "Your code left SIG_IGN installed for signal 64, where it found the default action. {RESTORE}"
        ),
        || {
            // SAFETY: ignoring a signal runs no code.
            unsafe { libc::signal(64, libc::SIG_IGN) };
        },
    );
}

#[test]
fn a_handlers_flags() {
    earns(
        &format!("Your code changed the flags or the mask of SIGUSR1's action. {RESTORE}"),
        || {
            handle(Signal::SIGUSR1, HANDLER, SaFlags::empty());
            judge::rebase_state();
            handle(Signal::SIGUSR1, HANDLER, SaFlags::SA_RESTART);
        },
    );
}

#[test]
fn a_default_action_that_signal_put_back() {
    passes(|| {
        handle(Signal::SIGUSR1, HANDLER, SaFlags::empty());
        // SAFETY: the default action runs no code.
        unsafe { libc::signal(libc::SIGUSR1, libc::SIG_DFL) };
    });
}

#[test]
fn an_action_that_was_put_back() {
    passes(|| {
        let former = handle(Signal::SIGUSR1, HANDLER, SaFlags::empty());
        // SAFETY: this is the action that the test began with.
        unsafe { sigaction(Signal::SIGUSR1, &former) }.unwrap();
    });
}

#[test]
fn an_alternate_signal_stack() {
    earns(
        "Your code left another alternate signal stack installed. Restore the one that sigaltstack(2) returned.",
        || {
            let stack = Box::leak(vec![0_u8; 64 << 10].into_boxed_slice());
            let stack = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            // SAFETY: the stack is never freed.
            let result = unsafe { libc::sigaltstack(&raw const stack, null_mut()) };
            assert_eq!(result, 0);
        },
    );
}

#[test]
fn an_alarm() {
    earns(
        "Your code left a timer running (alarm or ITIMER_REAL): its signal arrives later, in the caller's code. Cancel \
         the timer.",
        || {
            // SAFETY: the signal would end a process that ends long before.
            unsafe { libc::alarm(100) };
        },
    );
}

#[test]
fn an_alarm_of_the_caller() {
    earns(
        "Your code cancelled a timer of its caller (alarm or ITIMER_REAL). A process has only one of each kind: leave it \
         running.",
        || {
            // SAFETY: the signal would end a process that ends long before.
            unsafe { libc::alarm(100) };
            judge::rebase_state();
            // SAFETY: cancelling a timer accesses no memory.
            unsafe { libc::alarm(0) };
        },
    );
}

#[test]
fn a_cancelled_alarm() {
    passes(|| {
        for seconds in [100, 0] {
            // SAFETY: the signal would end a process that ends long before.
            unsafe { libc::alarm(seconds) };
        }
    });
}

#[test]
fn a_posix_timer() {
    if !std::fs::exists("/proc/self/timers").unwrap() {
        return;
    }
    earns(
        "Your code left timers of timer_create(2): 1. Call timer_delete(2) for each.",
        || {
            let mut timer = MaybeUninit::<libc::timer_t>::uninit();
            let clock = libc::CLOCK_MONOTONIC;
            // SAFETY: the call writes to `timer`. A null event means SIGALRM, and the timer is not armed.
            let result = unsafe { libc::timer_create(clock, null_mut(), timer.as_mut_ptr()) };
            assert_eq!(result, 0);
        },
    );
}

fn close(descriptor: i32) {
    // SAFETY: nothing in these tests uses the descriptor afterwards.
    unsafe { libc::close(descriptor) };
}

#[test]
fn a_closed_stream() {
    earns(
        "Your code closed standard input (descriptor 0). Close only what it opened.",
        || close(0),
    );
}

#[test]
fn a_redirected_stream() {
    earns(
        "Your code left standard error (descriptor 2) referring to another file. Put back the file that it found (dup2).",
        || {
            // SAFETY: both descriptors are open, and the second stays open.
            unsafe { libc::dup2(0, 2) };
        },
    );
}

#[test]
fn a_stream_that_does_not_block() {
    earns(
        "Your code changed the status flags of standard input (descriptor 0) from 0x8000 to 0x8800. Restore them (fcntl \
         F_SETFL)."
            .replace("0x8000", &format!("{:#x}", flags_of_input()))
            .replace("0x8800", &format!("{:#x}", flags_of_input() | libc::O_NONBLOCK))
            .as_str(),
        || {
            // SAFETY: F_SETFL accesses no memory.
            unsafe { libc::fcntl(0, libc::F_SETFL, libc::O_NONBLOCK) };
        },
    );
}

/// The status flags of /dev/null opened for reading, which is a case's standard input.
fn flags_of_input() -> i32 {
    let file = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: F_GETFL accesses no memory.
    unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_GETFL) }
}

fn map(pages: usize) -> *mut c_void {
    let len = pages * judge::probe::page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    let start = unsafe { libc::mmap(null_mut(), len, both, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start
}

fn locked(pages: usize) -> String {
    let bytes = judge::amount(pages * judge::probe::page_size());
    format!(
        "Your code left {bytes} of memory locked, or locks all future memory. Undo its mlock, mlockall or MAP_LOCKED: \
         locked memory counts against RLIMIT_MEMLOCK."
    )
}

#[test]
fn locked_memory() {
    earns(&locked(2), || {
        // SAFETY: locking changes no contents.
        let result = unsafe { libc::mlock(map(2), 2 * judge::probe::page_size()) };
        assert_eq!(result, 0);
    });
}

#[test]
fn all_future_memory_locked() {
    earns(&locked(1), || {
        // SAFETY: locking changes no contents.
        let result = unsafe { libc::mlockall(libc::MCL_FUTURE) };
        assert_eq!(result, 0);
    });
}

#[test]
fn memory_of_the_caller_unmapped() {
    earns(
        "Your code unmapped memory of its caller. Pass munmap the start and the length of its own mapping.",
        || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut start = 0;
            for line in smaps.lines() {
                if let Some((address, _)) = line.split_once('-') {
                    start = usize::from_str_radix(address, 16).unwrap_or(start);
                }
                if line.starts_with("VmFlags:") && line.contains(" lo ") {
                    let start = std::ptr::without_provenance_mut(start);
                    // SAFETY: deliberately wrong: the judge uses the page.
                    unsafe { libc::munmap(start, 1) };
                }
            }
        },
    );
}

#[test]
fn memory_that_the_caller_had_locked() {
    earns(
        "Memory that the caller of your code had locked with mlock is not locked any more: your code unlocked, \
         unmapped or replaced it. munlockall unlocks all memory of the process, and MAP_FIXED replaces any mapping.",
        || {
            // SAFETY: unlocking changes no contents.
            let result = unsafe { libc::munlockall() };
            assert_eq!(result, 0);
        },
    );
}

#[test]
fn a_signal_that_was_pending() {
    earns(
        "Your code cleared SIGUSR1 from the pending signals of its caller; expected every signal to stay pending. Do not \
         take (sigwait), ignore or unblock a signal that your code has not caused.",
        || {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGUSR1);
            sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).unwrap();
            nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
            judge::rebase_state();
            mask.wait().unwrap();
        },
    );
}

/// Expects this report of a forked child about what `body` changes there; none if it is empty.
#[track_caller]
fn child_reports(expected: &str, body: impl FnOnce()) {
    passes(|| {
        // SAFETY: the signal would end a process that ends long before. The child does not inherit the timer.
        unsafe { libc::alarm(100) };
        judge::rebase_state();
        in_child(|| {
            body();
            assert_eq!(judge::change_in_child().unwrap_or_default(), expected);
            0
        });
    });
}

#[test]
fn a_child_as_fork_made_it() {
    child_reports("", || ());
}

#[test]
fn what_a_child_may_choose() {
    child_reports("", || {
        panic::set_hook(Box::new(|_| {}));
        // SAFETY: the option takes a number.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    });
}

#[test]
fn a_child_that_differs_from_its_parent() {
    child_reports(
        "In the child, your code left the default action installed for SIGPIPE, where it found SIG_IGN. Restore the \
         action that sigaction(2) returned when you changed it.",
        || {
            // SAFETY: the default action is no handler.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        },
    );
}

#[test]
fn memory_that_was_unlocked() {
    passes(|| {
        let (start, len) = (map(1), judge::probe::page_size());
        // SAFETY: locking changes no contents.
        unsafe { libc::mlock(start, len) };
        // SAFETY: as for mlock.
        unsafe { libc::munlock(start, len) };
    });
}

#[test]
fn a_moved_break() {
    earns(
        "Your code moved the end of the heap by 64 KiB with brk or sbrk, beyond what malloc uses. Move it back, or use \
         mmap.",
        || {
            // SAFETY: nothing uses the new end of the heap.
            unsafe { libc::sbrk(64 << 10) };
        },
    );
}

#[test]
fn a_heap_that_malloc_grows_and_trims() {
    passes(|| {
        let blocks: Vec<_> = (0..100).map(|_| vec![1_u8; 100_000]).collect();
        std::mem::forget(blocks);
        drop((0..100).map(|_| vec![1_u8; 100_000]).collect::<Vec<_>>());
    });
}

/// Expects a sentence about a change of the environment, which the case's only active thread makes.
#[track_caller]
fn environment(how: &str, name: &str, body: impl FnOnce()) {
    earns(
        &format!(
            "Your code {how} the environment variable {name}. Leave the environment as it was."
        ),
        body,
    );
}

#[test]
fn a_new_variable() {
    // SAFETY: no other thread reads the environment.
    environment("set", "NEW", || unsafe { std::env::set_var("NEW", "1") });
}

#[test]
fn a_changed_variable() {
    environment("changed", "MALLOC_ARENA_MAX", || {
        // SAFETY: no other thread reads the environment.
        unsafe { std::env::set_var("MALLOC_ARENA_MAX", "2") }
    });
}

#[test]
fn a_removed_variable() {
    environment("removed", "MALLOC_ARENA_MAX", || {
        // SAFETY: no other thread reads the environment.
        unsafe { std::env::remove_var("MALLOC_ARENA_MAX") }
    });
}

/// Expects a sentence about the change of one value.
#[track_caller]
fn changes(value: &str, before: &str, after: &str, body: impl FnOnce()) {
    earns(
        &format!(
            "Your code changed {value} from {before} to {after}. Restore the value that it found."
        ),
        body,
    );
}

#[test]
fn the_working_directory() {
    let here = std::env::current_dir().unwrap();
    changes(
        "the working directory",
        here.to_str().unwrap(),
        "/proc",
        || std::env::set_current_dir("/proc").unwrap(),
    );
}

#[test]
fn the_umask() {
    // SAFETY: umask(2) accesses no memory.
    let set = |bits| unsafe { libc::umask(bits) };
    changes("the umask", "0022", "0077", || {
        set(0o22);
        judge::rebase_state();
        set(0o77);
    });
}

#[test]
fn a_resource_limit() {
    changes(
        "RLIMIT_STACK",
        "1048576",
        "65536 (hard limit: 1048576)",
        || {
            setrlimit(Resource::RLIMIT_STACK, 1 << 20, 1 << 20).unwrap();
            judge::rebase_state();
            setrlimit(Resource::RLIMIT_STACK, 64 << 10, 1 << 20).unwrap();
        },
    );
}

#[test]
fn a_resource_limit_that_was_put_back() {
    passes(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_STACK).unwrap();
        setrlimit(Resource::RLIMIT_STACK, 64 << 10, hard).unwrap();
        setrlimit(Resource::RLIMIT_STACK, soft, hard).unwrap();
    });
}

fn prctl(option: libc::c_int, value: libc::c_ulong) {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take a number and access no memory.
    let result = unsafe { libc::prctl(option, value, zero, zero, zero) };
    assert_eq!(Errno::result(result), Ok(0));
}

#[track_caller]
fn sets(option: libc::c_int, name: &str, before: libc::c_ulong, after: libc::c_ulong) {
    changes(name, &before.to_string(), &after.to_string(), || {
        prctl(option, before);
        judge::rebase_state();
        prctl(option, after);
    });
}

#[test]
fn dumpable() {
    sets(libc::PR_SET_DUMPABLE, "PR_SET_DUMPABLE", 1, 0);
}

#[test]
fn kept_capabilities() {
    sets(libc::PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", 0, 1);
}

#[test]
fn a_subreaper() {
    sets(libc::PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER", 0, 1);
}

#[test]
fn huge_pages() {
    sets(libc::PR_SET_THP_DISABLE, "PR_SET_THP_DISABLE", 1, 0);
}

#[test]
fn the_signal_of_a_parents_death() {
    sets(libc::PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", 9, 0);
}

#[test]
fn the_timer_slack() {
    sets(libc::PR_SET_TIMERSLACK, "PR_SET_TIMERSLACK", 50000, 1);
}

/// How many filters the judge has installed differs with and without a tracer.
#[test]
fn a_seccomp_filter() {
    const BPF_RETURN: u16 = 0x06;
    let outcome = observe(Limits::default(), || {
        let mut allow = libc::sock_filter {
            code: BPF_RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &raw mut allow,
        };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: `program` describes one instruction, which outlives the call.
        let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
        Errno::result(installed).unwrap();
    });
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(
        sentence.starts_with("Your code changed the number of seccomp filters from "),
        "{sentence}"
    );
}

#[test]
fn the_personality() {
    changes("the personality", "0x0", "0x20000", || {
        // SAFETY: personality(2) accesses no memory.
        unsafe { libc::personality(0) };
        judge::rebase_state();
        // Docker's seccomp profile permits this one.
        // SAFETY: as above.
        unsafe { libc::personality(libc::UNAME26 as libc::c_ulong) };
    });
}

#[test]
fn the_nice_value() {
    // SAFETY: setpriority(2) accesses no memory.
    let set = |value| unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    changes("the nice value", "18", "19", || {
        set(18);
        judge::rebase_state();
        set(19);
    });
}

#[test]
fn the_scheduling_policy() {
    changes("the scheduling policy", "0", "3", || {
        let priority = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameter outlives the call.
        let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
        assert_eq!(result, 0);
    });
}

#[test]
fn what_a_forked_child_changes() {
    let change = || {
        panic::set_hook(Box::new(|_| {}));
        mask(SigmaskHow::SIG_BLOCK, &[Signal::SIGCHLD]);
        close(0);
        std::env::set_current_dir("/proc").unwrap();
    };
    passes(|| {
        in_child(|| {
            change();
            0
        });
        waitpid(child(change), None).unwrap();
    });
}

#[test]
fn a_check_that_fails_comes_first() {
    earns("No.", || {
        close(0);
        judge::fail("No.".to_owned());
    });
}

#[test]
fn what_cannot_be_read_is_not_compared() {
    passes(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        judge::rebase_state();
        // SAFETY: umask(2) accesses no memory.
        unsafe { libc::umask(0o123) };
    });
}

const CLOSED_AGAIN: &str = "Your code closed a descriptor that was not open. Close each one once, on every path: another thread \
                            may have opened a file with the same number in between, and would lose it.";

/// Duplicates standard output, and closes the copy this many times.
fn close_a_copy(times: usize) {
    // SAFETY: the copy is used by nothing else.
    let copy = unsafe { libc::dup(1) };
    for _ in 0..times {
        // SAFETY: as above. Nothing is opened in between.
        unsafe { libc::close(copy) };
    }
}

#[test]
fn a_descriptor_closed_twice() {
    earns(CLOSED_AGAIN, || close_a_copy(2));
}

#[test]
fn a_descriptor_closed_once() {
    passes(|| {
        close_a_copy(1);
        // What a failed open returns is no descriptor.
        // SAFETY: nothing is closed.
        unsafe { libc::close(-1) };
    });
}

#[test]
fn a_working_directory_that_has_been_removed() {
    let outcome = observe(Limits::default(), || {
        let directory = tempfile::tempdir().unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
    });
    let sentence = outcome.sentence().unwrap_or_default();
    let begins = sentence.starts_with("Your code changed the working directory from ");
    assert!(begins && sentence.contains(" (deleted). "), "{outcome:#?}");
}

#[test]
fn the_processors_that_a_thread_may_use() {
    // SAFETY: all zeros are the empty set.
    let mut usable: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    const LEN: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: the set has this length.
    unsafe { libc::sched_getaffinity(0, LEN, &raw mut usable) };
    // SAFETY: the set was written by the call.
    if unsafe { libc::CPU_COUNT(&usable) } < 2 {
        return;
    }
    let outcome = observe(Limits::default(), || {
        // SAFETY: the number is below the set's length in bits.
        let is_usable = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &usable) };
        let first = (0..8 * LEN).find(is_usable).expect("a processor");
        // SAFETY: all zeros are the empty set.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { libc::CPU_SET(first, &mut one) };
        // SAFETY: the set has this length.
        unsafe { libc::sched_setaffinity(0, LEN, &raw const one) };
    });
    let sentence = outcome.sentence().unwrap_or_default();
    let begins = sentence.starts_with("Your code changed the CPU affinity from ");
    assert!(begins, "{outcome:#?}");
}
