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

/// The role of this process for the calling test.
///
/// # Panics
/// Outside a `#[test]` function: the case's name is the name that libtest gives to the test's thread.
pub fn current() -> Role {
    let thread = thread::current();
    let case = thread
        .name()
        .filter(|name| *name != "main")
        .expect("a case is the whole body of a #[test] function");
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
