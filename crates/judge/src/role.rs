//! The role of this process for the calling test: the judge, its child, or both, for a debugger.

use std::{env, thread};

use crate::protocol::{self, Channel};

pub enum Role {
    /// Starts the child and judges it.
    Judge { case: String },
    /// Runs the body and reports on `channel`.
    Child { channel: Channel },
    /// Runs the body in the test's own process, for a debugger: `JUDGE_INLINE` is set.
    Inline,
}

const NO_THREAD: &str = "Could not grade: this test does not run in a thread of its own. Either it is not a #[test] \
    function, or libtest could not start a thread: then your user may not start more (ulimit -u).";

/// The role of this process for the calling test.
///
/// # Panics
/// Outside a `#[test]` function: the case's name is the name that libtest gives to the test's thread.
pub fn current() -> Role {
    let thread = thread::current();
    let case = thread
        .name()
        .filter(|name| *name != "main")
        .unwrap_or_else(|| panic!("{NO_THREAD}"));
    of(case)
}

/// The role of this process for `case`.
pub fn of(case: &str) -> Role {
    if let Ok(value) = env::var(protocol::CHILD)
        && let Some((channel, name)) = Channel::from_variable(&value)
        && name == case
    {
        return Role::Child { channel };
    }
    if inline() {
        return Role::Inline;
    }
    Role::Judge {
        case: case.to_owned(),
    }
}

/// Whether this process is the child of a judge, for any case.
pub fn is_child() -> bool {
    env::var_os(protocol::CHILD).is_some()
}

/// Whether cases run in the test's own process.
pub fn inline() -> bool {
    env::var_os("JUDGE_INLINE").is_some()
}
