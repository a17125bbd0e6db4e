//! Which part this process plays for the test that calls: the judge, its child, or both at once for a debugger.

use std::{env, thread};

use crate::protocol;

/// The part that this process plays.
pub enum Role {
    /// Starts the child and judges it.
    Judge { case: String },
    /// Runs the body.
    Child { nonce: String },
    /// Runs the body in this very process: `JUDGE_INLINE` is set, for a debugger.
    Inline,
}

/// The part of the calling test's process.
///
/// # Panics
/// Outside a `#[test]` function: libtest names a test's thread after the test, and the judge finds the case by it.
pub fn current() -> Role {
    let thread = thread::current();
    let case = thread
        .name()
        .filter(|name| *name != "main")
        .expect("a case is the whole body of a #[test] function");
    role_of(case)
}

/// The part of this process for the case of that name.
pub fn role_of(case: &str) -> Role {
    if let Ok(child) = env::var(protocol::CHILD)
        && let Some((nonce, name)) = child.split_once(' ')
        && name == case
    {
        return Role::Child {
            nonce: nonce.to_owned(),
        };
    }
    if env::var_os("JUDGE_INLINE").is_some() {
        return Role::Inline;
    }
    Role::Judge {
        case: case.to_owned(),
    }
}
