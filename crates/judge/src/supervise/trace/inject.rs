//! Makes a system call fail: the tracer's part of an injection.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// Replaces the call at whose entry `pid` is stopped by none. The kernel then goes on to the call's exit.
pub fn skip(pid: Pid) -> Result<(), Errno> {
    arch::skip(pid)
}

/// Sets the result of the call at whose exit `pid` is stopped: a negated error number, or a value.
pub fn set_result(pid: Pid, value: i64) -> Result<(), Errno> {
    arch::set_result(pid, value)
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::mem::offset_of;

    use nix::sys::ptrace;

    use super::*;

    pub fn skip(pid: Pid) -> Result<(), Errno> {
        write(pid, offset_of!(libc::user_regs_struct, orig_rax), -1)
    }

    pub fn set_result(pid: Pid, value: i64) -> Result<(), Errno> {
        write(pid, offset_of!(libc::user_regs_struct, rax), value)
    }

    /// Writes a register. The registers come first in `struct user`.
    fn write(pid: Pid, offset: usize, value: i64) -> Result<(), Errno> {
        ptrace::write_user(pid, offset as ptrace::AddressType, value)
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use nix::sys::ptrace::{self, regset::NT_PRSTATUS};

    use super::*;

    /// The register set with the number of the system call (`include/uapi/linux/elf.h`).
    const NT_ARM_SYSTEM_CALL: libc::c_long = 0x404;

    pub fn skip(pid: Pid) -> Result<(), Errno> {
        let mut number: libc::c_int = -1;
        let registers = libc::iovec {
            iov_base: (&raw mut number).cast(),
            iov_len: size_of_val(&number),
        };
        // SAFETY: the kernel reads the register set that `registers` describes, which outlives the call.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGSET,
                pid.as_raw(),
                NT_ARM_SYSTEM_CALL,
                &raw const registers,
            )
        };
        Errno::result(result).map(drop)
    }

    pub fn set_result(pid: Pid, value: i64) -> Result<(), Errno> {
        let mut registers = ptrace::getregset::<NT_PRSTATUS>(pid)?;
        registers.regs[0] = value as u64;
        ptrace::setregset::<NT_PRSTATUS>(pid, registers)
    }
}
