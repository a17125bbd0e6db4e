//! futex(2): a wait compares the word first, and a private wake-up finds no waiter of another process.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc::{self, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAKE};

/// Calls futex(2), without a time limit.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) -> Result<libc::c_long, Errno> {
    let no_limit = ptr::null::<libc::timespec>();
    // SAFETY: `word` is a valid, aligned word, and there is no time limit to read.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_limit) };
    Errno::result(result)
}

fn main() {
    // ANCHOR: main
    let [word, about_to_wait] = Memory::Shared.atomics();
    let changed = futex(word, FUTEX_WAIT, 1); // expects 1; the word contains 0

    let child = Child::start(|| {
        about_to_wait.store(1, Release);
        futex(word, FUTEX_WAIT, 0).expect("wait");
        0
    });
    child.wait_until(|| about_to_wait.load(Acquire) == 1 && child.is_sleeping());
    let private = futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    let shared = futex(word, FUTEX_WAKE, 1);
    // ANCHOR_END: main
    assert_eq!(child.exit_code(), 0);
    println!("wait for another value: {:?}", changed.unwrap_err());
    println!("private wake-up: {} woken", private.expect("wake"));
    println!("shared wake-up:  {} woken", shared.expect("wake"));
    assert_eq!(changed, Err(Errno::EAGAIN));
    assert_eq!([private, shared], [Ok(0), Ok(1)]);
}
