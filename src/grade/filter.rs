//! The seccomp filter of a sandbox: it refuses what namespaces do not isolate.
//!
//! A socket of AF_VSOCK reaches the host of a virtual machine, and one of AF_ALG the kernel's cryptography, from every
//! namespace. New kernels may have more such families, so that all but AF_UNIX are refused, which the judge and its cases
//! use. io_uring creates sockets without a system call that a filter could see, and is refused altogether. A lease would
//! make other sandboxes wait when they open the file.

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
    let calls = [
        (libc::SYS_socket, vec![other_family.clone()]),
        (libc::SYS_socketpair, vec![other_family]),
        (libc::SYS_fcntl, vec![lease]),
        (libc::SYS_io_uring_setup, Vec::new()),
    ];
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
