//! The secret that a case shares with its judge: it opens each line of the report, and is part of each mark.
//!
//! A case and the answer run in one process, so the secret cannot be kept from the answer completely. But the part for the
//! report is in no place where the answer can look it up: not in the environment when the answer's constructors run, not in
//! memory that is still to be allocated, and not in a pipe that the answer can open again. The part for the marks is an
//! argument of a call, which other threads can read in /proc/self/task/TID/syscall while it is executed.

use std::ffi::CStr;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::errno::Errno;
use nix::libc;

use crate::before_main::{Strings, value_of};

/// The environment variable with the secret of an untraced case. A traced one gets it from the zygote.
pub const SECRET: &str = "JUDGE_SECRET";

/// It consists of numbers, so all bytes are valid.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Secret {
    report: u64,
    marks: u64,
}

/// The secret of this process, if it is a case.
static OURS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

impl Secret {
    /// Returns a new secret.
    ///
    /// # Errors
    /// Returns the error of getrandom(2).
    pub fn new() -> Result<Secret, Errno> {
        let mut bytes = [0; 16];
        // SAFETY: the pointer and the length describe `bytes`.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        // The kernel fills a buffer of this size whole.
        Errno::result(filled)?;
        Ok(Secret::from(u128::from_ne_bytes(bytes)))
    }

    fn from(number: u128) -> Secret {
        Secret {
            report: (number >> 64) as u64,
            marks: number as u64,
        }
    }

    /// The secret of this process. Outside of a case it is none that a judge has given.
    pub fn ours() -> Secret {
        Secret {
            report: OURS[0].load(Relaxed),
            marks: OURS[1].load(Relaxed),
        }
    }

    /// Makes this the secret of this process.
    pub fn keep(self) {
        OURS[0].store(self.report, Relaxed);
        OURS[1].store(self.marks, Relaxed);
    }

    /// Takes the secret of this process out of its environment.
    ///
    /// # Safety
    /// `environment` is the array that the kernel passes to a program: C strings, then null. Nothing else uses the value of
    /// `SECRET`.
    pub unsafe fn take(environment: Strings) {
        // SAFETY: the caller's contract is the same.
        let Some(value) = (unsafe { value_of(environment, SECRET) }) else {
            return;
        };
        // SAFETY: the value is a C string that nothing changes meanwhile.
        let text = unsafe { CStr::from_ptr(value) };
        let len = text.to_bytes().len();
        let number = text
            .to_str()
            .ok()
            .map(|text| u128::from_str_radix(text, 16));
        if let Some(Ok(number)) = number {
            Secret::from(number).keep();
        }
        // SAFETY: the value has `len` bytes before its null byte.
        unsafe { value.cast::<u8>().write_bytes(b'0', len) };
    }

    /// The value of `SECRET`.
    pub fn to_variable(self) -> String {
        format!(
            "{:032x}",
            (u128::from(self.report) << 64) | u128::from(self.marks)
        )
    }

    /// What opens each line of the report: hexadecimal digits.
    pub fn nonce(self) -> [u8; 16] {
        let mut nonce = [0; 16];
        // The digits fit.
        let _ = write!(&mut nonce[..], "{:016x}", self.report);
        nonce
    }

    /// The last argument of each mark.
    pub fn of_marks(self) -> u64 {
        self.marks
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr::null_mut;

    use super::*;

    #[test]
    fn the_environment_loses_the_secret() {
        let secret = Secret {
            report: 7,
            marks: u64::MAX - 1,
        };
        let variable = format!("{SECRET}={}", secret.to_variable());
        let variable = CString::new(variable).unwrap().into_raw();
        let mut environment = [variable, null_mut()];
        // SAFETY: the array has the form that the kernel passes, and belongs to this test.
        unsafe { Secret::take(environment.as_mut_ptr()) };
        // SAFETY: `into_raw` has returned the pointer, and `take` has written no null byte.
        let variable = unsafe { CString::from_raw(variable) };
        assert_eq!(Secret::ours(), secret);
        assert_eq!(variable.to_str().unwrap(), format!("{SECRET}={:032}", 0));
    }
}
