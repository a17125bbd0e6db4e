//! Ctrl-C: kills the program that runs, so that `main` returns and the temporary folders are removed.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use course::process::Killer;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<Option<Killer>> = Mutex::new(None);

/// Handles SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
/// Returns an error if the handler cannot be installed.
pub fn handle() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, SeqCst);
        kill();
    })
    .context("Ctrl-C cannot be handled")
}

/// Registers the program that was started.
pub fn started(program: Killer) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
    if is_pending() {
        kill();
    }
}

pub fn is_pending() -> bool {
    INTERRUPTED.load(SeqCst)
}

/// # Errors
/// Returns an error if the user has interrupted the command.
pub fn check() -> Result<()> {
    ensure!(!is_pending(), "interrupted");
    Ok(())
}

fn kill() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = &*running {
        program.kill();
    }
}
