//! A pipe ends when its last writer has closed it, and cannot be written after its last reader has.

use lab::sharing::Child;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::WaitStatus;
use nix::unistd::{pipe2, read, write};

/// Writes to a pipe without a reader, in a child that treats SIGPIPE in this way. The child exits with errno.
fn write_without_reader(sigpipe: SigHandler) -> WaitStatus {
    let child = Child::start(move || {
        // SAFETY: neither value is a handler that would run.
        unsafe { signal(Signal::SIGPIPE, sigpipe) }.expect("signal");
        let (reads, writes) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        drop(reads);
        write(&writes, b"x").expect_err("no reader is left") as i32
    });
    child.wait()
}

fn main() {
    let mut byte = [0];
    // ANCHOR: main
    let (reads, writes) = pipe2(OFlag::O_NONBLOCK).expect("pipe");
    let with_writer = read(&reads, &mut byte); // would wait, if it could
    drop(writes);
    let without_writer = read(&reads, &mut byte); // the end of the file
    // ANCHOR_END: main
    println!("empty, write end open: {:?}", with_writer.unwrap_err());
    println!("empty, write end closed: {} bytes", without_writer.unwrap());
    assert_eq!((with_writer, without_writer), (Err(Errno::EAGAIN), Ok(0)));

    let ignored = match write_without_reader(SigHandler::SigIgn) {
        WaitStatus::Exited(_, error) => Errno::from_raw(error),
        other => panic!("unexpected wait status: {other:?}"),
    };
    println!("read end closed, SIGPIPE ignored: {ignored:?}");
    assert_eq!(ignored, Errno::EPIPE);
    let killer = match write_without_reader(SigHandler::SigDfl) {
        WaitStatus::Signaled(_, signal, _) => signal,
        other => panic!("unexpected wait status: {other:?}"),
    };
    println!("read end closed: killed by {killer}");
    assert_eq!(killer, Signal::SIGPIPE);
}
