//! Touches pages of a trace's mapping, and counts the faults of that alone.

use std::ptr::NonNull;

use super::Op;
use crate::{faults, page};

/// Reads or writes the first byte of some pages.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub first: usize,
    pub count: usize,
    /// What is written; otherwise the bytes are read.
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
            other => panic!("{other:?} touches no page by itself"),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    pub faults: u64,
    /// What the last page read.
    pub value: Option<u8>,
}

/// Touches the pages.
///
/// After a fork the process's own stack and code fault as well: it first does the same to a page of its own, until that
/// costs nothing.
pub fn measure(start: NonNull<u8>, access: Access) -> Measured {
    let mut own = 0;
    let rehearsal = |value| Access {
        first: 0,
        count: 1,
        value,
    };
    let settled = (0..100).any(|_| {
        let own = NonNull::from(&mut own);
        let cost = |value| touch(own, rehearsal(value)).faults;
        cost(Some(0)) + cost(None) == 0
    });
    assert!(settled, "this process faults of itself");
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
                // SAFETY: the byte can be written, and nothing else uses it at this time.
                unsafe { crate::write(byte, value) };
            }
            None => {
                // SAFETY: the byte can be read.
                seen = Some(unsafe { crate::read(byte) });
            }
        }
    }
    Measured {
        faults: (faults() - before) as u64,
        value: seen,
    }
}

/// The faults of anything else.
pub fn faults_of(act: impl FnOnce()) -> Measured {
    // The first call may touch code of its own.
    faults();
    let before = faults();
    act();
    Measured {
        faults: (faults() - before) as u64,
        value: None,
    }
}
