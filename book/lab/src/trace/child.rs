//! The child process of a trace: it accesses pages on request, and reports the page faults.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::ptr::NonNull;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::entries;
use super::measure::{Access, Measured, measure};

pub struct Child {
    pub pid: Pid,
    requests: PipeWriter,
    replies: PipeReader,
}

impl Child {
    /// Forks a child, which has the mapping at the same address `start`.
    pub fn fork(start: NonNull<u8>) -> Child {
        let (child_requests, requests) = pipe().expect("pipe");
        let (replies, child_replies) = pipe().expect("pipe");
        // SAFETY: this process has one thread, so the child inherits no held lock.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Child {
                pid: child,
                requests,
                replies,
            },
            ForkResult::Child => {
                // Otherwise the child would keep its own request pipe open and never see its end.
                drop(requests);
                serve(start, child_requests, child_replies);
                // SAFETY: _exit only ends this process. It runs no exit handlers.
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
        let request = [
            first as u8,
            count as u8,
            u8::from(value.is_some()),
            value.unwrap_or_default(),
        ];
        let sent = self.requests.write_all(&request);
        sent.expect("the child reads requests");
        let mut reply = [0; 3];
        let received = self.replies.read_exact(&mut reply);
        received.expect("the child replies");
        let [faults, read, seen] = reply;
        Measured {
            faults: faults.into(),
            value: (read == 1).then_some(seen),
        }
    }

    /// Closes the pipes, which ends the child, and waits for it.
    pub fn wait(self) {
        let pid = self.pid;
        drop(self);
        let status = waitpid(pid, None).expect("waitpid");
        assert_eq!(
            status,
            WaitStatus::Exited(pid, 0),
            "the child exits with status 0"
        );
    }
}

/// Serves requests until the parent closes the pipe.
fn serve(start: NonNull<u8>, mut requests: PipeReader, mut replies: PipeWriter) {
    mark_accessed(start);
    let mut request = [0; 4];
    while requests.read_exact(&mut request).is_ok() {
        let [first, count, writes, value] = request;
        let access = Access {
            first: first.into(),
            count: count.into(),
            value: (writes == 1).then_some(value),
        };
        let Measured { faults, value } = measure(start, access);
        let reply = [
            faults as u8,
            u8::from(value.is_some()),
            value.unwrap_or_default(),
        ];
        if replies.write_all(&reply).is_err() {
            return;
        }
    }
}

/// Reads each page whose page-table entry fork has copied. fork clears the accessed flag of the copy. A processor that
/// does not set this flag itself (aarch64 before Armv8.1) faults once for each entry, and a trace must not count those
/// faults. On other processors the read does not fault.
fn mark_accessed(start: NonNull<u8>) {
    let allowed = u64::from(cfg!(target_arch = "aarch64"));
    for (first, bits) in entries(getpid(), start).iter().enumerate() {
        if bits.present {
            let access = Access {
                first,
                count: 1,
                value: None,
            };
            let faults = measure(start, access).faults;
            assert!(
                faults <= allowed,
                "page {first}: reading a copied entry took {faults} faults"
            );
        }
    }
}
