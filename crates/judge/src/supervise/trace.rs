//! Traces a case from its first instruction until none of its tasks is left.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

use super::kill;
use super::shared::Shared;
use super::tasks::{self, Change};
use crate::limits::{LIBTEST, Limits, Stop};
use crate::procfs;
use crate::protocol::MARK;
use crate::record::Record;
use crate::record::fault::Fault;
use crate::record::process::{FIRST, Status};
use crate::record::space::Space;

/// What was seen of a case.
pub struct Seen {
    pub status: Status,
    /// The number of processes that still ran when the first one had ended.
    pub leftovers: usize,
    /// The last fault of the first process.
    pub fault: Option<Fault>,
    /// The last signal that killed a forked child, with its fault.
    pub child_killed: Option<(i32, Option<Fault>)>,
    /// `None` without a tracer, and on a kernel that does not report calls to a tracer (gVisor).
    pub record: Option<Record>,
}

/// One thread of a case.
struct Task {
    process: String,
    /// The watched call that it is executing.
    call: Option<(i64, [u64; 6])>,
}

/// One process of a case.
#[derive(Default)]
struct Process {
    /// The number of children that it has forked.
    children: usize,
    watching: bool,
    /// The number of open descriptors when its `watch` began.
    descriptors: usize,
    fault: Option<Fault>,
}

struct Tracer<'a> {
    root: Pid,
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
    child_killed: Option<(i32, Option<Fault>)>,
}

/// Traces `root`, which has asked this thread to trace it and is about to execute its program. Returns an error if it
/// cannot be waited for.
pub fn follow(root: Pid, shared: &Shared, limits: &Limits) -> Result<Seen, Errno> {
    let mut tracer = Tracer {
        root,
        shared,
        limits,
        tasks: BTreeMap::new(),
        processes: BTreeMap::new(),
        newborn: BTreeSet::new(),
        forked: BTreeSet::new(),
        record: Record::default(),
        calls_unknown: false,
        child_killed: None,
    };
    tracer.add(root.as_raw(), FIRST.to_owned());
    let status = tracer.until_root_ends()?;
    let leftovers = tracer.leftovers();
    tracer.kill_all();
    Ok(Seen {
        status,
        leftovers,
        fault: tracer
            .processes
            .remove(FIRST)
            .and_then(|process| process.fault),
        child_killed: tracer.child_killed,
        record: (!tracer.calls_unknown).then_some(tracer.record),
    })
}

impl Tracer<'_> {
    fn until_root_ends(&mut self) -> Result<Status, Errno> {
        if let Change::Ended(status) = tasks::wait_for(self.root)? {
            return Ok(status);
        }
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESECCOMP;
        let _ = ptrace::setoptions(self.root, options); // fails only if it was killed meanwhile
        tasks::resume(self.root, false, 0);
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
                Change::Signal(libc::SIGSTOP) if !self.tasks.contains_key(&pid.as_raw()) => {
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
        match change {
            Change::Signal(libc::SIGSTOP) if self.newborn.remove(&pid.as_raw()) => {}
            Change::Signal(number) => {
                self.signal(pid, number);
                signal = number;
            }
            Change::Event(
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
            ) => self.birth(pid),
            Change::Event(libc::PTRACE_EVENT_EXEC) => {
                if let Some(task) = self.tasks.get(&pid.as_raw()) {
                    self.record.executed(&task.process);
                }
            }
            Change::Event(libc::PTRACE_EVENT_SECCOMP) | Change::Syscall => self.syscall(pid),
            Change::Event(_) | Change::Ended(_) => {}
        }
        if self.shared.stopped().is_some() {
            kill::traced(pid.as_raw());
            return;
        }
        let in_call = self
            .tasks
            .get(&pid.as_raw())
            .is_some_and(|task| task.call.is_some());
        tasks::resume(pid, in_call, signal);
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
        let is_process = procfs::process_of(child) == Some(child);
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
            true => tasks::resume(Pid::from_raw(child), false, 0),
            false => {
                self.newborn.insert(child);
            }
        }
    }

    /// Handles a call that the filter has selected, at its entry or at its exit.
    fn syscall(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else {
            self.calls_unknown = true;
            return;
        };
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else {
            return;
        };
        match info.op {
            libc::PTRACE_SYSCALL_INFO_SECCOMP => {
                // SAFETY: `op` says that the kernel has filled in `seccomp`.
                let entry = unsafe { info.u.seccomp };
                match entry.nr as i64 {
                    libc::SYS_prctl => self.mark(pid, entry.args),
                    number => task.call = Some((number, entry.args)),
                }
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                let Some((number, args)) = task.call.take() else {
                    return;
                };
                // SAFETY: `op` says that the kernel has filled in `exit`.
                let exit = unsafe { info.u.exit };
                let process = task.process.clone();
                let watching = self
                    .processes
                    .get(&process)
                    .is_some_and(|process| process.watching);
                self.record
                    .call(&process, watching, number, args, exit.sval);
            }
            _ => {}
        }
    }

    /// Handles the beginning or the end of a `watch`.
    fn mark(&mut self, pid: Pid, [option, on, heap, ..]: [u64; 6]) {
        if option != MARK {
            return;
        }
        let Some(task) = self.tasks.get(&pid.as_raw()) else {
            return;
        };
        let name = task.process.clone();
        let process = self.processes.entry(name.clone()).or_default();
        process.watching = on == 1;
        let descriptors = procfs::descriptors(pid.as_raw());
        if process.watching {
            process.descriptors = descriptors;
            self.record.begin(heap);
        } else if name == FIRST {
            let opened = descriptors as i64 - process.descriptors as i64;
            let children = self
                .forked
                .iter()
                .filter(|pid| procfs::exists(**pid))
                .count();
            self.record.ledger.left(opened, children);
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
        // SAFETY: for these signals the kernel fills in the address.
        let address = unsafe { info.si_addr() } as u64;
        let nothing = Space::default();
        let space = self.record.space(&task.process).unwrap_or(&nothing);
        let fault = Fault::new(pid.as_raw(), signal, info.si_code, address, space);
        if let Some(process) = self.processes.get_mut(&task.process) {
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
