//! Captures standard output, to see what a child writes when it ends.

use std::io::{self, Write};
use std::process;
use std::sync::atomic::AtomicU32;

use nix::libc;

use super::*;

/// Calls `f` with text in standard output's buffer and an exit handler registered. Fails the case if a child that `f`
/// forks flushes the buffer or runs the handler.
pub fn expect_silent_children<R>(f: impl FnOnce() -> R) -> R {
    let captured = CapturedStdout::begin();
    register_exit_handler();
    // Without a newline, the text is still in the buffer when the child is forked.
    print!("once");
    let result = f();
    let text = captured.end();
    let count = text.matches("once").count();
    check!(
        count == 1,
        "Text that was in the buffer of standard output before the fork was written {count} times; expected once. Do \
         not flush in the child, and end it with _exit, which flushes no buffer."
    );
    check!(
        !text.contains("handler"),
        "The child ran a handler that its parent had registered with atexit. End the child with _exit, which runs none."
    );
    result
}

/// Registers a handler with atexit that writes to standard output, unless it runs in this process.
fn register_exit_handler() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler() {
        if process::id() != PARENT.load(SeqCst) {
            // SAFETY: the string is 7 bytes long.
            unsafe { libc::write(1, c"handler".as_ptr().cast(), 7) };
        }
    }
    PARENT.store(process::id(), SeqCst);
    // SAFETY: `handler` is never unloaded and may run at any exit: it uses only an atomic and write(2).
    unsafe { libc::atexit(handler) };
}

/// Standard output, redirected to a memfd.
struct CapturedStdout {
    memfd: i32,
    saved: i32,
}

impl CapturedStdout {
    fn begin() -> CapturedStdout {
        // SAFETY: the name is a C string.
        let memfd = unsafe { libc::memfd_create(c"output".as_ptr(), 0) };
        // SAFETY: dup(2) accesses no memory.
        let saved = unsafe { libc::dup(1) };
        // SAFETY: dup2(2) accesses no memory, and descriptor 1 stays open.
        unsafe { libc::dup2(memfd, 1) };
        CapturedStdout { memfd, saved }
    }

    /// Restores standard output and returns the captured text.
    fn end(self) -> String {
        let _ = io::stdout().flush();
        // SAFETY: as in `begin`.
        unsafe { libc::dup2(self.saved, 1) };
        let mut text = vec![0; 64];
        // SAFETY: `text` has room for `text.len()` bytes.
        let read = unsafe { libc::pread(self.memfd, text.as_mut_ptr().cast(), text.len(), 0) };
        text.truncate(usize::try_from(read).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned()
    }
}
