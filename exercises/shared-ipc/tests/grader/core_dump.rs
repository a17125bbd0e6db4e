//! Reports a child that a signal has killed as if it had dumped core. The judge allows no core files, so the kernel never
//! sets that bit of the status.

use std::sync::atomic::AtomicBool;

use nix::libc;

use super::*;

static PRETENDED: AtomicBool = AtomicBool::new(false);

/// The bit that WCOREDUMP tests.
const DUMPED: libc::c_int = 0x80;

/// From here on each child that a signal kills is reported with a core dump, unless the answer bypasses libc.
pub fn pretend() {
    PRETENDED.store(true, SeqCst);
}

/// Overrides libc's `waitpid`.
///
/// # Safety
/// As for waitpid(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitpid(
    pid: libc::pid_t,
    status: *mut libc::c_int,
    options: libc::c_int,
) -> libc::pid_t {
    // SAFETY: the caller's contract, and a null pointer asks for no usage.
    unsafe { wait4(pid, status, options, std::ptr::null_mut()) }
}

/// Overrides libc's `wait4`.
///
/// # Safety
/// As for wait4(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait4(
    pid: libc::pid_t,
    status: *mut libc::c_int,
    options: libc::c_int,
    usage: *mut libc::rusage,
) -> libc::pid_t {
    let options = libc::c_long::from(options);
    let pid = libc::c_long::from(pid);
    // SAFETY: the caller's contract is the same.
    let waited = unsafe { libc::syscall(libc::SYS_wait4, pid, status, options, usage) };
    if waited > 0 && !status.is_null() && PRETENDED.load(SeqCst) {
        // SAFETY: the caller's pointer is valid for writes, and the kernel has written to it.
        let status = unsafe { &mut *status };
        if libc::WIFSIGNALED(*status) {
            *status |= DUMPED;
        }
    }
    waited as libc::pid_t
}

/// Overrides libc's `waitid`.
///
/// # Safety
/// As for waitid(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitid(
    kind: libc::idtype_t,
    id: libc::id_t,
    info: *mut libc::siginfo_t,
    options: libc::c_int,
) -> libc::c_int {
    let options = libc::c_long::from(options);
    let no_usage = std::ptr::null_mut::<libc::rusage>();
    // SAFETY: the caller's contract is the same.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::c_long::from(kind),
            libc::c_long::from(id),
            info,
            options,
            no_usage,
        )
    };
    if result == 0 && !info.is_null() && PRETENDED.load(SeqCst) {
        // SAFETY: the caller's pointer is valid for writes, and the kernel has written to it.
        let info = unsafe { &mut *info };
        if info.si_code == libc::CLD_KILLED {
            info.si_code = libc::CLD_DUMPED;
        }
    }
    result as libc::c_int
}
