//! Standard input that ends at Ctrl-C. A session then stops as it does at the end of the input: it keeps what was typed,
//! and prints its summary.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use course::process::{Killer, Limits, Ran, run_with};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};

/// The exit status of a shell's command that Ctrl-C has ended.
pub const INTERRUPTED: u8 = 130;

static WAS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether another program uses the terminal, to which Ctrl-C belongs.
static IS_LENT: AtomicBool = AtomicBool::new(false);

/// Returns whether Ctrl-C, SIGTERM or SIGHUP has ended the input.
pub fn was_interrupted() -> bool {
    WAS_INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs a program that uses the terminal. Meanwhile, the drill leaves Ctrl-C to that program.
pub fn lend_terminal<T>(run: impl FnOnce() -> T) -> T {
    IS_LENT.store(true, Ordering::Relaxed);
    let result = run();
    IS_LENT.store(false, Ordering::Relaxed);
    result
}

/// The program that the learner waits for.
static RUNNING: Mutex<Option<Killer>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Killer>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a program like [`course::process::run`], but kills it at an interrupt, after which [`was_interrupted`] is true.
/// The result then says nothing about the program.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn run_until_interrupt(command: &mut Command, limits: Limits) -> io::Result<Ran> {
    let ran = run_with(command, limits, |killer| {
        *running() = Some(killer.clone());
        // The interrupt may have come before the handler could find the program.
        if was_interrupted() {
            killer.kill();
        }
    });
    *running() = None;
    discard_typed();
    ran
}

/// Discards what the learner has typed while nothing was asked: an impatient Enter is no answer to the next question.
fn discard_typed() {
    // Fails if standard input is no terminal. What comes from a pipe is kept.
    let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
}

/// Standard input until Ctrl-C. It is not buffered.
pub struct Input {
    stdin: File,
    /// Readable after an interrupt.
    interrupts: PipeReader,
}

impl Input {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on. The first one also kills the program that the learner waits
    /// for. A second one ends the drill, which may be waiting for cargo.
    ///
    /// # Errors
    /// Returns an error if a handler is installed already, or if no file descriptor is left.
    pub fn until_interrupt() -> Result<Input> {
        let (interrupts, mut writer) = io::pipe()?;
        ctrlc::set_handler(move || {
            if IS_LENT.load(Ordering::Relaxed) {
                return;
            }
            if WAS_INTERRUPTED.swap(true, Ordering::Relaxed) {
                process::exit(INTERRUPTED.into());
            }
            if let Some(killer) = &*running() {
                killer.kill();
            }
            // Fails only if the reader is gone, together with the session.
            let _ = writer.write_all(&[0]);
        })
        .context("Ctrl-C cannot be handled")?;
        discard_typed();
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Input {
            stdin: stdin.into(),
            interrupts,
        })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut both = [self.stdin.as_fd(), self.interrupts.as_fd()]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut both, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            // The byte is never read, so the input has ended for good.
            if both[1].any() == Some(true) {
                return Ok(0);
            }
            return self.stdin.read(buffer);
        }
    }
}
