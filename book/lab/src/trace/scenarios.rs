//! The steps of every trace, and their expected results.
//!
//! The state of a page is one letter: `.` untouched, `0` zero page, `r` resident and mapped once, `f` shared
//! copy-on-write after fork, `c` private copy, `s` page of shared memory that both processes map.

use super::Op::{DontNeed, Exit, Fork, Map, Read, Write};
use super::Who::{Child, Parent};
use super::{Op, Scenario, Step, Who};

/// A step of the parent while it has no child.
const fn alone(op: Op, says: &'static str, pages: &'static str, faults: u64) -> Step {
    step(Parent, op, says, pages, "", Some(faults))
}

const fn step(
    by: Who,
    op: Op,
    says: &'static str,
    parent: &'static str,
    child: &'static str,
    faults: Option<u64>,
) -> Step {
    Step {
        by,
        op,
        says,
        parent,
        child,
        faults,
        value: None,
    }
}

/// Adds the value that the step is expected to read.
const fn reads(step: Step, value: u8) -> Step {
    Step {
        value: Some(value),
        ..step
    }
}

const MAP: Op = Map { populate: false };

const fn read(first: usize, count: usize) -> Op {
    Read { first, count }
}

const fn write(first: usize, count: usize, value: u8) -> Op {
    Write {
        first,
        count,
        value,
    }
}

pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "first-touch",
        shared: false,
        steps: &[
            alone(MAP, "mmap of 8 pages returns.", "........", 0),
            alone(
                write(0, 1, 1),
                "A byte of page 0 is written.",
                "r.......",
                1,
            ),
            alone(
                write(0, 1, 2),
                "The same byte is written again.",
                "r.......",
                0,
            ),
            alone(
                write(5, 1, 1),
                "A byte of page 5 is written.",
                "r....r..",
                1,
            ),
            alone(
                write(0, 8, 3),
                "A byte of every page is written.",
                "rrrrrrrr",
                6,
            ),
            reads(
                alone(read(0, 8), "A byte of every page is read.", "rrrrrrrr", 0),
                3,
            ),
        ],
    },
    Scenario {
        name: "zero-page",
        shared: false,
        steps: &[
            alone(MAP, "mmap of 8 pages returns.", "........", 0),
            reads(
                alone(read(0, 1), "A byte of page 0 is read.", "0.......", 1),
                0,
            ),
            reads(
                alone(read(0, 8), "A byte of every page is read.", "00000000", 7),
                0,
            ),
            alone(
                write(2, 1, 1),
                "A byte of page 2 is written.",
                "00r00000",
                1,
            ),
            reads(
                alone(read(3, 1), "A byte of page 3 is read again.", "00r00000", 0),
                0,
            ),
            alone(
                write(0, 8, 1),
                "A byte of every page is written.",
                "rrrrrrrr",
                7,
            ),
        ],
    },
    Scenario {
        name: "populate",
        shared: false,
        steps: &[
            alone(
                Map { populate: true },
                "mmap of 8 pages with MAP_POPULATE returns.",
                "rrrrrrrr",
                8,
            ),
            reads(
                alone(read(0, 8), "A byte of every page is read.", "rrrrrrrr", 0),
                0,
            ),
            alone(
                write(0, 8, 1),
                "A byte of every page is written.",
                "rrrrrrrr",
                0,
            ),
            step(
                Parent,
                Fork,
                "The parent forks.",
                "ffffffff",
                "ffffffff",
                None,
            ),
            step(
                Parent,
                write(0, 1, 2),
                "The parent writes 2 to page 0.",
                "cfffffff",
                "rfffffff",
                Some(1),
            ),
            step(Child, Exit, "The child ends.", "crrrrrrr", "", None),
            alone(
                write(1, 1, 2),
                "The parent writes 2 to page 1.",
                "crrrrrrr",
                1,
            ),
        ],
    },
    Scenario {
        name: "copy-on-write",
        shared: false,
        steps: &[
            alone(MAP, "The parent maps 8 pages.", "........", 0),
            alone(
                write(0, 4, 1),
                "The parent writes 1 to pages 0 to 3.",
                "rrrr....",
                4,
            ),
            step(
                Parent,
                Fork,
                "The parent forks.",
                "ffff....",
                "ffff....",
                None,
            ),
            reads(
                step(
                    Child,
                    read(1, 1),
                    "The child reads page 1.",
                    "ffff....",
                    "ffff....",
                    Some(0),
                ),
                1,
            ),
            step(
                Child,
                write(1, 1, 2),
                "The child writes 2 to page 1.",
                "frff....",
                "fcff....",
                Some(1),
            ),
            reads(
                step(
                    Parent,
                    read(1, 1),
                    "The parent reads page 1.",
                    "frff....",
                    "fcff....",
                    Some(0),
                ),
                1,
            ),
            step(
                Parent,
                write(1, 1, 3),
                "The parent writes 3 to page 1.",
                "frff....",
                "fcff....",
                Some(1),
            ),
            step(
                Parent,
                write(2, 1, 3),
                "The parent writes 3 to page 2.",
                "frcf....",
                "fcrf....",
                Some(1),
            ),
            reads(
                step(
                    Child,
                    read(2, 1),
                    "The child reads page 2.",
                    "frcf....",
                    "fcrf....",
                    Some(0),
                ),
                1,
            ),
            step(
                Child,
                write(6, 1, 2),
                "The child writes 2 to page 6.",
                "frcf....",
                "fcrf..r.",
                Some(1),
            ),
            step(Child, Exit, "The child ends.", "rrcr....", "", None),
        ],
    },
    Scenario {
        name: "shared",
        shared: true,
        steps: &[
            alone(MAP, "The parent maps 8 shared pages.", "........", 0),
            alone(
                write(0, 2, 1),
                "The parent writes 1 to pages 0 and 1.",
                "rr......",
                2,
            ),
            step(
                Parent,
                Fork,
                "The parent forks.",
                "rr......",
                "........",
                None,
            ),
            step(
                Child,
                write(1, 1, 2),
                "The child writes 2 to page 1.",
                "rs......",
                ".s......",
                Some(1),
            ),
            reads(
                step(
                    Parent,
                    read(1, 1),
                    "The parent reads page 1.",
                    "rs......",
                    ".s......",
                    Some(0),
                ),
                2,
            ),
            step(
                Child,
                write(5, 1, 2),
                "The child writes 2 to page 5.",
                "rs......",
                ".s...r..",
                Some(1),
            ),
            step(
                Parent,
                write(5, 1, 3),
                "The parent writes 3 to page 5.",
                "rs...s..",
                ".s...s..",
                Some(1),
            ),
            reads(
                step(
                    Child,
                    read(5, 1),
                    "The child reads page 5.",
                    "rs...s..",
                    ".s...s..",
                    Some(0),
                ),
                3,
            ),
            step(Child, Exit, "The child ends.", "rr...r..", "", None),
        ],
    },
    Scenario {
        name: "madvise",
        shared: false,
        steps: &[
            alone(MAP, "mmap of 8 pages returns.", "........", 0),
            alone(write(0, 8, 1), "1 is written to every page.", "rrrrrrrr", 8),
            alone(
                DontNeed { first: 2, count: 4 },
                "madvise with MADV_DONTNEED discards pages 2 to 5.",
                "rr....rr",
                0,
            ),
            reads(
                alone(read(2, 1), "A byte of page 2 is read.", "rr0...rr", 1),
                0,
            ),
            alone(
                write(3, 1, 2),
                "A byte of page 3 is written.",
                "rr0r..rr",
                1,
            ),
            reads(
                alone(read(7, 1), "A byte of page 7 is read.", "rr0r..rr", 0),
                1,
            ),
        ],
    },
];
