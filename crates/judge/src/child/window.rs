//! Opens the window in which calls of the answer may fail or be held.

use std::cell::Cell;
use std::sync::mpsc;
use std::{panic, thread};

use nix::errno::Errno;
use nix::libc;

use super::interpose::PTHREAD;
use crate::protocol::{MARK, Mark};

thread_local! {
    /// Whether this thread is in the window.
    static OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` in the window: while a case of `refusals` runs again, one of the calls that this thread makes here fails.
pub fn refuse<R>(f: impl FnOnce() -> R) -> R {
    let _window = Window::open();
    f()
}

/// Runs `first` in another thread, in the window of `interleavings`, and `second` in this thread.
///
/// While the case runs again, `first` is held at the entry of one of its calls, and `second` runs meanwhile. If `second`
/// waits for `first`, for a lock that it holds for example, `first` goes on after 100 ms. In the first run `second` begins
/// when `first` has returned.
///
/// # Panics
/// If `first` or `second` panics.
pub fn meanwhile<A: Send, B>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    /// Lets the held thread go on, also if `second` panics.
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            mark(Mark::Release, 0);
        }
    }
    let (sender, opened) = mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(move || {
            let _window = Window::open();
            let _ = sender.send(());
            first()
        });
        let _ = opened.recv();
        let second = {
            let _release = Release;
            mark(Mark::Await, 0);
            second()
        };
        match first.join() {
            Ok(first) => (first, second),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// The error with which the tracer makes this call of a `pthread` function fail.
pub fn refused(function: &str) -> Option<i32> {
    if !OPEN.get() {
        return None;
    }
    let index = PTHREAD.iter().position(|known| *known == function)?;
    let error = mark(Mark::Call, index);
    (error > 0).then_some(error)
}

/// Sends a mark to the tracer and returns its answer, which is not positive without a tracer. Leaves errno as it is.
pub fn mark(mark: Mark, value: usize) -> i32 {
    let before = Errno::last_raw();
    // SAFETY: no kernel knows the option, so the call does nothing but fail.
    let answer = unsafe {
        libc::prctl(
            MARK as libc::c_int,
            mark as libc::c_ulong,
            value,
            syscall(),
            0,
        )
    };
    Errno::set_raw(before);
    answer
}

/// The address of libc's function `syscall`.
fn syscall() -> usize {
    (libc::syscall as unsafe extern "C" fn(libc::c_long, ...) -> libc::c_long) as usize
}

/// Closes the window also if the answer panics.
struct Window;

impl Window {
    fn open() -> Window {
        OPEN.set(true);
        mark(Mark::Open, 0);
        Window
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        mark(Mark::Close, 0);
        OPEN.set(false);
    }
}
