//! After fork both processes share the same pages. A write copies the page, so the other process does not see it.
//!
//! Claims: 42.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() {
    // ANCHOR: main
    let byte = lab::map_private(1).as_ptr();
    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(byte, 1) };

    // SAFETY: this process has one thread, so the child inherits no held lock.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            // SAFETY: as above; the mapping is private to the child.
            unsafe { lab::write(byte, 2) };
            // SAFETY: the page is mapped readable.
            let seen = unsafe { lab::read(byte) };
            // SAFETY: _exit only ends this process. It runs no exit handlers.
            unsafe { nix::libc::_exit(seen.into()) };
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("waitpid");
            // SAFETY: the page is mapped readable.
            let seen = unsafe { lab::read(byte) };
            println!("the child wrote 2 and read {}", exit_code(status));
            println!("the parent reads {seen}");
            assert_eq!((exit_code(status), seen), (2, 1));
        }
    }
    // ANCHOR_END: main
}

fn exit_code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        other => panic!("unexpected wait status: {other:?}"),
    }
}
