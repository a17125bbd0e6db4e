//! The seccomp filters of every case: calls that reach beyond the case are refused, or reported to the judge, which
//! decides.
//!
//! They are installed before exec, so they also apply to code that runs before `main`.

use std::env::consts::ARCH;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getpgrp, getpid, getppid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The operation code of a BPF instruction that returns a constant.
const BPF_RETURN: u16 = 0x06;
/// Marks the instructions that become `SECCOMP_RET_USER_NOTIF`, which seccompiler does not know.
const NOTIFY: u16 = 0x6a75;

/// The programs, compiled before fork.
pub struct Filters {
    /// Calls that fail with EPERM.
    refused: BpfProgram,
    /// `clone3` passes its flags in memory, where a filter cannot see them. libc falls back to `clone`.
    no_clone3: BpfProgram,
    /// Calls on which the judge decides.
    notified: BpfProgram,
    /// Refuses the signals that reach the judge, where the kernel does not support notification.
    no_signals: BpfProgram,
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

impl Filters {
    /// Compiles the programs for children of this process. Without a tracer, the judge also counts new processes and
    /// threads by their calls: a fork bomb would outrun one that polls.
    pub fn new(traced: bool) -> io::Result<Filters> {
        let compiled = || -> Result<Filters, seccompiler::Error> {
            Ok(Filters {
                refused: compile(refused()?, SeccompAction::Errno(libc::EPERM as u32))?,
                no_clone3: compile(
                    vec![(libc::SYS_clone3, Vec::new())],
                    SeccompAction::Errno(libc::ENOSYS as u32),
                )?,
                notified: notifying(compile(
                    notified(traced)?,
                    SeccompAction::Trace(u32::from(NOTIFY)),
                )?),
                no_signals: compile(
                    signals_to_judge()?,
                    SeccompAction::Errno(libc::EPERM as u32),
                )?,
            })
        };
        compiled().map_err(io::Error::other)
    }

    /// Installs the programs in this process, which is about to exec, and sends the descriptor on which the judge is
    /// notified through `socket`. Makes only system calls.
    ///
    /// A kernel without seccomp, or a sandbox that refuses it, leaves the case without them.
    pub fn install(&self, socket: RawFd) {
        let on: libc::c_ulong = 1;
        let zero: libc::c_ulong = 0;
        // SAFETY: the option takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, zero, zero, zero) };
        let _ = load(&self.refused, 0);
        let _ = load(&self.no_clone3, 0);
        match load(&self.notified, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
            Ok(listener) => send(socket, listener as RawFd),
            Err(_) => {
                let _ = load(&self.no_signals, 0);
            }
        }
    }
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
/// expects it stops the process for ever.
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
    let owner = [F_SETOWN_EX, libc::F_SETOWN];
    let owner = owner.iter().map(|command| is(1, *command as u64));
    Ok(vec![
        (libc::SYS_clone, flags.collect::<Result<_, _>>()?),
        (libc::SYS_fcntl, owner.collect::<Result<_, _>>()?),
        (libc::SYS_unshare, Vec::new()),
        (libc::SYS_setns, Vec::new()),
        (libc::SYS_ptrace, Vec::new()),
    ])
}

fn notified(traced: bool) -> Result<Rules, seccompiler::Error> {
    let all = Vec::new;
    let creates = |index| -> Result<_, seccompiler::Error> {
        Ok(vec![has_bits(index, libc::O_CREAT as u64)?])
    };
    let mut rules = vec![
        (libc::SYS_kill, all()),
        (libc::SYS_tkill, all()),
        (libc::SYS_tgkill, all()),
        (libc::SYS_rt_sigqueueinfo, all()),
        (libc::SYS_rt_tgsigqueueinfo, all()),
        (libc::SYS_pidfd_send_signal, all()),
        // With a process id of 0 or without new limits, the call concerns the caller or only reads.
        (
            libc::SYS_prlimit64,
            vec![SeccompRule::new(vec![
                condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?,
                condition(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?,
            ])?],
        ),
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

/// Signals to this process, to its parent, to their groups and to everything.
fn signals_to_judge() -> Result<Rules, seccompiler::Error> {
    let (judge, parent, group) = (getpid().as_raw(), getppid().as_raw(), getpgrp().as_raw());
    let targets = [-1, judge, -judge, parent, -parent, group, -group];
    let signals = targets.iter().map(|pid| {
        SeccompRule::new(vec![
            condition(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                *pid as u32 as u64,
            )?,
            // Signal 0 only asks whether the process exists.
            condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?,
        ])
        .map_err(seccompiler::Error::from)
    });
    let signals: Vec<_> = signals.collect::<Result<_, _>>()?;
    let process = || {
        let processes = [judge, parent].into_iter();
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
        (libc::SYS_prlimit64, process()?),
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
fn load(program: &BpfProgram, flags: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: `program` describes an array of BPF instructions that outlives the call. seccompiler's type has the
    // kernel's layout. The kernel checks the program and does not modify it.
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

/// The room for one control message with one descriptor: a `cmsghdr` and an `int`, padded.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: RawFd,
}

/// Runs `f` with a message of one byte and with room for one descriptor.
fn with_message<R>(f: impl FnOnce(&mut libc::msghdr, *mut Control) -> R) -> R {
    let mut byte = 0_u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control {
        // SAFETY: a `cmsghdr` consists of numbers.
        header: unsafe { zeroed() },
        descriptor: -1,
    };
    // SAFETY: a `msghdr` consists of numbers and pointers, which may be null.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    f(&mut message, &raw mut control)
}

/// Sends `descriptor` through `socket`. Makes one system call.
fn send(socket: RawFd, descriptor: RawFd) {
    with_message(|message, control| {
        // SAFETY: `control` points to the local of `with_message`.
        let control = unsafe { &mut *control };
        // SAFETY: the function only computes.
        control.header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) } as _;
        control.header.cmsg_level = libc::SOL_SOCKET;
        control.header.cmsg_type = libc::SCM_RIGHTS;
        control.descriptor = descriptor;
        // SAFETY: the message points to locals of `with_message`, which outlive the call.
        unsafe { libc::sendmsg(socket, ptr::from_mut(message), libc::MSG_NOSIGNAL) };
    });
}

/// The descriptor that the child has sent, or `None` if it could not install the filter that notifies.
pub fn receive(socket: &UnixDatagram) -> Option<OwnedFd> {
    with_message(|message, control| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the message points to locals of `with_message`, which outlive the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), ptr::from_mut(message), flags) };
        // SAFETY: `control` points to the local of `with_message`.
        let control = unsafe { &*control };
        let has_descriptor = received == 1 && control.header.cmsg_type == libc::SCM_RIGHTS;
        // SAFETY: the kernel has just created the descriptor for this process, and nothing else owns it.
        has_descriptor.then(|| unsafe { OwnedFd::from_raw_fd(control.descriptor) })
    })
}
