//! What the kernel saw of the watched part of a case, for the grader's checks.

pub mod snapshot;

use std::panic::{self, Location};
use std::path::{Path, PathBuf};

use crate::record::call::Call;
use crate::record::{Record, ledger, transcript};
use crate::verdict::Failure;

/// What the kernel saw while `watch` was on.
pub struct Seen {
    record: Record,
}

/// The panic payload of an `expect_…` that found a difference.
pub(crate) struct Differs {
    pub failure: Failure,
    pub diff: String,
}

impl Seen {
    pub(crate) fn new(record: Record) -> Seen {
        Seen { record }
    }

    pub(crate) fn unmapped_twice(&self) -> Option<u64> {
        self.record.unmapped_twice
    }

    pub(crate) fn mapped_over(&self) -> Option<u64> {
        self.record.mapped_over
    }

    /// The watched calls with this name, that of the manual page, in all of the case's processes.
    pub fn calls(&self, name: &str) -> Vec<&Call> {
        let named = |call: &&Call| call.name == name;
        self.record.calls.iter().filter(named).collect()
    }

    /// All watched calls, in order.
    pub fn all_calls(&self) -> &[Call] {
        &self.record.calls
    }

    /// The number of calls with this name in the window of `refuse`, `pthread_mutex` functions included.
    pub fn count_in_window(&self, name: &str) -> usize {
        self.record.counts.get(name).copied().unwrap_or(0)
    }

    /// The numbers that the body has passed to `note`.
    pub fn notes(&self) -> &[u64] {
        &self.record.notes
    }

    /// The watched calls, one line each. The text is the same on every run.
    pub fn transcript(&self) -> String {
        self.record.transcript().unwrap_or_default()
    }

    /// The net effect: what was mapped, and what was left at the end.
    pub fn ledger(&self) -> String {
        self.record.ledger.to_string()
    }

    /// Fails the case if the answer has left memory mapped, a descriptor open or a child unwaited for. Memory whose munmap
    /// the judge made fail does not count.
    ///
    /// # Panics
    /// If something is left: the case then fails with a sentence on the first of these.
    pub fn expect_nothing_left(&self) {
        let left = self.record.ledger.leftovers();
        if !left.is_empty() {
            let mapped = left.iter().find(|left| left.key == "still mapped");
            let failure = match mapped.filter(|_| self.record.unaligned_unmap()) {
                Some(mapped) => Failure::UnalignedUnmap(mapped.clone()),
                None => Failure::Ledger(left),
            };
            panic::resume_unwind(Box::new(Differs {
                failure,
                diff: String::new(),
            }));
        }
    }

    /// Grades the net effect against `snapshots/NAME.snap` beside the grader.
    ///
    /// # Panics
    /// If they differ: the case then fails with a sentence on the first difference.
    #[track_caller]
    pub fn expect_ledger(&self, name: &str) {
        let got = self.ledger();
        self.compare(Location::caller(), name, &got, |expected| {
            Failure::Ledger(ledger::differences(expected, &got))
        });
    }

    /// Grades the calls against `snapshots/NAME.snap` beside the grader. Only for a task that prescribes the calls.
    ///
    /// # Panics
    /// If they differ: the case then fails, and the learner sees both.
    #[track_caller]
    pub fn expect_transcript(&self, name: &str) {
        let got = self.transcript();
        self.compare(
            Location::caller(),
            name,
            &got,
            |expected| match transcript::first_difference(expected, &got) {
                Some(difference) => Failure::Calls(difference),
                None => Failure::Grader(format!(
                    "the snapshot {name} of the grader is not a transcript"
                )),
            },
        );
    }

    fn compare(
        &self,
        grader: &Location,
        name: &str,
        got: &str,
        failure: impl FnOnce(&str) -> Failure,
    ) {
        let folder = snapshots_beside(grader);
        if snapshot::matches(&folder, name, got) {
            return;
        }
        let differs = match snapshot::stored(&folder, name) {
            Ok(expected) => Differs {
                failure: failure(&expected),
                diff: snapshot::difference(&expected, got),
            },
            Err(error) => Differs {
                failure: Failure::Grader(format!(
                    "the snapshot {name} of the grader cannot be read ({error})"
                )),
                diff: String::new(),
            },
        };
        panic::resume_unwind(Box::new(differs));
    }
}

/// `snapshots/` in the folder of the source file `grader`, whose path is relative to the root of the workspace.
fn snapshots_beside(grader: &Location) -> PathBuf {
    let root = std::env::var_os("INSTA_WORKSPACE_ROOT").map_or_else(PathBuf::new, PathBuf::from);
    let file = root.join(grader.file());
    file.parent().unwrap_or(Path::new(".")).join("snapshots")
}
