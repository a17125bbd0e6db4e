//! The seccomp filters of every case: calls that reach beyond the case are refused, or reported to the judge, which
//! decides.
//!
//! They are installed before the program begins, so they also apply to code that runs before `main`.

use std::env::consts::ARCH;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, getpgrp, getpid, getppid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::descriptors;

/// The operation code of a BPF instruction that returns a constant.
const BPF_RETURN: u16 = 0x06;
/// Marks the instructions that become `SECCOMP_RET_USER_NOTIF`, which seccompiler does not know.
const NOTIFY: u16 = 0x6a75;

/// The programs that refuse calls.
pub struct Refusals {
    /// Calls that fail with EPERM.
    refused: Program,
    /// `clone3` passes its flags in memory, where a filter cannot see them. libc falls back to `clone`.
    no_clone3: Program,
}

/// The programs that report calls to the judge of one case. Like `Program`, they can be sent to another process.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Reports {
    /// Calls on which the judge decides.
    notified: Program,
    /// Refuses the signals that reach the judge, where the kernel does not support notification.
    no_signals: Program,
}

/// The most instructions of a program.
const LONGEST: usize = 256;

/// A program of BPF instructions. It consists of numbers.
#[derive(Clone, Copy)]
#[repr(C)]
struct Program {
    len: u32,
    instructions: [libc::sock_filter; LONGEST],
}

impl From<BpfProgram> for Program {
    fn from(program: BpfProgram) -> Program {
        let nothing = libc::sock_filter {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let mut instructions = [nothing; LONGEST];
        for (place, instruction) in instructions[..program.len()].iter_mut().zip(&program) {
            *place = libc::sock_filter {
                code: instruction.code,
                jt: instruction.jt,
                jf: instruction.jf,
                k: instruction.k,
            };
        }
        Program {
            len: program.len() as u32,
            instructions,
        }
    }
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

impl Refusals {
    pub fn new() -> io::Result<Refusals> {
        let refused = refused().and_then(|rules| failing(rules, libc::EPERM));
        let no_clone3 = failing(vec![(libc::SYS_clone3, Vec::new())], libc::ENOSYS);
        Ok(Refusals {
            refused: refused.map_err(io::Error::other)?.into(),
            no_clone3: no_clone3.map_err(io::Error::other)?.into(),
        })
    }

    /// Installs the programs in this process and all that it starts. Makes only system calls.
    ///
    /// A kernel without seccomp, or a sandbox that refuses it, leaves the case without them.
    pub fn install(&self) {
        let on: libc::c_ulong = 1;
        let zero: libc::c_ulong = 0;
        // SAFETY: the option takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, zero, zero, zero) };
        let _ = load(&self.refused, 0);
        let _ = load(&self.no_clone3, 0);
    }
}

impl Reports {
    /// Compiles the programs for children of `parent`, this process or its zygote. Without a tracer, the judge also counts
    /// new processes and threads by their calls: a fork bomb would outrun one that polls.
    pub fn new(parent: Pid, traced: bool) -> io::Result<Reports> {
        let marked = SeccompAction::Trace(u32::from(NOTIFY));
        let notified = notified(traced).and_then(|rules| compile(rules, marked));
        let no_signals =
            signals_to_judge(parent.as_raw()).and_then(|rules| failing(rules, libc::EPERM));
        Ok(Reports {
            notified: notifying(notified.map_err(io::Error::other)?).into(),
            no_signals: no_signals.map_err(io::Error::other)?.into(),
        })
    }

    /// Installs the programs in this process, after those of `Refusals`, and sends the descriptor on which the judge is
    /// notified through `socket`. Makes only system calls.
    ///
    /// A kernel that cannot notify gets the other program.
    ///
    /// # Errors
    /// Returns an error if the descriptor cannot be sent. Calls would fail with ENOSYS then, so the case must not begin.
    pub fn install(&self, socket: RawFd) -> Result<(), Errno> {
        // Otherwise a signal handler that runs while the call waits for the judge ends it with EINTR, with which `kill`
        // never fails. Linux 5.18 and earlier reject the flag.
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = load(
            &self.notified,
            flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        )
        .or_else(|_| load(&self.notified, flags));
        match listener {
            Ok(listener) => {
                // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
                let listener = unsafe { OwnedFd::from_raw_fd(listener as RawFd) };
                descriptors::send(socket, &0_u8, [listener.as_raw_fd()])
            }
            Err(_) => {
                let _ = load(&self.no_signals, 0);
                Ok(())
            }
        }
    }
}

fn failing(rules: Rules, error: libc::c_int) -> Result<BpfProgram, seccompiler::Error> {
    compile(rules, SeccompAction::Errno(error as u32))
}

fn compile(rules: Rules, on_match: SeccompAction) -> Result<BpfProgram, seccompiler::Error> {
    let arch = ARCH.try_into()?;
    let rules = rules.into_iter().collect();
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, on_match, arch)?.try_into()?)
}

/// The program with notifications in place of the marked instructions.
fn notifying(mut program: BpfProgram) -> BpfProgram {
    for instruction in &mut program {
        if instruction.code == BPF_RETURN
            && instruction.k == libc::SECCOMP_RET_TRACE | u32::from(NOTIFY)
        {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    program
}

/// Other namespaces and tracers would take a process out of the judge's sight. `PTRACE_TRACEME` without a tracer that
/// expects it stops the process for ever. Limits and priorities of other processes are the judge's, too.
fn refused() -> Result<Rules, seccompiler::Error> {
    const FLAGS: [libc::c_int; 9] = [
        libc::CLONE_UNTRACED,
        libc::CLONE_PARENT,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let flags = FLAGS.iter().map(|flag| has_bits(0, *flag as u64));
    // The owner of a descriptor gets signals when it becomes ready. It may be any process.
    const F_SETOWN_EX: libc::c_int = 15; // not in libc's crate
    const FIOSETOWN: u64 = 0x8901; // nor are these
    const SIOCSPGRP: u64 = 0x8902;
    const IOPRIO_WHO_USER: u64 = 3;
    let owner = [F_SETOWN_EX, libc::F_SETOWN];
    let owner = owner.iter().map(|command| is(1, *command as u64));
    let owner_of_socket = vec![is(1, FIOSETOWN)?, is(1, SIOCSPGRP)?];
    Ok(vec![
        (libc::SYS_clone, flags.collect::<Result<_, _>>()?),
        (libc::SYS_fcntl, owner.collect::<Result<_, _>>()?),
        (libc::SYS_ioctl, owner_of_socket),
        // A process id of 0 is that of the caller. Without new limits, the call only reads.
        (
            libc::SYS_prlimit64,
            vec![SeccompRule::new(vec![
                is_not(0, 0)?,
                condition(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?,
            ])?],
        ),
        (
            libc::SYS_setpriority,
            vec![
                is(0, libc::PRIO_USER as u64)?,
                SeccompRule::new(vec![is_not(1, 0)?])?,
            ],
        ),
        (
            libc::SYS_ioprio_set,
            vec![
                is(0, IOPRIO_WHO_USER)?,
                SeccompRule::new(vec![is_not(1, 0)?])?,
            ],
        ),
        (libc::SYS_unshare, Vec::new()),
        (libc::SYS_setns, Vec::new()),
        (libc::SYS_ptrace, Vec::new()),
    ])
}

fn notified(traced: bool) -> Result<Rules, seccompiler::Error> {
    let all = Vec::new;
    let names = |index| -> Result<_, seccompiler::Error> {
        Ok(vec![SeccompRule::new(vec![is_not(index, 0)?])?])
    };
    // Signal 0 only asks whether the process exists.
    let sends = names;
    let creates = |index| -> Result<_, seccompiler::Error> {
        Ok(vec![has_bits(index, libc::O_CREAT as u64)?])
    };
    let mut rules = vec![
        (libc::SYS_kill, sends(1)?),
        (libc::SYS_tkill, sends(1)?),
        (libc::SYS_tgkill, sends(2)?),
        (libc::SYS_rt_sigqueueinfo, sends(1)?),
        (libc::SYS_rt_tgsigqueueinfo, sends(2)?),
        (libc::SYS_pidfd_send_signal, sends(1)?),
        // Thread 0 is the caller.
        (libc::SYS_sched_setaffinity, names(0)?),
        (libc::SYS_sched_setscheduler, names(0)?),
        (libc::SYS_sched_setparam, names(0)?),
        (libc::SYS_sched_setattr, names(0)?),
        (libc::SYS_shmget, all()),
        (libc::SYS_semget, all()),
        (libc::SYS_msgget, all()),
        (libc::SYS_mq_open, creates(1)?),
        (libc::SYS_openat, creates(2)?),
        (libc::SYS_openat2, all()), // its flags are in memory
        (libc::SYS_mknodat, all()),
        (libc::SYS_mkdirat, all()),
        (libc::SYS_symlinkat, all()),
        (libc::SYS_linkat, all()),
        (libc::SYS_renameat, all()),
        (libc::SYS_renameat2, all()),
    ];
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        (libc::SYS_open, creates(1)?),
        (libc::SYS_creat, all()),
        (libc::SYS_mknod, all()),
        (libc::SYS_mkdir, all()),
        (libc::SYS_symlink, all()),
        (libc::SYS_link, all()),
        (libc::SYS_rename, all()),
    ]);
    if !traced {
        rules.push((libc::SYS_clone, all()));
        #[cfg(target_arch = "x86_64")]
        rules.extend([(libc::SYS_fork, all()), (libc::SYS_vfork, all())]);
    }
    Ok(rules)
}

/// Signals to this process, to its parent, to the `zygote`, to their groups and to everything.
fn signals_to_judge(zygote: i32) -> Result<Rules, seccompiler::Error> {
    let (judge, parent, group) = (getpid().as_raw(), getppid().as_raw(), getpgrp().as_raw());
    let named = [judge, parent, group, zygote];
    let targets = named.iter().flat_map(|pid| [*pid, -pid]).chain([-1]);
    let signals = targets.map(|pid| {
        SeccompRule::new(vec![
            condition(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                pid as u32 as u64,
            )?,
            // Signal 0 only asks whether the process exists.
            condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?,
        ])
        .map_err(seccompiler::Error::from)
    });
    let signals: Vec<_> = signals.collect::<Result<_, _>>()?;
    let process = || {
        let processes = [judge, parent, zygote].into_iter();
        processes
            .map(|pid| is(0, pid as u64))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(vec![
        (libc::SYS_kill, signals),
        (libc::SYS_tkill, process()?),
        (libc::SYS_tgkill, process()?),
        (libc::SYS_rt_sigqueueinfo, process()?),
        (libc::SYS_rt_tgsigqueueinfo, process()?),
        (libc::SYS_pidfd_open, process()?),
    ])
}

fn condition(
    index: u8,
    length: SeccompCmpArgLen,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(index, length, operation, value)?)
}

/// Compares the low half of the argument, because a caller may leave anything in the high half of a C `int`.
fn is(index: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let equal = condition(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![equal])?)
}

fn is_not(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    condition(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn has_bits(index: u8, bits: u64) -> Result<SeccompRule, seccompiler::Error> {
    let masked = condition(
        index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(bits),
        bits,
    )?;
    Ok(SeccompRule::new(vec![masked])?)
}

/// Loads the program into this process. Makes one system call.
fn load(program: &Program, flags: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let program = libc::sock_fprog {
        len: program.len as libc::c_ushort,
        filter: program.instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes an array of BPF instructions that outlives the call. The kernel checks the program and
    // does not modify it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    Errno::result(result)
}

/// The descriptor that the child has sent, or `None` if it could not install the filter that notifies.
pub fn receive(socket: &UnixDatagram) -> Option<OwnedFd> {
    // SAFETY: all bytes are valid for a number.
    let received =
        unsafe { descriptors::receive(socket.as_raw_fd(), &mut 0_u8, libc::MSG_DONTWAIT) };
    let [listener] = received.ok()??;
    // SAFETY: the kernel has just created the descriptor for this process, and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(listener) })
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_listener_that_cannot_be_sent_is_an_error() {
        let refusals = Refusals::new().unwrap();
        let reports = Reports::new(getpid(), true).unwrap();
        // SAFETY: the child only makes system calls.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // An unprivileged process may install a program only after it has given up new privileges.
                refusals.install();
                let status = reports
                    .install(-1)
                    .map_or_else(|error| error as i32, |()| 0);
                // SAFETY: the call ends the process.
                unsafe { libc::_exit(status) }
            }
        };
        let ended = waitpid(child, None).unwrap();
        assert_eq!(ended, WaitStatus::Exited(child, Errno::EBADF as i32));
    }
}
