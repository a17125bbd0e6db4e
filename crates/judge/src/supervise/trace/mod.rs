//! Traces a case from its first instruction until none of its tasks is left.

mod calls;
mod inject;
mod marks;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

use super::kill;
use super::shared::Shared;
use super::tasks::{self, Change, Until};
use super::window::Window;
use crate::limits::{LIBTEST, Limits, Stop};
use crate::procfs;
use crate::record::Record;
use crate::record::fault::{self, Fault};
use crate::record::process::{FIRST, Status};
use crate::record::space::Space;
use crate::secret::Secret;
use steps::Steps;

/// What was seen of a case.
pub struct Seen {
    pub status: Status,
    /// The number of processes that still ran when the first one had ended.
    pub leftovers: usize,
    /// The last fault of the first process.
    pub fault: Option<Fault>,
    /// The last signal that killed a forked child, with its fault.
    pub child_killed: Option<(i32, Option<Fault>)>,
    /// What the first process did before it ended; `None` where `record` is.
    pub first: Option<First>,
    /// Whether code has been stopped at one of its places.
    pub interrupted: bool,
    /// `None` without a tracer, and on a kernel that does not report calls to a tracer (gVisor).
    pub record: Option<Record>,
}

/// What the first process of a case did before it ended.
#[derive(Debug, Clone, Default)]
pub struct First {
    /// A thread of the case, and not libtest, has called exit_group(2).
    pub called_exit: bool,
    /// The last program that it has executed.
    pub executed: Option<String>,
    /// The socket to the judge was gone when the case had ended.
    pub socket_gone: bool,
}

/// One thread of a case.
struct Task {
    process: String,
    /// The watched call that it is executing.
    call: Option<Executing>,
    /// Whether its next call of `brk` is the answer's.
    moves_the_break: bool,
    /// The lengths that the answer has passed to the call that comes next, if the kernel gets others.
    lengths: Vec<u64>,
}

/// A call between its entry and its exit.
struct Executing {
    number: i64,
    /// What the kernel gets.
    args: [u64; 6],
    /// What the answer has passed to libc.
    passed: [u64; 6],
    /// Whether the answer makes it, and not libc on its own account.
    ours: bool,
    /// The result that the judge gives it; the call itself is skipped.
    forced: Option<i64>,
}

/// What happens to a task that has stopped.
enum Next {
    Resume,
    /// It stays stopped by job control.
    Halt,
    /// It stays stopped until `go_on`.
    Keep,
}

/// One process of a case.
#[derive(Default)]
struct Process {
    /// The thread that called `watch`.
    watcher: Option<Pid>,
    /// The number of children that it has forked.
    children: usize,
    watching: bool,
    /// The number of open descriptors when its `watch` began.
    descriptors: usize,
    fault: Option<Fault>,
}

struct Tracer<'a> {
    root: Pid,
    secret: Secret,
    shared: &'a Shared,
    limits: &'a Limits,
    tasks: BTreeMap<i32, Task>,
    processes: BTreeMap<String, Process>,
    /// New tasks of which only one of two stops has been seen: their own, or the event that reports them.
    newborn: BTreeSet<i32>,
    /// The children that were forked while watched.
    forked: BTreeSet<i32>,
    record: Record,
    /// Whether the kernel has refused to describe a call.
    calls_unknown: bool,
    window: &'a Window,
    /// The code of the program, and libc's `syscall`: calls from here are the answer's.
    code: Vec<Range<u64>>,
    steps: Steps,
    child_killed: Option<(i32, Option<Fault>)>,
    first: First,
}

/// How `root` must have been attached, by PTRACE_SEIZE. Only then does the kernel keep a stop by job control as it is
/// without a tracer.
pub fn options() -> Options {
    Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP
}

/// Traces `root`, to which this thread is attached, until it ends. Returns an error if it cannot be waited for.
pub fn follow(
    root: Pid,
    secret: Secret,
    shared: &Shared,
    limits: &Limits,
    window: &Window,
) -> Result<Seen, Errno> {
    let mut tracer = Tracer {
        root,
        secret,
        shared,
        limits,
        tasks: BTreeMap::new(),
        processes: BTreeMap::new(),
        newborn: BTreeSet::new(),
        forked: BTreeSet::new(),
        record: Record::default(),
        calls_unknown: false,
        window,
        code: Vec::new(),
        steps: Steps::default(),
        child_killed: None,
        first: First::default(),
    };
    tracer.add(root.as_raw(), FIRST.to_owned());
    let status = tracer.until_root_ends()?;
    let leftovers = tracer.leftovers();
    tracer.kill_all();
    tracer.record.counts = window.counts();
    Ok(Seen {
        status,
        leftovers,
        fault: tracer
            .processes
            .remove(FIRST)
            .and_then(|process| process.fault),
        child_killed: tracer.child_killed,
        interrupted: tracer.steps.have_stopped(),
        first: (!tracer.calls_unknown).then_some(tracer.first),
        record: (!tracer.calls_unknown).then_some(tracer.record),
    })
}

impl Tracer<'_> {
    fn until_root_ends(&mut self) -> Result<Status, Errno> {
        loop {
            let (pid, change) = tasks::wait_any()?;
            match change {
                Change::Ended(status) => {
                    self.ended(pid, status);
                    if pid == self.root {
                        return Ok(status);
                    }
                }
                // Once the case is stopped, no task is resumed. The kernel reports the newest tasks first, so a fork
                // bomb whose tasks are still resumed would keep the end of `root` from being reported.
                _ if self.shared.stopped().is_some() => kill::traced(pid.as_raw()),
                _ if !self.tasks.contains_key(&pid.as_raw()) => {
                    self.newborn.insert(pid.as_raw());
                }
                _ => self.stopped(pid, change),
            }
        }
    }

    fn add(&mut self, tid: i32, process: String) {
        let count = self.shared.add(tid, &process);
        self.processes.entry(process.clone()).or_default();
        let task = Task {
            process,
            call: None,
            moves_the_break: false,
            lengths: Vec::new(),
        };
        self.tasks.insert(tid, task);
        if count > self.limits.tasks + LIBTEST {
            self.shared.stop(Stop::Tasks(self.limits.tasks));
            self.newborn.iter().copied().for_each(kill::traced);
        }
    }

    fn ended(&mut self, pid: Pid, status: Status) {
        let pid = pid.as_raw();
        self.shared.remove(pid);
        self.window.set(pid, false);
        self.end_steps(Pid::from_raw(pid));
        self.newborn.remove(&pid);
        let Some(task) = self.tasks.remove(&pid) else {
            return;
        };
        let process_still_runs = self
            .tasks
            .values()
            .any(|other| other.process == task.process);
        if process_still_runs || task.process == FIRST {
            return;
        }
        if self.forked.contains(&pid) {
            self.record.ended(&task.process, status);
        }
        if let Status::Signaled(signal) = status
            && self.shared.stopped().is_none()
        {
            let fault = self
                .processes
                .get(&task.process)
                .and_then(|process| process.fault.clone());
            self.child_killed = Some((signal, fault));
        }
    }

    /// Handles a stopped task, and resumes it.
    fn stopped(&mut self, pid: Pid, change: Change) {
        let mut signal = 0;
        let mut next = Next::Resume;
        self.newborn.remove(&pid.as_raw());
        self.shared.halt(pid.as_raw(), change == Change::Halted);
        match change {
            Change::Signal(libc::SIGTRAP) if self.has_stepped(pid) => next = self.stepped(pid),
            Change::Signal(number) => {
                if number == libc::SIGTRAP {
                    self.code_traps(pid);
                }
                self.signal(pid, number);
                signal = number;
            }
            Change::Event(
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
            ) => self.birth(pid),
            Change::Event(libc::PTRACE_EVENT_EXEC) => self.executed(pid),
            Change::Event(libc::PTRACE_EVENT_SECCOMP) => self.syscall(pid),
            Change::Syscall => {
                self.syscall(pid);
                // No trap precedes the next instruction.
                if self.steps.steps(pid) {
                    next = self.stepped(pid);
                }
            }
            Change::Halted => next = Next::Halt,
            Change::Event(_) | Change::Ended(_) => {}
        }
        if self.shared.stopped().is_some() {
            kill::traced(pid.as_raw());
            return;
        }
        match next {
            Next::Resume => self.resume(pid, signal),
            Next::Halt => tasks::listen(pid),
            Next::Keep => {}
        }
    }

    fn resume(&self, pid: Pid, signal: i32) {
        let task = self.tasks.get(&pid.as_raw());
        let until = match task {
            Some(Task { call: Some(_), .. }) => Until::Exit,
            _ if self.steps.steps(pid) => Until::NextInstruction,
            _ => Until::Event,
        };
        tasks::resume(pid, until, signal);
    }

    /// Handles an execve, which replaces the address space and ends all other threads of the process.
    fn executed(&mut self, pid: Pid) {
        // A thread that calls execve takes the process's id. Nothing else reports the end of its own.
        if let Ok(former) = ptrace::getevent(pid)
            && former as i32 != pid.as_raw()
        {
            self.tasks.remove(&(former as i32));
            self.shared.remove(former as i32);
            self.end_steps(Pid::from_raw(former as i32));
        }
        let Some(task) = self.tasks.get(&pid.as_raw()) else {
            return;
        };
        self.record.executed(&task.process);
        if task.process == FIRST {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            self.first.executed = Some(program.display().to_string());
        }
    }

    /// Adds the thread or the process that `parent` has created.
    fn birth(&mut self, parent: Pid) {
        let Ok(child) = ptrace::getevent(parent) else {
            return; // the parent was killed meanwhile
        };
        let child = child as i32;
        let Some(process) = self
            .tasks
            .get(&parent.as_raw())
            .map(|task| task.process.clone())
        else {
            return;
        };
        // The first check costs a tenth of the second one, and most new tasks are threads.
        let is_process = !procfs::are_threads_of_one_process(parent.as_raw(), child)
            && procfs::process_of(child) == Some(child);
        let creator = self.processes.entry(process.clone()).or_default();
        let name = match is_process {
            false => process.clone(),
            true => {
                creator.children += 1;
                format!("{process}.{}", creator.children)
            }
        };
        let watching = creator.watching;
        if is_process {
            self.record.forked(&process, &name, child, watching);
            self.processes.entry(name.clone()).or_default().watching = watching;
            if watching {
                self.forked.insert(child);
            }
        }
        self.add(child, name);
        match self.newborn.remove(&child) {
            true => tasks::resume(Pid::from_raw(child), Until::Event, 0),
            false => {
                self.newborn.insert(child);
            }
        }
    }

    /// Describes a fault while the address space still exists.
    fn signal(&mut self, pid: Pid, signal: i32) {
        let fatal = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
        if !fatal.contains(&signal) {
            return;
        }
        let Ok(info) = ptrace::getsiginfo(pid) else {
            return;
        };
        let Some(task) = self.tasks.get(&pid.as_raw()) else {
            return;
        };
        // gVisor does not know this request. Then no address is near the pointers.
        let (instruction, stack) = ptrace::syscall_info(pid).map_or((u64::MAX, u64::MAX), |info| {
            (info.instruction_pointer, info.stack_pointer)
        });
        let signal = fault::Signal {
            number: signal,
            code: info.si_code,
            // SAFETY: for these signals the kernel fills in the address.
            address: unsafe { info.si_addr() } as u64,
            instruction,
            stack,
        };
        let nothing = Space::default();
        let space = self.record.space(&task.process).unwrap_or(&nothing);
        let fault = Fault::new(pid.as_raw(), &signal, space);
        if let Some(process) = self.processes.get_mut(&task.process)
            && !process
                .fault
                .as_ref()
                .is_some_and(|earlier| fault.repeats(earlier))
        {
            process.fault = Some(fault);
        }
    }

    /// The number of processes, without the first one, that still run.
    fn leftovers(&self) -> usize {
        let names: BTreeSet<&str> = self
            .tasks
            .values()
            .map(|task| task.process.as_str())
            .collect();
        names.iter().filter(|name| **name != FIRST).count()
    }

    /// Kills all tasks until the kernel reports that there are none: a new one may still appear.
    fn kill_all(&mut self) {
        loop {
            for tid in self.tasks.keys().chain(&self.newborn) {
                kill::traced(*tid);
            }
            match tasks::wait_any() {
                Ok((pid, Change::Ended(_))) => {
                    self.shared.remove(pid.as_raw());
                    self.tasks.remove(&pid.as_raw());
                    self.newborn.remove(&pid.as_raw());
                }
                Ok((pid, _)) => kill::traced(pid.as_raw()),
                Err(_) => return,
            }
        }
    }
}
