//! Runs a function in a child process.

use std::ffi::c_int;
use std::io::{Error, ErrorKind, Result};

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// # Safety
/// In the child, `work` must not need a lock that another thread may have held at the fork.
pub unsafe fn run(work: extern "C" fn() -> c_int) -> Result<c_int> {
    // SAFETY: the caller's contract. `work` cannot unwind, and the child runs no other code of the parent.
    let pid = unsafe { fork() };
    if pid == -1 {
        return Err(Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: as above.
        unsafe { _exit(work()) };
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes.
        if unsafe { waitpid(-1, &raw mut status, 0) } != -1 {
            return Ok(status);
        }
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
