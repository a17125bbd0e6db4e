//! Accesses pages of a trace's mapping, and counts only the page faults of these accesses.

use std::ptr::NonNull;

use super::Op;
use crate::{faults, page};

/// A read or write of the first byte of each of `count` pages from page `first`.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub first: usize,
    pub count: usize,
    /// The value to write, or `None` to read.
    pub value: Option<u8>,
}

impl Access {
    pub fn of(op: Op) -> Access {
        match op {
            Op::Read { first, count } => Access {
                first,
                count,
                value: None,
            },
            Op::Write {
                first,
                count,
                value,
            } => Access {
                first,
                count,
                value: Some(value),
            },
            other => panic!("{other:?} is not a read or a write"),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    pub faults: u64,
    /// The value read from the last page.
    pub value: Option<u8>,
}

/// Accesses the pages, and counts the page faults.
///
/// After a fork the process's own stack and code fault as well. So the same accesses are first made to a local
/// variable, until they no longer fault.
pub fn measure(start: NonNull<u8>, access: Access) -> Measured {
    let mut local = 0;
    let trial = |value| Access {
        first: 0,
        count: 1,
        value,
    };
    let settled = (0..100).any(|_| {
        let local = NonNull::from(&mut local);
        let cost = |value| touch(local, trial(value)).faults;
        cost(Some(0)) + cost(None) == 0
    });
    assert!(
        settled,
        "accesses to a local variable still fault after 100 attempts"
    );
    touch(start, access)
}

#[inline(never)]
fn touch(start: NonNull<u8>, access: Access) -> Measured {
    let mut seen = None;
    let before = faults();
    for number in access.first..access.first + access.count {
        let byte = page(start, number);
        match access.value {
            Some(value) => {
                // SAFETY: the byte is mapped writable, and nothing else accesses it at this time.
                unsafe { crate::write(byte, value) };
            }
            None => {
                // SAFETY: the byte is mapped readable.
                seen = Some(unsafe { crate::read(byte) });
            }
        }
    }
    Measured {
        faults: (faults() - before) as u64,
        value: seen,
    }
}

/// Counts the page faults of `act`.
pub fn faults_of(act: impl FnOnce()) -> Measured {
    // The first call of `faults` may itself fault in code.
    faults();
    let before = faults();
    act();
    Measured {
        faults: (faults() - before) as u64,
        value: None,
    }
}
