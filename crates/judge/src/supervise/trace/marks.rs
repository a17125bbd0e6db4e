//! Handles the marks that the case sends by `prctl`: the parts that are watched, the window of injected calls, and the
//! threads that are executed step by step.

use nix::libc;
use nix::unistd::Pid;

use super::{Process, Tracer};
use crate::child::interpose::PTHREAD;
use crate::procfs;
use crate::protocol::{GIVE_UP, MARK, Mark};
use crate::record::process::FIRST;

/// The length of libc's function `syscall`, in bytes; the true one is shorter.
const SYSCALL_CODE: u64 = 64;

impl Tracer<'_> {
    pub(super) fn mark(&mut self, pid: Pid, args: [u64; 6]) {
        let [option, number, value, syscall, memory, secret] = args;
        // The answer does not know the secret.
        let is_ours = option == MARK && secret == self.secret.of_marks();
        let (true, Some(mark)) = (is_ours, Mark::from_number(number)) else {
            return;
        };
        if matches!(mark, Mark::Watch | Mark::Open) && self.code.is_empty() {
            self.code = procfs::program_code(pid.as_raw());
            self.code.push(syscall..syscall + SYSCALL_CODE);
        }
        match mark {
            Mark::Watch => self.watch(pid, value),
            Mark::Unwatch => self.unwatch(pid),
            Mark::Open => self.window.set(pid.as_raw(), true),
            Mark::Close => self.window.set(pid.as_raw(), false),
            Mark::Brk => {
                if let Some(task) = self.tasks.get_mut(&pid.as_raw()) {
                    task.moves_the_break = true;
                }
            }
            Mark::Call => {
                if let Some(name) = PTHREAD.get(value as usize) {
                    // A `pthread` function returns its error.
                    self.inject(pid, libc::SYS_prctl, name, |errno| errno as i64);
                }
            }
            Mark::SocketGone => self.first.socket_gone = true,
            Mark::Steps => self.begin_steps(pid, value, memory),
            Mark::StepsEnd => self.end_steps(pid),
            Mark::Pass => self.steps.pass(pid, value != 0),
            Mark::Places => {
                let number = self.number_of_places();
                self.answer(pid, number);
            }
            Mark::HasStopped if value == GIVE_UP as u64 => self.give_up(),
            Mark::HasStopped => {
                let stopped = self.has_stopped();
                self.answer(pid, stopped);
            }
            Mark::GoOn => self.go_on(),
            Mark::Note => self.record.notes.push(value),
            Mark::Length => {
                if let Some(task) = self.tasks.get_mut(&pid.as_raw()) {
                    task.lengths.push(value);
                }
            }
        }
    }

    /// Gives the mark that `pid` has sent this result.
    pub(super) fn answer(&mut self, pid: Pid, value: i64) {
        self.force(pid, libc::SYS_prctl, value);
    }

    fn watch(&mut self, pid: Pid, heap: u64) {
        let Some(process) = self.process_of(pid) else {
            return;
        };
        process.watching = true;
        process.watcher = Some(pid);
        process.descriptors = procfs::descriptors(pid.as_raw());
        self.record.begin(heap);
    }

    fn unwatch(&mut self, pid: Pid) {
        let Some(process) = self.process_of(pid) else {
            return;
        };
        process.watching = false;
        let before = process.descriptors;
        let is_first = self
            .tasks
            .get(&pid.as_raw())
            .is_some_and(|task| task.process == FIRST);
        if is_first {
            let opened = procfs::descriptors(pid.as_raw()) as i64 - before as i64;
            let children = self
                .forked
                .iter()
                .filter(|pid| procfs::exists(**pid))
                .count();
            self.record.end(opened, children);
        }
    }

    /// The process of the task `pid`.
    fn process_of(&mut self, pid: Pid) -> Option<&mut Process> {
        let task = self.tasks.get(&pid.as_raw())?;
        Some(self.processes.entry(task.process.clone()).or_default())
    }
}
