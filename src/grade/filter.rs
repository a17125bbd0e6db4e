//! The seccomp filter of a sandbox: it refuses what namespaces do not isolate.
//!
//! A socket of AF_VSOCK reaches the host of a virtual machine, and one of AF_ALG the kernel's cryptography, from every
//! namespace. New kernels may have more such families, so all are refused except AF_UNIX, which the judge and its cases
//! use. io_uring creates sockets without a system call that a filter could see, and is refused altogether. A lease would
//! make other sandboxes wait when they open the file. The kernel counts keys, and what watches files, per user: one sandbox
//! could use up what the user's other processes need. It counts the requests of io_setup(2) for the whole machine.

use std::env::consts::ARCH;

use anyhow::Result;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The bit in the number of a call by which a program on x86-64 asks for the x32 ABI, which has the same calls.
#[cfg(target_arch = "x86_64")]
const ABIS: [libc::c_long; 2] = [0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const ABIS: [libc::c_long; 1] = [0];

/// Returns the program. Refused calls fail with EPERM.
///
/// # Errors
/// Returns an error if this architecture has no filters.
pub fn program() -> Result<BpfProgram> {
    // The high half of a C `int` in a register is undefined.
    let rule = |argument, compare, value: libc::c_int| {
        let length = SeccompCmpArgLen::Dword;
        let condition = SeccompCondition::new(argument, length, compare, value as u64)?;
        SeccompRule::new(vec![condition])
    };
    let other_family = rule(0, SeccompCmpOp::Ne, libc::AF_UNIX)?;
    let lease = rule(1, SeccompCmpOp::Eq, libc::F_SETLEASE)?;
    let mut calls = vec![
        (libc::SYS_socket, vec![other_family.clone()]),
        (libc::SYS_socketpair, vec![other_family]),
        (libc::SYS_fcntl, vec![lease]),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.push((libc::SYS_inotify_init, Vec::new()));
    let refused = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_setup,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_inotify_init1,
        libc::SYS_fanotify_init,
    ];
    calls.extend(refused.map(|number| (number, Vec::new())));
    let rules = calls
        .iter()
        .flat_map(|(number, rules)| ABIS.map(|abi| (number | abi, rules.clone())));
    let filter = SeccompFilter::new(
        rules.collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

/// The program as an array of `struct sock_filter`.
pub fn bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::new();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// The error of the call in a process with the filter.
    fn error(call: fn() -> libc::c_long) -> Option<i32> {
        let program = program().expect("a filter");
        let mut command = Command::new("true");
        let install_and_call = move || {
            seccompiler::apply_filter(&program).map_err(|_| io::ErrorKind::Unsupported)?;
            match call() {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        // SAFETY: between fork and exec the closure makes only system calls.
        unsafe { command.pre_exec(install_and_call) };
        command.status().err()?.raw_os_error()
    }

    fn socket(family: libc::c_int) -> libc::c_long {
        // SAFETY: the call takes numbers.
        unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into()
    }

    #[test]
    fn what_no_namespace_isolates_is_refused() {
        assert_eq!(error(|| socket(libc::AF_UNIX)), None);
        for call in [
            // SAFETY: the filter refuses the call before it reads the pointers.
            || unsafe { libc::syscall(libc::SYS_add_key, 0, 0, 0, 0, 0) },
            // SAFETY: the call takes a number.
            || unsafe { libc::inotify_init1(0) }.into(),
            // SAFETY: as above.
            || unsafe { libc::inotify_init() }.into(),
            || socket(libc::AF_INET),
            || socket(libc::AF_VSOCK),
            // The high half of a register may hold anything.
            // SAFETY: the call takes numbers.
            || unsafe { libc::syscall(libc::SYS_socket, (1_i64 << 32) | 2, libc::SOCK_STREAM, 0) },
            // SAFETY: the filter refuses the call before it reads the pointer.
            || unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) },
            // SAFETY: as above.
            || unsafe { libc::syscall(libc::SYS_io_setup, 1, 0) },
            // SAFETY: the call takes numbers.
            || unsafe { libc::fcntl(0, libc::F_SETLEASE, libc::F_RDLCK) }.into(),
        ] {
            assert_eq!(error(call), Some(libc::EPERM));
        }
    }
}
