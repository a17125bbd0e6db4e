//! Forks in a test.

use nix::libc;
use nix::unistd::{ForkResult, Pid, fork};

/// Forks. The child runs `f` and, if it returns, exits with status 0.
pub fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: the case runs on the only active thread of this process.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            f();
            // SAFETY: `_exit` takes any value.
            unsafe { libc::_exit(0) }
        }
    }
}
