//! Remembers what set errno last: a memory function that failed, or a write of output that failed. A sentence about an
//! error can then name it.

use std::cell::Cell;
use std::error::Error;
use std::io;

use nix::errno::Errno;

use crate::record::call;

/// The arguments that tell one call of a function from another one.
#[derive(Debug, Clone, Copy)]
pub enum Arguments {
    Len(usize),
    TwoLens(usize, usize),
    Advice(usize, i32),
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    function: &'static str,
    arguments: Arguments,
    errno: Errno,
}

/// The errno that output leaves behind: C's standard streams test whether they write to a terminal, which fails for a
/// file.
const AFTER_OUTPUT: Errno = Errno::ENOTTY;

thread_local! {
    /// The last memory function that has failed.
    static LAST: Cell<Option<Failed>> = const { Cell::new(None) };
    /// Whether there was output.
    static OUTPUT: Cell<bool> = const { Cell::new(false) };
}

/// Changes errno, as output may do that has succeeded.
pub fn note_output() {
    OUTPUT.set(true);
    AFTER_OUTPUT.set();
}

/// Whether the error is what output of this thread has left in errno since `forget`.
pub fn is_from_output(error: &io::Error) -> bool {
    OUTPUT.get() && error.raw_os_error() == Some(AFTER_OUTPUT as i32)
}

/// Remembers the call if `result`, which it returns, is -1.
pub fn note(function: &'static str, arguments: Arguments, result: i64) -> i64 {
    if result == -1 {
        LAST.set(Some(Failed {
            function,
            arguments,
            errno: Errno::last(),
        }));
    }
    result
}

/// Forgets what this thread has done. Call it before a function of the answer.
pub fn forget() {
    LAST.set(None);
    OUTPUT.set(false);
}

/// A sentence, with a space before it, on the last of mmap, munmap, mprotect, madvise and mremap that has failed in this
/// thread since `forget`. It is empty if there was none, or if it failed with another error than `error`. Calls that
/// bypass libc are not seen.
pub fn last_with(error: &io::Error) -> String {
    let of_error = |failed: &Failed| {
        let errno = io::Error::from(failed.errno);
        match error.raw_os_error() {
            Some(_) => errno.raw_os_error() == error.raw_os_error(),
            None => errno.kind() == error.kind(),
        }
    };
    let Some(failed) = LAST.get().filter(of_error) else {
        return String::new();
    };
    let size = |bytes: usize| call::argument(bytes as u64);
    let arguments = match failed.arguments {
        Arguments::Len(len) => size(len),
        Arguments::TwoLens(old, new) => format!("{}, {}", size(old), size(new)),
        Arguments::Advice(len, advice) => {
            format!("{}, {}", size(len), call::advice(advice as u64))
        }
    };
    format!(
        " The last call that failed was {}(.., {arguments}): {:?}.",
        failed.function, failed.errno
    )
}

/// Fails the case if `f`, which calls the answer's function `call`, returns an error because of what errno was before. If it
/// returns an error anyway, that is for another case to say.
pub fn expect_ok_whatever_errno(call: &str, mut f: impl FnMut() -> io::Result<()>) {
    let mut with = |errno: Errno| {
        forget();
        errno.set();
        f()
    };
    if with(Errno::from_raw(0)).is_err() {
        return;
    }
    // An answer may look for certain errors only.
    for errno in [
        Errno::ENOMEM,
        Errno::EINVAL,
        Errno::EAGAIN,
        Errno::EFAULT,
        Errno::EHWPOISON,
        Errno::EPERM,
        Errno::EINTR,
        Errno::ECHILD,
        Errno::EEXIST,
    ] {
        if let Err(error) = with(errno) {
            crate::fail(format!(
                "errno was {errno:?}, as an earlier call may leave it, and {call} returned the error \"{error}\"; expected Ok. \
                 errno counts only after a call that failed: look at the call's result first.{}",
                last_with(&error)
            ));
        }
    }
}

/// The errno of the error, or of the error that it wraps.
pub fn errno_of(error: &io::Error) -> Option<Errno> {
    if let Some(errno) = error.raw_os_error() {
        return Some(Errno::from_raw(errno));
    }
    let mut wrapped: Option<&(dyn Error + 'static)> = error.get_ref().map(|error| error as _);
    while let Some(error) = wrapped {
        if let Some(errno) = error.downcast_ref::<Errno>() {
            return Some(*errno);
        }
        if let Some(errno) = error.downcast_ref().and_then(errno_of) {
            return Some(errno);
        }
        wrapped = error.source();
    }
    None
}
