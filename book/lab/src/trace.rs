//! Records what the kernel does with a small mapping, step by step: bits 63 and 56 of each page's entry in
//! /proc/PID/pagemap, which need no privilege, and the page faults of the step.
//!
//! `scenarios` lists the steps and the expected results. `record` panics if the kernel shows anything else.

mod child;
mod json;
mod measure;
mod scenarios;

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::sys::utsname::uname;
use nix::unistd::{Pid, getpid};

use crate::page_size;
use child::Child;
use measure::{Access, Measured, measure};

pub use scenarios::SCENARIOS;

/// A trace to record: a mapping of a few pages, and the steps that use it.
#[derive(Debug)]
pub struct Scenario {
    /// Name of the trace and of its file.
    pub name: &'static str,
    /// Whether the mapping is shared; otherwise it is private.
    pub shared: bool,
    /// The first step maps the memory.
    pub steps: &'static [Step],
}

/// One step of a trace, and its expected results.
#[derive(Debug)]
pub struct Step {
    pub by: Who,
    pub op: Op,
    /// Caption of the step.
    pub says: &'static str,
    /// Expected state of the parent's pages, one letter each: see `scenarios`.
    pub parent: &'static str,
    /// Expected state of the child's pages. Empty if there is no child.
    pub child: &'static str,
    /// Expected number of page faults. `None` if it is not predictable.
    pub faults: Option<u64>,
    /// Expected value of the last byte that the step reads.
    pub value: Option<u8>,
}

/// The process that runs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Parent,
    Child,
}

/// The action of a step. Pages are counted from 0.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Maps the memory, with MAP_POPULATE if `populate` is set.
    Map {
        populate: bool,
    },
    /// Reads the first byte of each of `count` pages from page `first`.
    Read {
        first: usize,
        count: usize,
    },
    /// Writes `value` to the first byte of each of `count` pages from page `first`.
    Write {
        first: usize,
        count: usize,
        value: u8,
    },
    /// Calls madvise with MADV_DONTNEED on `count` pages from page `first`.
    DontNeed {
        first: usize,
        count: usize,
    },
    Fork,
    /// Ends the child.
    Exit,
}

/// Number of pages in the mapping of a trace.
pub const PAGES: usize = 8;

/// The two bits of a page's pagemap entry that a trace records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bits {
    present: bool,
    exclusive: bool,
}

impl Bits {
    fn letter(self) -> char {
        match (self.present, self.exclusive) {
            (false, _) => '-',
            (true, false) => 'p',
            (true, true) => 'x',
        }
    }

    /// Returns the bits that the kernel must show for a page in this state.
    fn of_state(state: char) -> Bits {
        let (present, exclusive) = match state {
            '.' => (false, false),
            '0' | 'f' | 's' => (true, false),
            'r' | 'c' => (true, true),
            other => panic!("unknown page state {other:?}"),
        };
        Bits { present, exclusive }
    }
}

/// What was observed after a step.
struct Seen {
    parent: Vec<Bits>,
    child: Option<Vec<Bits>>,
    measured: Measured,
}

/// Runs the scenario, and returns its trace as JSON with one line for each step.
///
/// # Panics
/// If an observation differs from the scenario, or there is no pagemap, as in some sandboxes.
pub fn record(scenario: &Scenario) -> String {
    crate::disable_huge_pages();
    // The first run also faults in the program's own code, so its counts are ignored.
    play(scenario);
    let seen = play(scenario);
    for (number, (step, seen)) in scenario.steps.iter().zip(&seen).enumerate() {
        check(&format!("{}, step {number}", scenario.name), step, seen);
    }
    json::trace(scenario, &seen)
}

fn check(place: &str, step: &Step, seen: &Seen) {
    let letters = |bits: &[Bits]| bits.iter().map(|bits| bits.letter()).collect::<String>();
    let expected = |states: &str| -> String {
        let states = states.chars().map(Bits::of_state);
        states.map(Bits::letter).collect()
    };
    let child = seen.child.as_deref().map(letters).unwrap_or_default();
    assert_eq!(
        letters(&seen.parent),
        expected(step.parent),
        "{place}: the parent's pages"
    );
    assert_eq!(child, expected(step.child), "{place}: the child's pages");
    assert_eq!(seen.measured.value, step.value, "{place}: the value read");
    if step.faults.is_some() {
        assert_eq!(
            Some(seen.measured.faults),
            step.faults,
            "{place}: page faults"
        );
    }
}

/// Runs all steps on a new mapping, and returns what was observed after each.
fn play(scenario: &Scenario) -> Vec<Seen> {
    let mut start = None;
    let mut child: Option<Child> = None;
    let mut seen = Vec::new();
    for step in scenario.steps {
        let measured = match (step.op, start) {
            (Op::Map { populate }, None) => {
                let (mapped, measured) = map(scenario.shared, populate);
                start = Some(mapped);
                measured
            }
            (Op::Fork, Some(mapped)) => {
                child = Some(Child::fork(mapped));
                Measured::default()
            }
            (Op::Exit, _) => {
                child.take().expect("there is a child").wait();
                Measured::default()
            }
            (Op::DontNeed { first, count }, Some(mapped)) => dont_need(mapped, first, count),
            (op, Some(mapped)) => {
                let access = Access::of(op);
                match step.by {
                    Who::Parent => measure(mapped, access),
                    Who::Child => child.as_mut().expect("there is a child").measure(access),
                }
            }
            (_, None) => panic!("the first step maps"),
        };
        let start = start.expect("the first step maps");
        seen.push(Seen {
            parent: entries(getpid(), start),
            child: child.as_ref().map(|child| entries(child.pid, start)),
            measured,
        });
    }
    seen
}

fn map(shared: bool, populate: bool) -> (NonNull<u8>, Measured) {
    let len = NonZero::new(PAGES * page_size()).expect("the length is not 0");
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mut flags = match shared {
        true => MapFlags::MAP_SHARED,
        false => MapFlags::MAP_PRIVATE,
    };
    flags.set(MapFlags::MAP_POPULATE, populate);
    let mut start = None;
    let measured = measure::faults_of(|| {
        // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
        start = Some(unsafe { mmap_anonymous(None, len, prot, flags) });
    });
    let start = start.expect("the closure has run").expect("mmap");
    (start.cast(), measured)
}

fn dont_need(start: NonNull<u8>, first: usize, count: usize) -> Measured {
    let from = NonNull::new(crate::page(start, first)).expect("a page of the mapping");
    let len = count * page_size();
    measure::faults_of(|| {
        // SAFETY: the pages belong to the mapping of the trace, and no reference to them exists.
        unsafe { madvise(from.cast(), len, MmapAdvise::MADV_DONTNEED) }.expect("madvise");
    })
}

/// Returns the bits of each page's pagemap entry in process `pid`.
fn entries(pid: Pid, start: NonNull<u8>) -> Vec<Bits> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).expect("/proc/PID/pagemap");
    let first = start.addr().get() / page_size();
    let entry = |page: usize| {
        let mut entry = [0; 8];
        let offset = (first + page) * entry.len();
        let read = pagemap.read_exact_at(&mut entry, offset as u64);
        read.expect("an entry for each page");
        let entry = u64::from_ne_bytes(entry);
        Bits {
            present: entry & (1 << 63) != 0,
            exclusive: entry & (1 << 56) != 0,
        }
    };
    (0..PAGES).map(entry).collect()
}

/// Returns the kernel version, without the distribution's suffix, and the architecture.
fn machine() -> (String, String) {
    let name = uname().expect("uname");
    let text = |field: &std::ffi::OsStr| field.to_string_lossy().into_owned();
    let mut release = text(name.release());
    release.truncate(release.find('-').unwrap_or(release.len()));
    (release, text(name.machine()))
}
