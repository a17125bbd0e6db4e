//! Opens the window in which calls of the answer may fail.

use std::arch::asm;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::libc;

use super::interpose::PTHREAD;
use crate::injection::Refusal;
use crate::protocol::{Channel, Event, MARK, Mark};
use crate::secret::Secret;

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
            reported: AtomicBool::new(false),
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
    /// Whether the judge knows of the injection.
    reported: AtomicBool,
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
        // Once is enough: a wait is interrupted so often that the reports would fill the socket.
        if hit.is_some() && !self.reported.swap(true, Ordering::Relaxed) {
            let _ = self.channel.send(&Event::Injected);
        }
        Errno::set_raw(before);
        Some(hit?.errno as i32)
    }
}

/// Sends a mark to the tracer and returns its answer, which is negative without a tracer. Leaves errno as it is.
pub fn mark(mark: Mark, value: usize) -> i32 {
    mark_memory(mark, value, &[])
}

/// Like `mark`. The tracer reads `memory` as well.
pub fn mark_memory(mark: Mark, value: usize, memory: &[usize]) -> i32 {
    let values = [mark as usize, value, syscall(), memory.as_ptr().addr()];
    call(values, Secret::ours().of_marks()) as i32
}

/// Makes the call of a mark, which no kernel knows, and returns its result. Libc would leave the secret in the register of
/// the sixth argument, from which the answer's next call could pass it on.
#[cfg(target_arch = "x86_64")]
fn call([mark, value, syscall, memory]: [usize; 4], secret: u64) -> isize {
    let result;
    // SAFETY: the call does nothing but fail. It changes the registers that are named here.
    unsafe {
        asm!(
            "syscall",
            "xor r9d, r9d",
            inlateout("rax") libc::SYS_prctl as isize => result,
            in("rdi") MARK,
            in("rsi") mark,
            in("rdx") value,
            in("r10") syscall,
            in("r8") memory,
            inlateout("r9") secret => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// As on x86-64.
#[cfg(target_arch = "aarch64")]
fn call([mark, value, syscall, memory]: [usize; 4], secret: u64) -> isize {
    let result;
    // SAFETY: the call does nothing but fail. It changes the registers that are named here.
    unsafe {
        asm!(
            "svc 0",
            "mov x5, xzr",
            in("x8") libc::SYS_prctl,
            inlateout("x0") MARK as isize => result,
            in("x1") mark,
            in("x2") value,
            in("x3") syscall,
            in("x4") memory,
            inlateout("x5") secret => _,
            options(nostack)
        );
    }
    result
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
