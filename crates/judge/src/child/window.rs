//! Opens the window in which calls of the answer may fail.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::libc;

use super::interpose::PTHREAD;
use crate::injection::Refusal;
use crate::protocol::{Channel, Event, MARK, Mark};

thread_local! {
    /// The process in which this thread is in the window. A forked child has a copy of it, but is another process.
    static OPEN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Runs `f` in the window: while a case of `refusals` runs again, one of the calls that this thread makes here fails.
pub fn refuse<R>(f: impl FnOnce() -> R) -> R {
    let _window = Window::open();
    f()
}

/// Prepares for a run with `INJECT`. Without a tracer this process counts the calls and makes them fail itself, those that
/// it can: the ones through functions that `interpose` overrides.
pub fn prepare(channel: &Channel, injection: Option<Refusal>, traced: bool) {
    if !traced {
        let _ = UNTRACED.set(Untraced {
            channel: channel.clone(),
            injection,
            counts: Mutex::default(),
        });
    }
}

/// The calls in the window so far, if this process counts them.
pub fn counts() -> Option<BTreeMap<String, usize>> {
    Some(UNTRACED.get()?.lock().clone())
}

/// The error with which a call of this function must fail. With a tracer it decides on system calls by itself.
pub fn refused(function: &str) -> Option<i32> {
    if OPEN.get()? != process::id() {
        return None;
    }
    if let Some(untraced) = UNTRACED.get() {
        return untraced.refused(function);
    }
    let index = PTHREAD.iter().position(|known| *known == function)?;
    let error = mark(Mark::Call, index);
    (error > 0).then_some(error)
}

/// Whether a call of this function must fail. Then errno is set. With a tracer the answer is no: it makes the system call
/// fail.
pub fn fails(function: &str) -> bool {
    let error = match UNTRACED.get() {
        Some(_) => refused(function),
        None => None,
    };
    if let Some(error) = error {
        Errno::set_raw(error);
    }
    error.is_some()
}

static UNTRACED: OnceLock<Untraced> = OnceLock::new();

/// What the tracer does otherwise.
struct Untraced {
    channel: Channel,
    injection: Option<Refusal>,
    counts: Mutex<BTreeMap<String, usize>>,
}

impl Untraced {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, function: &str) -> Option<i32> {
        let before = Errno::last_raw();
        let index = {
            let mut counts = self.lock();
            let count = counts.entry(function.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        let hit = self
            .injection
            .filter(|injection| injection.hits(function, index));
        if hit.is_some() {
            let _ = self.channel.send(&Event::Injected);
        }
        Errno::set_raw(before);
        Some(hit?.errno as i32)
    }
}

/// Sends a mark to the tracer and returns its answer, which is not positive without a tracer. Leaves errno as it is.
pub fn mark(mark: Mark, value: usize) -> i32 {
    mark_memory(mark, value, &[])
}

/// Like `mark`. The tracer reads `memory` as well.
pub fn mark_memory(mark: Mark, value: usize, memory: &[usize]) -> i32 {
    let before = Errno::last_raw();
    // SAFETY: no kernel knows the option, so the call does nothing but fail.
    let answer = unsafe {
        libc::prctl(
            MARK as libc::c_int,
            mark as libc::c_ulong,
            value,
            syscall(),
            memory.as_ptr(),
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
        OPEN.set(Some(process::id()));
        mark(Mark::Open, 0);
        Window
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        mark(Mark::Close, 0);
        OPEN.set(None);
    }
}
