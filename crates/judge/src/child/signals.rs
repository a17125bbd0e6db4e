//! Leaves the signals that arrive for a case's process to the case's thread.
//!
//! libtest runs a test in a second thread. Its main thread could take such a signal: that of a timer, or of a child that
//! has ended, would then not interrupt the wait of the answer.

use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow};

/// The mask before `block`.
static BEFORE: OnceLock<SigSet> = OnceLock::new();

/// Blocks all signals in the calling thread, libtest's.
pub fn block() {
    if let Ok(before) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK) {
        let _ = BEFORE.set(before);
    }
}

/// Restores the mask in the calling thread, the case's, which has inherited it.
pub fn unblock() {
    if let Some(before) = BEFORE.get() {
        let _ = before.thread_set_mask();
    }
}
