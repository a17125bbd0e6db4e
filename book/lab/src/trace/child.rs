//! The child of a trace: it touches pages when it is told to, and says what that cost.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::ptr::NonNull;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::entries;
use super::measure::{Access, Measured, measure};

pub struct Child {
    pub pid: Pid,
    orders: PipeWriter,
    answers: PipeReader,
}

impl Child {
    /// Forks; the child has the mapping at the same address.
    pub fn fork(start: NonNull<u8>) -> Child {
        let (mine, orders) = pipe().expect("a pipe");
        let (answers, theirs) = pipe().expect("a pipe");
        // SAFETY: this process has one thread, so the child finds no lock held.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Child {
                pid: child,
                orders,
                answers,
            },
            ForkResult::Child => {
                // Otherwise it would wait for its own end of the pipe to close.
                drop(orders);
                obey(start, mine, theirs);
                // SAFETY: ends the process at once, and runs nothing of the parent's.
                unsafe { nix::libc::_exit(0) };
            }
        }
    }

    pub fn measure(&mut self, access: Access) -> Measured {
        let Access {
            first,
            count,
            value,
        } = access;
        let order = [
            first as u8,
            count as u8,
            u8::from(value.is_some()),
            value.unwrap_or_default(),
        ];
        self.orders.write_all(&order).expect("the child listens");
        let mut answer = [0; 3];
        let answered = self.answers.read_exact(&mut answer);
        answered.expect("the child answers");
        let [faults, read, seen] = answer;
        Measured {
            faults: faults.into(),
            value: (read == 1).then_some(seen),
        }
    }

    /// Lets it end, and waits until it has.
    pub fn end(self) {
        let pid = self.pid;
        drop(self);
        let status = waitpid(pid, None).expect("waitpid");
        assert_eq!(status, WaitStatus::Exited(pid, 0), "the child ends well");
    }
}

/// Until the parent closes the pipe.
fn obey(start: NonNull<u8>, mut orders: PipeReader, mut answers: PipeWriter) {
    take_old_entries(start);
    let mut order = [0; 4];
    while orders.read_exact(&mut order).is_ok() {
        let [first, count, writes, value] = order;
        let access = Access {
            first: first.into(),
            count: count.into(),
            value: (writes == 1).then_some(value),
        };
        let Measured { faults, value } = measure(start, access);
        let answer = [
            faults as u8,
            u8::from(value.is_some()),
            value.unwrap_or_default(),
        ];
        if answers.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Reads each page that fork has copied an entry of. Such an entry is old, and a processor that does not mark entries as
/// used by itself (aarch64 before Armv8.1) faults once to have it marked: that is not what a trace is about. Elsewhere the
/// read costs nothing.
fn take_old_entries(start: NonNull<u8>) {
    let most = u64::from(cfg!(target_arch = "aarch64"));
    for (first, bits) in entries(getpid(), start).iter().enumerate() {
        if bits.present {
            let access = Access {
                first,
                count: 1,
                value: None,
            };
            let faults = measure(start, access).faults;
            assert!(faults <= most, "page {first} was copied, and faults");
        }
    }
}
