//! Captures standard output, to see what a child writes when it ends.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process;
use std::sync::atomic::AtomicU32;

use nix::libc;

use super::*;

/// Calls `f` with text in standard output's buffer and exit handlers registered. Fails the case if a child that `f` forks
/// flushes the buffer or runs a handler.
pub fn expect_silent_children<R>(f: impl FnOnce() -> R) -> R {
    expect_silent("Text", "The child", f)
}

/// As `expect_silent_children`, for a child that panics.
pub fn expect_silent_panics<R>(f: impl FnOnce() -> R) -> R {
    expect_silent("After a panic, text", "After a panic, the child", f)
}

/// The sentences begin with these words.
fn expect_silent<R>(parents_text: &str, child: &str, f: impl FnOnce() -> R) -> R {
    let captured = CapturedStdout::begin();
    register_exit_handlers();
    // Without a newline, the text is still in the buffer when the child is forked.
    print!("once");
    // C has a buffer of its own.
    // SAFETY: the text is a C string without conversions.
    unsafe { libc::printf(c"in C".as_ptr()) };
    let result = f();
    let text = captured.end();
    let expect_once = |text: &str, written: &str, buffer: &str| {
        let count = text.matches(written).count();
        check!(
            count == 1,
            "{parents_text} that was in {buffer} buffer of standard output before the fork was written {count} times; \
             expected once. Do not flush in the child, and end it with _exit, which flushes no buffer."
        );
    };
    expect_once(&text, "once", "the");
    for registered in ["atexit", "at_quick_exit"] {
        check!(
            !text.contains(&format!("[{registered}]")),
            "{child} ran a handler that its parent had registered with {registered}. End the child with _exit, \
             which runs none."
        );
    }
    expect_once(&text, "in C", "C's");
    result
}

unsafe extern "C" {
    fn at_quick_exit(handler: extern "C" fn()) -> libc::c_int; // not in libc's crate
}

/// Registers handlers with atexit and at_quick_exit that write to standard output, unless they run in this process.
fn register_exit_handlers() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    fn write_in_child(text: &CStr) {
        if process::id() != PARENT.load(SeqCst) {
            // SAFETY: the text is as long as it says.
            unsafe { libc::write(1, text.as_ptr().cast(), text.count_bytes()) };
        }
    }
    extern "C" fn at_exit() {
        write_in_child(c"[atexit]");
    }
    extern "C" fn on_quick_exit() {
        write_in_child(c"[at_quick_exit]");
    }
    PARENT.store(process::id(), SeqCst);
    // SAFETY: the handlers are never unloaded and may run at any exit: they use only an atomic and write(2).
    unsafe { libc::atexit(at_exit) };
    // SAFETY: as above.
    unsafe { at_quick_exit(on_quick_exit) };
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
        // SAFETY: null means all streams of C.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        // SAFETY: as in `begin`.
        unsafe { libc::dup2(self.saved, 1) };
        let mut text = vec![0; 64];
        // SAFETY: `text` has room for `text.len()` bytes.
        let read = unsafe { libc::pread(self.memfd, text.as_mut_ptr().cast(), text.len(), 0) };
        text.truncate(usize::try_from(read).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Calls `f`, which runs code in a child, while nothing can be written to standard output and standard error. Fails the
/// case if the child panics because of that, and the panic leaves the answer's function.
pub fn with_full_output<R>(f: impl FnOnce() -> R) -> R {
    expect_panics_stay(
        "Standard output and standard error were full, and a panic of the child left your function and ran the caller's \
         code. println! and eprintln! panic if they cannot write: use writeln! in the child, and ignore its result.",
        || redirect_to_full(f),
    )
}

fn redirect_to_full<R>(f: impl FnOnce() -> R) -> R {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        judge::skip("/dev/full cannot be opened");
    };
    let _ = io::stdout().flush();
    // Without a newline, the text stays in the buffer, so that a flush fails.
    print!("not to be flushed by the answer");
    // SAFETY: dup(2) accesses no memory.
    let saved = [1, 2].map(|stream| unsafe { libc::dup(stream) });
    for stream in [1, 2] {
        // SAFETY: dup2(2) accesses no memory, and both descriptors stay open.
        unsafe { libc::dup2(full.as_raw_fd(), stream) };
    }
    let result = f();
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        // SAFETY: as above.
        unsafe { libc::dup2(null.as_raw_fd(), 1) };
        let _ = io::stdout().flush();
    }
    for (saved, stream) in saved.into_iter().zip([1, 2]) {
        // SAFETY: as above.
        unsafe { libc::dup2(saved, stream) };
        // SAFETY: nothing else uses the copy.
        unsafe { libc::close(saved) };
    }
    result
}
