//! After a fork both processes read the same pages; the first write to one copies it, and the other never sees it.
//!
//! Claims: 42.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() {
    // ANCHOR: main
    let byte = lab::map_private(1).as_ptr();
    // SAFETY: the page is mapped to be written, and nothing else uses it.
    unsafe { lab::write(byte, 1) };

    // SAFETY: this process has one thread, so the child finds no lock held.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            // SAFETY: as above; the child's page is its own.
            unsafe { lab::write(byte, 2) };
            // SAFETY: as above.
            let seen = unsafe { lab::read(byte) };
            // SAFETY: ends the process at once, and runs nothing of the parent's.
            unsafe { nix::libc::_exit(seen.into()) };
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("waitpid");
            // SAFETY: as above.
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
        other => panic!("the child ended otherwise: {other:?}"),
    }
}
