//! Follows each selected system call from its entry to its exit, and makes it fail if the plan says so.

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{Executing, Tracer, inject};
use crate::record::Made;
use crate::record::call::{self, FORKS, MADE_BY_LIBC, NOT_RECORDED, NOTED};
use crate::record::process::FIRST;

impl Tracer<'_> {
    /// Handles a call that the filter has selected, at its entry or at its exit.
    pub(super) fn syscall(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else {
            self.calls_unknown = true;
            return;
        };
        match info.op {
            libc::PTRACE_SYSCALL_INFO_SECCOMP => {
                // SAFETY: `op` says that the kernel has filled in `seccomp`.
                let entry = unsafe { info.u.seccomp };
                match entry.nr as i64 {
                    libc::SYS_prctl => self.mark(pid, entry.args),
                    number if NOTED.contains(&number) => self.note(pid, number),
                    number => self.entry(pid, number, entry.args, info.instruction_pointer),
                }
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: `op` says that the kernel has filled in `exit`.
                let exit = unsafe { info.u.exit };
                self.exit(pid, exit.sval);
            }
            _ => {}
        }
    }

    /// Notes a call that changes how the end of the case, or a wait, is explained.
    fn note(&mut self, pid: Pid, number: i64) {
        let Some(task) = self.tasks.get(&pid.as_raw()) else {
            return;
        };
        match number {
            libc::SYS_exit_group => {
                self.first.called_exit |= task.process == FIRST && pid != self.root
            }
            _ => self.shared.add_timer(&task.process),
        }
    }

    fn entry(&mut self, pid: Pid, number: i64, args: [u64; 6], instruction: u64) {
        let forks = call::forks(number, &args);
        if FORKS.contains(&number) && !forks {
            self.start_of_thread(pid, number, args);
            return;
        }
        let from_program = self.code.iter().any(|code| code.contains(&instruction));
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else {
            return;
        };
        let breaks = number == libc::SYS_brk && std::mem::take(&mut task.moves_the_break);
        let ours = from_program || breaks || !MADE_BY_LIBC.contains(&number);
        let mut passed = args;
        for (argument, len) in passed[1..].iter_mut().zip(task.lengths.drain(..)) {
            *argument = len;
        }
        // A fork is recorded by the event that reports its child.
        if !forks && !NOT_RECORDED.contains(&number) {
            task.call = Some(Executing {
                number,
                args,
                passed,
                ours,
                forced: None,
            });
        }
        if ours && self.window.contains(pid.as_raw()) && !call::is_for_nothing(number, &args) {
            self.inject(pid, number, call::name(number), |errno| -(errno as i64));
        }
    }

    /// Makes the start of a thread fail if the plan says so.
    fn start_of_thread(&mut self, pid: Pid, number: i64, args: [u64; 6]) {
        if !self.window.contains(pid.as_raw()) {
            return;
        }
        self.inject(pid, number, "clone", |errno| -(errno as i64));
        if let Some(call) = self
            .tasks
            .get_mut(&pid.as_raw())
            .and_then(|task| task.call.as_mut())
        {
            call.args = args;
        }
    }

    fn exit(&mut self, pid: Pid, value: i64) {
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else {
            return;
        };
        let Some(call) = task.call.take() else {
            return;
        };
        let process = task.process.clone();
        if let Some(forced) = call.forced {
            // Fails only if the task was killed meanwhile.
            let _ = inject::set_result(pid, forced);
        }
        if call.number == libc::SYS_prctl {
            return;
        }
        let (watching, watcher) = match self.processes.get(&process) {
            Some(process) => (process.watching, process.watcher),
            None => (false, None),
        };
        let made = Made {
            passed: call.passed,
            refused: call.forced.is_some(),
            in_new_thread: watcher.is_some_and(|watcher| watcher != pid),
            ..Made::new(call.number, call.args, call.forced.unwrap_or(value))
        };
        match made.result {
            // The refused start of a thread is in no transcript, like one that succeeds.
            Err(errno) if FORKS.contains(&call.number) => {
                if call::forks(call.number, &call.args) {
                    self.record.refused(&process, "fork", errno);
                }
            }
            Err(errno) if NOT_RECORDED.contains(&call.number) => {
                let name = call::name(call.number);
                self.record.refused(&process, name, errno);
            }
            _ => self.record.call(&process, watching && call.ours, made),
        }
    }

    /// Counts a call in the window, and makes it fail if the plan says so. `error` is the result that reports an error.
    pub(super) fn inject(
        &mut self,
        pid: Pid,
        number: i64,
        name: &'static str,
        error: fn(Errno) -> i64,
    ) {
        if let Some(errno) = self.window.count(name)
            && self.force(pid, number, error(errno))
        {
            self.window.has_injected();
        }
    }

    /// Skips the call at whose entry `pid` is stopped, and gives it this result at its exit. Returns false if the kernel
    /// does not permit it.
    pub(super) fn force(&mut self, pid: Pid, number: i64, value: i64) -> bool {
        if inject::skip(pid).is_err() {
            return false;
        }
        if let Some(task) = self.tasks.get_mut(&pid.as_raw()) {
            let call = task.call.get_or_insert(Executing {
                number,
                args: [0; 6],
                passed: [0; 6],
                ours: false,
                forced: None,
            });
            call.forced = Some(value);
        }
        true
    }
}
