//! The processes of a case: how they are named, and how they end.

/// The name of a case's first process. Its first child is `P.1`, whose second child is `P.1.2`.
pub const FIRST: &str = "P";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Status {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

/// Describes a process in a sentence: `the child` for `P.1`.
pub fn describe(name: &str) -> String {
    match name.split('.').collect::<Vec<_>>()[..] {
        [_] => "the parent".to_owned(),
        [_, "1"] => "the child".to_owned(),
        [_, number] => format!("child {number}"),
        _ => name.to_owned(),
    }
}
