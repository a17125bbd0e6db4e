//! The state of a case's process that the answer must leave as it found it: signals, limits, timers, threads, …
//!
//! It is compared in the case's first process, after a body that returned. A part that cannot be read on this machine
//! is not compared.

use std::cell::RefCell;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::panic::{self, PanicHookInfo};
use std::{env, fs, process, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t};
use nix::unistd::getpgrp;

use super::{common, interpose, patience};
use crate::{format, procfs};

thread_local! {
    /// The state to compare with.
    static BEFORE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Makes the present state the one to compare with, for a grader whose own code changes the state permanently.
pub fn rebase_state() {
    BEFORE.set(Some(State::now()));
}

/// Expects this many seccomp filters more than the answer found: the judge has installed them.
pub fn expect_filters(installed: usize) {
    BEFORE.with_borrow_mut(|before| {
        let values = before.iter_mut().flat_map(|before| &mut before.values);
        for filters in values.filter(|value| value.name == FILTERS) {
            let number: Option<usize> = filters.text.take().and_then(|text| text.parse().ok());
            filters.text = number.map(|number| (number + installed).to_string());
        }
    });
}

/// The sentence on what differs in a forked child from its parent's state at `rebase_state`: another signal action,
/// another mask, another working directory. `None` if the child is as fork(2) has made it.
///
/// Call it in the child. Its panic hook, its thread's name and its parent-death signal are not compared.
pub fn change_in_child() -> Option<String> {
    let sentence = BEFORE.with_borrow_mut(|before| {
        let before = before.as_mut()?;
        before.forked();
        before.inherited_change(&State::now())
    })?;
    let rest = sentence.strip_prefix("Your code").unwrap_or(&sentence);
    Some(format!("In the child, your code{rest}"))
}

/// The sentence on what has changed since `rebase_state`; `None` if nothing has.
pub fn change() -> Option<String> {
    BEFORE.with_borrow(|before| {
        let before = before.as_ref()?;
        await_threads(&before.threads);
        // After mlockall(MCL_FUTURE) a new page is locked, which /proc shows.
        let _page = map_a_page();
        before.change_to(&State::now())
    })
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Sync + Send;

/// The last signal number, SIGRTMAX.
const LAST_SIGNAL: i32 = 64;

/// Signals that glibc uses and whose actions it sets: SIGCANCEL and SIGSETXID.
const OF_LIBC: [i32; 2] = [32, 33];

struct State {
    /// The address and the vtable of the panic hook's box.
    hook: *const Hook,
    threads: Vec<i32>,
    /// One bit for each signal: bit n-1 for signal n.
    blocked: Option<u64>,
    /// Signals that are pending for the thread or the process, as in `blocked`.
    pending: Option<u64>,
    /// By signal number.
    actions: Vec<Option<Action>>,
    alternate_stack: Option<(usize, usize, i32)>,
    /// Whether each interval timer of setitimer(2) runs.
    interval_timers: [Option<bool>; 3],
    /// The number of timers of timer_create(2).
    timers: Option<usize>,
    /// Standard input, output and error.
    standard: [Option<Descriptor>; 3],
    environment: Vec<Variable>,
    /// KiB of locked memory.
    locked: Option<u64>,
    heap: Heap,
    /// How often a descriptor was closed that was not open.
    bad_closes: usize,
    values: Vec<Value>,
}

#[derive(PartialEq)]
struct Action {
    handler: usize,
    flags: i32,
    mask: u64,
}

#[derive(PartialEq)]
struct Descriptor {
    device: u64,
    inode: u64,
    flags: i32,
}

/// The end of the heap, and the bytes that malloc has taken from it.
struct Heap {
    end: usize,
    of_malloc: i32,
}

/// An environment variable: its name and its value.
type Variable = (OsString, OsString);

/// A value that is compared as text.
struct Value {
    name: &'static str,
    text: Option<String>,
}

impl State {
    fn now() -> State {
        let status = procfs::read("/proc/thread-self/status").unwrap_or_default();
        let locked = field(&status, "VmLck:").and_then(|text| text.split(' ').next()?.parse().ok());
        State {
            hook: hook(),
            threads: procfs::threads(process::id() as i32),
            blocked: blocked_signals(),
            pending: pending_signals(),
            actions: (0..=LAST_SIGNAL).map(action).collect(),
            alternate_stack: alternate_stack(),
            interval_timers: INTERVAL_TIMERS.map(|(_, timer)| runs(timer)),
            timers: timers(),
            standard: [0, 1, 2].map(descriptor),
            environment: env::vars_os().collect(),
            locked,
            heap: heap(),
            bad_closes: interpose::bad_closes(),
            values: values(&status),
        }
    }

    /// The first difference, causes first: a handler that is left behind matters more than its flags.
    fn change_to(&self, now: &State) -> Option<String> {
        self.hook_change(now)
            .or_else(|| self.thread_change(now))
            .or_else(|| self.inherited_change(now))
            .or_else(|| self.pending_change(now))
            .or_else(|| self.memory_change(now))
            .or_else(|| self.bad_close(now))
    }

    /// The first difference in what a forked child inherits.
    fn inherited_change(&self, now: &State) -> Option<String> {
        self.mask_change(now)
            .or_else(|| self.action_change(now))
            .or_else(|| self.timer_change(now))
            .or_else(|| self.descriptor_change(now))
            .or_else(|| self.environment_change(now))
            .or_else(|| self.value_change(now))
    }

    /// Makes this state that of a forked child: it inherits no timer, and some values are its own.
    fn forked(&mut self) {
        self.interval_timers = self.interval_timers.map(|runs| runs.map(|_| false));
        self.timers = self.timers.map(|_| 0);
        for value in &mut self.values {
            if OF_ONE_PROCESS.contains(&value.name) {
                value.text = None;
            }
        }
    }

    fn hook_change(&self, now: &State) -> Option<String> {
        (!ptr::eq(self.hook, now.hook)).then(|| {
            "Your code left the panic hook replaced. Put back the hook that panic::take_hook() returned, on every \
             path, or leave the hook alone."
                .to_owned()
        })
    }

    fn thread_change(&self, now: &State) -> Option<String> {
        let new = now.threads.iter().filter(|tid| !self.threads.contains(tid));
        match new.count() {
            0 => None,
            1 => Some("Your code left a thread running that it had started. Join it.".to_owned()),
            count => Some(format!(
                "Your code left {count} threads running that it had started. Join them."
            )),
        }
    }

    fn mask_change(&self, now: &State) -> Option<String> {
        let (before, after) = (self.blocked?, now.blocked?);
        let left = |signals: u64, how: &str| {
            (signals != 0).then(|| {
                format!(
                    "Your code left {} {how} in the signal mask. Restore the mask that it found.",
                    names(signals)
                )
            })
        };
        left(after & !before, "blocked").or_else(|| left(before & !after, "unblocked"))
    }

    fn pending_change(&self, now: &State) -> Option<String> {
        let taken = self.pending? & !now.pending?;
        (taken != 0).then(|| {
            format!(
                "Your code cleared {} from the pending signals of its caller; expected every signal to stay pending. Do \
                 not take (sigwait), ignore or unblock a signal that your code has not caused.",
                names(taken)
            )
        })
    }

    fn action_change(&self, now: &State) -> Option<String> {
        let changed = |number: &usize| {
            let (before, after) = (&self.actions[*number], &now.actions[*number]);
            before.is_some() && after.is_some() && before != after
        };
        if let Some(number) = (1..self.actions.len()).find(changed) {
            let (before, after) = (
                self.actions[number].as_ref()?,
                now.actions[number].as_ref()?,
            );
            let signal = format::signal(number as i32);
            let restore = "Restore the action that sigaction(2) returned when you changed it.";
            return Some(if before.handler == after.handler {
                format!("Your code changed the flags or the mask of {signal}'s action. {restore}")
            } else {
                let (before, after) = (before.describe(), after.describe());
                let other = if before == after {
                    "another handler"
                } else {
                    after
                };
                format!(
                    "Your code left {other} installed for {signal}, where it found {before}. {restore}"
                )
            });
        }
        (self.alternate_stack? != now.alternate_stack?).then(|| {
            "Your code left another alternate signal stack installed. Restore the one that sigaltstack(2) returned."
                .to_owned()
        })
    }

    fn timer_change(&self, now: &State) -> Option<String> {
        for (index, (name, _)) in INTERVAL_TIMERS.iter().enumerate() {
            match (self.interval_timers[index]?, now.interval_timers[index]?) {
                (false, true) => {
                    return Some(format!(
                        "Your code left a timer running ({name}): its signal arrives later, in the caller's code. \
                         Cancel the timer."
                    ));
                }
                (true, false) => {
                    return Some(format!(
                        "Your code cancelled a timer of its caller ({name}). A process has only one of each kind: \
                         leave it running."
                    ));
                }
                _ => {}
            }
        }
        let more = now.timers?.checked_sub(self.timers?)?;
        (more > 0).then(|| {
            format!(
                "Your code left timers of timer_create(2): {more}. Call timer_delete(2) for each."
            )
        })
    }

    fn descriptor_change(&self, now: &State) -> Option<String> {
        let names = ["input", "output", "error"];
        for (number, name) in names.iter().enumerate() {
            let before = self.standard[number].as_ref();
            let after = now.standard[number].as_ref();
            let stream = format!("standard {name} (descriptor {number})");
            match (before, after) {
                (Some(_), None) => {
                    return Some(format!(
                        "Your code closed {stream}. Close only what it opened."
                    ));
                }
                (Some(before), Some(after)) if before != after => {
                    let same_file = (before.device, before.inode) == (after.device, after.inode);
                    return Some(match same_file {
                        true => format!(
                            "Your code changed the status flags of {stream} from {:#x} to {:#x}. Restore them \
                             (fcntl F_SETFL).",
                            before.flags, after.flags
                        ),
                        false => format!(
                            "Your code left {stream} referring to another file. Put back the file that it found (dup2)."
                        ),
                    });
                }
                _ => {}
            }
        }
        None
    }

    fn memory_change(&self, now: &State) -> Option<String> {
        if let (Some(before), Some(after)) = (self.locked, now.locked) {
            if after > before {
                return Some(format!(
                    "Your code left {} of memory locked, or locks all future memory. Undo its mlock, mlockall or \
                     MAP_LOCKED: locked memory counts against RLIMIT_MEMLOCK.",
                    format::size((after - before) << 10)
                ));
            }
            if after < before && !common::is_intact() {
                return Some(
                    "Your code unmapped memory of its caller. Pass munmap the start and the length of its own mapping."
                        .to_owned(),
                );
            }
            if after < before {
                // Without the amount, which depends on the page size.
                return Some(
                    "Memory that the caller of your code had locked with mlock is not locked any more: your code \
                     unlocked, unmapped or replaced it. munlockall unlocks all memory of the process, and MAP_FIXED \
                     replaces any mapping."
                        .to_owned(),
                );
            }
        }
        // malloc trims and grows the heap by itself. Only what lies beyond its own share was taken by somebody else.
        let grown = now.heap.end.wrapping_sub(self.heap.end) as isize;
        let by_malloc = now.heap.of_malloc.wrapping_sub(self.heap.of_malloc);
        let beyond = grown.saturating_sub(by_malloc as isize);
        (beyond > 0).then(|| {
            format!(
                "Your code moved the end of the heap by {} with brk or sbrk, beyond what malloc uses. Move it back, \
                 or use mmap.",
                format::size(beyond as u64)
            )
        })
    }

    fn bad_close(&self, now: &State) -> Option<String> {
        (now.bad_closes > self.bad_closes).then(|| {
            "Your code closed a descriptor that was not open. Close each one once, on every path: another thread may have \
             opened a file with the same number in between, and would lose it."
                .to_owned()
        })
    }

    fn environment_change(&self, now: &State) -> Option<String> {
        if self.environment == now.environment {
            return None;
        }
        let (before, after) = (&self.environment, &now.environment);
        let value = |variables: &[Variable], name: &OsString| {
            let found = variables.iter().find(|variable| variable.0 == *name);
            found.map(|variable| variable.1.clone())
        };
        let mut names = before.iter().chain(after).map(|(name, _)| name);
        let name = names.find(|name| value(before, name) != value(after, name))?;
        let how = match (value(before, name), value(after, name)) {
            (None, _) => "set",
            (_, None) => "removed",
            _ => "changed",
        };
        Some(format!(
            "Your code {how} the environment variable {}. Leave the environment as it was.",
            name.display()
        ))
    }

    fn value_change(&self, now: &State) -> Option<String> {
        let mut pairs = self.values.iter().zip(&now.values);
        pairs.find_map(|(before, after)| {
            let (old, new) = (before.text.as_ref()?, after.text.as_ref()?);
            (old != new).then(|| {
                format!(
                    "Your code changed {} from {old} to {new}. Restore the value that it found.",
                    before.name
                )
            })
        })
    }
}

impl Action {
    fn describe(&self) -> &'static str {
        match self.handler {
            libc::SIG_DFL => "the default action",
            libc::SIG_IGN => "SIG_IGN",
            _ => "a handler",
        }
    }
}

/// Waits for threads that are about to end: `pthread_join` returns before the kernel has removed the thread.
fn await_threads(known: &[i32]) {
    patience::await_end(|| {
        let mut threads = procfs::threads(process::id() as i32);
        threads.retain(|tid| !known.contains(tid));
        threads
    });
}

fn map_a_page() -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped. A failure does no harm.
    unsafe { libc::mmap(ptr::null_mut(), 1, libc::PROT_READ, flags, -1, 0) }
}

/// The panic hook. It is not called, so it cannot be one that has been dropped.
fn hook() -> *const Hook {
    let hook = panic::take_hook();
    let address = &raw const *hook;
    panic::set_hook(hook);
    address
}

fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

/// Up to three names of the signals in a mask, or their number.
fn names(signals: u64) -> String {
    let numbers: Vec<i32> = (1..=LAST_SIGNAL)
        .filter(|number| signals >> (number - 1) & 1 == 1)
        .collect();
    match numbers.len() {
        1..=3 => {
            let names: Vec<String> = numbers.into_iter().map(format::signal).collect();
            names.join(", ")
        }
        count => format!("{count} signals"),
    }
}

fn bits(set: &libc::sigset_t) -> u64 {
    (1..=LAST_SIGNAL)
        // SAFETY: `set` is initialised, and the number is one of a signal.
        .filter(|number| unsafe { libc::sigismember(set, *number) } == 1)
        .fold(0, |bits, number| bits | 1 << (number - 1))
}

fn blocked_signals() -> Option<u64> {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: with a null set the call only writes the present mask.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr()) };
    // SAFETY: a signal set of zeros is a valid one, whether or not the call has written it.
    let set = unsafe { set.assume_init() };
    (failed == 0).then(|| bits(&set))
}

fn pending_signals() -> Option<u64> {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: the call only writes to the set.
    let failed = unsafe { libc::sigpending(set.as_mut_ptr()) };
    // SAFETY: a signal set of zeros is a valid one, whether or not the call has written it.
    let set = unsafe { set.assume_init() };
    (failed == 0).then(|| bits(&set))
}

/// A flag that libc sets for its own use.
const SA_RESTORER: i32 = 0x0400_0000;

fn action(number: i32) -> Option<Action> {
    if OF_LIBC.contains(&number) {
        return None;
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null action the call only writes the present one. It fails for a number that is no signal.
    let result = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    Errno::result(result).ok()?;
    // SAFETY: the call has succeeded. Zeros are valid for every field that it may have left out.
    let action = unsafe { action.assume_init() };
    let handles = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    // Without a handler only these flags have an effect: signal(2) leaves others behind.
    const FOR_ALL: i32 = libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;
    Some(Action {
        handler: action.sa_sigaction,
        flags: action.sa_flags & if handles { !SA_RESTORER } else { FOR_ALL },
        mask: if handles { bits(&action.sa_mask) } else { 0 },
    })
}

fn alternate_stack() -> Option<(usize, usize, i32)> {
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: with a null stack the call only writes the present one.
    let result = unsafe { libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) };
    Errno::result(result).ok()?;
    // SAFETY: the call has written the stack.
    let stack = unsafe { stack.assume_init() };
    Some((stack.ss_sp.addr(), stack.ss_size, stack.ss_flags))
}

const INTERVAL_TIMERS: [(&str, i32); 3] = [
    ("alarm or ITIMER_REAL", 0),
    ("ITIMER_VIRTUAL", 1),
    ("ITIMER_PROF", 2),
];

fn runs(timer: i32) -> Option<bool> {
    let mut value = MaybeUninit::<libc::itimerval>::zeroed();
    // The type of the first argument differs between libcs.
    // SAFETY: getitimer only writes to the value, whose type is the kernel's on 64-bit machines.
    let result = unsafe { libc::syscall(libc::SYS_getitimer, timer, value.as_mut_ptr()) };
    Errno::result(result).ok()?;
    // SAFETY: the call has written the value.
    let left = unsafe { value.assume_init() }.it_value;
    Some(left.tv_sec != 0 || left.tv_usec != 0)
}

/// `None` without CONFIG_CHECKPOINT_RESTORE.
fn timers() -> Option<usize> {
    let timers = procfs::read("/proc/self/timers").ok()?;
    Some(
        timers
            .lines()
            .filter(|line| line.starts_with("ID:"))
            .count(),
    )
}

fn descriptor(number: i32) -> Option<Descriptor> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat only writes to `stat`.
    let result = unsafe { libc::fstat(number, stat.as_mut_ptr()) };
    Errno::result(result).ok()?;
    // SAFETY: the call has written it.
    let stat = unsafe { stat.assume_init() };
    Some(Descriptor {
        device: stat.st_dev,
        inode: stat.st_ino,
        // SAFETY: F_GETFL accesses no memory.
        flags: unsafe { libc::fcntl(number, libc::F_GETFL) },
    })
}

fn heap() -> Heap {
    // SAFETY: `sbrk(0)` only reads the end of the heap.
    let end = unsafe { libc::sbrk(0) }.addr();
    // SAFETY: mallinfo(3) only counts. Its fields wrap, and so does the comparison of two of them.
    let info = unsafe { libc::mallinfo() };
    Heap {
        end,
        of_malloc: info.arena,
    }
}

/// The values that a forked child does not inherit, or that it may choose.
const OF_ONE_PROCESS: [&str; 3] = [THREAD_NAME, "PR_SET_CHILD_SUBREAPER", "PR_SET_PDEATHSIG"];

const THREAD_NAME: &str = "its thread's name";
const FILTERS: &str = "the number of seccomp filters";

/// The values that are compared as text, in an order that never differs.
fn values(status: &str) -> Vec<Value> {
    let mut values = Vec::with_capacity(64);
    let mut add = |name, text| values.push(Value { name, text });
    let of_status = |key| field(status, key).map(|text| text.replace('\t', " "));
    // getcwd(2) fails in a directory that has been removed.
    let directory = fs::read_link("/proc/self/cwd").ok();
    add(
        "the working directory",
        directory.map(|path| path.display().to_string()),
    );
    add("the umask", of_status("Umask:"));
    add(THREAD_NAME, of_status("Name:"));
    add("the user ids", of_status("Uid:"));
    add("the group ids", of_status("Gid:"));
    add("the process group", Some(getpgrp().to_string()));
    add(FILTERS, of_status("Seccomp_filters:"));
    let score = procfs::read("/proc/self/oom_score_adj").ok();
    add("oom_score_adj", score.map(|text| text.trim().to_owned()));
    for (name, resource) in LIMITS {
        add(name, getrlimit(resource).ok().map(limits));
    }
    for (name, option) in SETTINGS {
        add(name, setting(option));
    }
    for (name, option) in STORED_SETTINGS {
        add(name, stored_setting(option));
    }
    // SAFETY: 0xffffffff is no personality: the call only returns the present one.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    let personality = Errno::result(personality).ok();
    add(
        "the personality",
        personality.map(|bits| format!("{bits:#x}")),
    );
    // The kernel returns 20 minus the nice value, so that no result looks like an error.
    // SAFETY: the call accesses no memory.
    let priority = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    let nice = Errno::result(priority).ok().map(|priority| 20 - priority);
    add("the nice value", nice.map(|nice| nice.to_string()));
    // SAFETY: the call accesses no memory.
    let policy = unsafe { libc::sched_getscheduler(0) };
    add("the scheduling policy", number(policy));
    add("the CPU affinity", of_status("Cpus_allowed_list:"));
    values
}

const LIMITS: [(&str, Resource); 15] = [
    ("RLIMIT_AS", Resource::RLIMIT_AS),
    ("RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", Resource::RLIMIT_STACK),
];

fn limits((soft, hard): (rlim_t, rlim_t)) -> String {
    let text = |limit| match limit {
        RLIM_INFINITY => "unlimited".to_owned(),
        limit => limit.to_string(),
    };
    match soft == hard {
        true => text(soft),
        false => format!("{} (hard limit: {})", text(soft), text(hard)),
    }
}

/// Settings that prctl(2) returns, by the option that sets them.
const SETTINGS: [(&str, libc::c_int); 6] = [
    ("PR_SET_DUMPABLE", libc::PR_GET_DUMPABLE),
    ("PR_SET_KEEPCAPS", libc::PR_GET_KEEPCAPS),
    ("PR_SET_MEMORY_MERGE", libc::PR_GET_MEMORY_MERGE),
    ("PR_SET_NO_NEW_PRIVS", libc::PR_GET_NO_NEW_PRIVS),
    ("PR_SET_THP_DISABLE", libc::PR_GET_THP_DISABLE),
    ("PR_SET_TIMERSLACK", libc::PR_GET_TIMERSLACK),
];

/// Settings that prctl(2) stores where its argument points.
const STORED_SETTINGS: [(&str, libc::c_int); 2] = [
    ("PR_SET_CHILD_SUBREAPER", libc::PR_GET_CHILD_SUBREAPER),
    ("PR_SET_PDEATHSIG", libc::PR_GET_PDEATHSIG),
];

fn setting(option: libc::c_int) -> Option<String> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options of `SETTINGS` take no arguments, and access no memory.
    number(unsafe { libc::prctl(option, zero, zero, zero, zero) })
}

fn stored_setting(option: libc::c_int) -> Option<String> {
    let mut value: libc::c_int = 0;
    let zero: libc::c_ulong = 0;
    // SAFETY: the options of `STORED_SETTINGS` store an int in their argument.
    let result = unsafe { libc::prctl(option, &raw mut value, zero, zero, zero) };
    Errno::result(result).ok().map(|_| value.to_string())
}

/// The result of a call that returns a value, or -1 if it failed.
fn number(result: libc::c_int) -> Option<String> {
    Errno::result(result).ok().map(|value| value.to_string())
}
