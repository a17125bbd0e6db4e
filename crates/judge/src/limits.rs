//! What a case may use, and why the judge ends one.

use std::time::Duration;

/// libtest's own thread and the one that runs the case.
pub const LIBTEST: usize = 2;

/// What a case may use before the judge ends it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// Bytes resident at once in all its processes, and bytes of private writable memory in each (`RLIMIT_DATA`:
    /// a reservation without access is not counted, so a lesson may reserve a terabyte).
    pub memory: u64,
    /// Processes and threads at once.
    pub tasks: usize,
    /// Bytes in any file it writes, its output included (`RLIMIT_FSIZE`).
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(10),
            memory: 1 << 30,
            tasks: 32,
            file: 64 << 20,
        }
    }
}

/// Why the judge ended a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// It ran for the whole time allowed, in seconds.
    Time(u64),
    /// It had more memory resident than allowed, in bytes.
    Memory(u64),
    /// It had more processes and threads than allowed.
    Tasks(usize),
    /// Every task of it waited for another one; one line for each.
    Deadlock(Vec<String>),
}
