//! What a case may use, and why the judge stops one.

use std::time::Duration;

/// Threads of a test process besides the case's own: libtest's main thread and the one that runs the case.
pub const LIBTEST: usize = 2;

/// What a case may use before the judge stops it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// The same for a case that executes code step by step, as soon as it has begun to. In an emulator a step takes
    /// milliseconds.
    pub stepped: Duration,
    /// Bytes resident at the same time in all its processes.
    pub memory: u64,
    /// Bytes of private writable memory in each process (`RLIMIT_DATA`). PROT_NONE reservations do not count: a lesson
    /// may reserve a terabyte.
    pub data: u64,
    /// Processes and threads at the same time.
    pub tasks: usize,
    /// Bytes in any file that it writes, its output included (`RLIMIT_FSIZE`).
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(10),
            stepped: Duration::from_secs(60),
            memory: 1 << 30,
            data: 1 << 30,
            tasks: 32,
            file: 64 << 20,
        }
    }
}

/// Why the judge stopped a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    Time(Overrun),
    /// Its time was up while it stopped code at one place after the other.
    ManyPlaces(Places),
    /// Its time was up while its code was executed step by step. This many steps had been made.
    ManySteps(usize),
    /// It had more than this many bytes resident.
    Memory(u64),
    /// It had more than this many processes and threads.
    Tasks(usize),
    /// It tried to signal a process that is not its own. The text is the sentence.
    Signal(String),
    /// Every task waited for another one. The lines describe the waits.
    Deadlock(Vec<String>),
    /// The case's thread had ended, and libtest's waited for it.
    ThreadEnded,
}

/// The progress of a case that stops code at each of its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The number of the place at which the code was stopped last, counted from 0.
    pub last: usize,
    pub all: usize,
}

/// What was seen of a case that ran longer than it may.
#[derive(Debug, Clone, PartialEq)]
pub struct Overrun {
    pub limit: Duration,
    /// By the clock. It includes the time in which the case was ready to run while the machine ran others.
    pub elapsed: Duration,
    /// The CPU time of its processes.
    pub cpu: Duration,
    /// What each task waited for when the case was stopped. Empty if any of them ran.
    pub waits: Vec<String>,
}
