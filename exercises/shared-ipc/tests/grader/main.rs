//! Grades `shared-ipc`. Each stage is a module, and each test is a case.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use judge::{Errno, Refusal, case, check, refusals, refuse, watch, watched};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use shared_ipc::Shared;

/// 512 KiB: several pages, whatever the page size is.
type Numbers = [AtomicU64; 64 << 10];

/// Returns a new `Shared<$type>`, or fails the case.
///
/// A generic function would have to name the bound that the learner is asked to find, so this is a macro.
macro_rules! new {
    ($type:ty) => {
        match Shared::<$type>::new() {
            Ok(shared) => shared,
            Err(error) => judge::fail(format!(
                "Shared::new() for a value of {} returned an error; expected Ok: {error}.",
                judge::amount(size_of::<$type>())
            )),
        }
    };
}

/// Fails the case unless the error is that of the call that was made to fail.
fn expect_errno(call: &str, error: &io::Error, refused: Option<Refusal>) {
    let Some(refusal) = refused else {
        judge::fail(format!("{call} returned an error; expected Ok: {error}."));
    };
    let expected = io::Error::from(refusal.errno);
    check!(
        error.kind() == expected.kind(),
        "{call} returned the error \"{error}\"; expected that of {}: \"{expected}\".",
        refusal.call
    );
}

/// A panic's payload whose destructor panics, too.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the destructor of a panic's payload");
    }
}

/// Calls `f` in a destructor that runs because the thread panics. Returns its result.
///
/// `None` if the answer changes the panic hook, which std does not permit in a thread that panics.
fn while_unwinding<R>(f: impl FnOnce() -> R) -> Option<R> {
    if judge::answer::source::mentions("set_hook") {
        return None;
    }
    struct InDrop<'a>(&'a mut dyn FnMut());
    impl Drop for InDrop<'_> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let (mut f, mut result) = (Some(f), None);
    let mut call = || result = f.take().map(|f| f());
    let unwound = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let _call = InDrop(&mut call);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    result
}

/// Installs a SIGUSR1 handler without SA_RESTART that does nothing, so that the signal interrupts system calls.
fn interrupt_on_sigusr1() {
    extern "C" fn nothing(_: nix::libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction accepts a SIGUSR1 handler");
    judge::rebase_state();
}

/// Waits for all children, after a wait of the answer was made to fail.
fn reap() {
    // SAFETY: waitpid(2) accepts a null status.
    while unsafe { nix::libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

mod bound;
mod by_hand;
mod caller;
mod child;
mod output;
mod shared;

judge::answer!();

judge::compile_fail! {
    bound: a_string, a_box, a_reference, a_pointer, a_cell, a_mutex, written_through
}
