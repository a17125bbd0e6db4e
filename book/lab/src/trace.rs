//! Records what the kernel does to a small mapping, step by step: for each page bits 63 and 56 of
//! /proc/PID/pagemap, which need no privilege, and the page faults that the step cost.
//!
//! The steps, and what each must show, stand in `scenarios`; `record` stops where the kernel shows otherwise.

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

/// A mapping of a few pages, and what is done to it.
#[derive(Debug)]
pub struct Scenario {
    /// The trace's.
    pub name: &'static str,
    /// Whether the mapping is shared; otherwise it is private.
    pub shared: bool,
    /// In their order; the first maps.
    pub steps: &'static [Step],
}

/// One step, and what it must show.
#[derive(Debug)]
pub struct Step {
    /// Who does it.
    pub by: Who,
    /// What.
    pub op: Op,
    /// In words, as the end of "Step 1:".
    pub says: &'static str,
    /// What must have become of the parent's pages: a letter each, as `State::of` reads it.
    pub parent: &'static str,
    /// The same of the child's; empty while there is none.
    pub child: &'static str,
    /// How many page faults it must cost, where that can be told.
    pub faults: Option<u64>,
    /// What it must read.
    pub value: Option<u8>,
}

/// Who takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The process that maps.
    Parent,
    /// The one that it forks.
    Child,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// mmap, with MAP_POPULATE or without.
    Map {
        /// Whether all pages are brought in at once.
        populate: bool,
    },
    /// Reads the first byte of each of `count` pages from page `first`.
    Read {
        /// From 0.
        first: usize,
        /// Pages.
        count: usize,
    },
    /// Writes `value` to the same bytes.
    Write {
        /// From 0.
        first: usize,
        /// Pages.
        count: usize,
        /// The byte.
        value: u8,
    },
    /// madvise with MADV_DONTNEED.
    DontNeed {
        /// From 0.
        first: usize,
        /// Pages.
        count: usize,
    },
    /// fork.
    Fork,
    /// The child ends.
    Exit,
}

/// Pages in a trace's mapping.
pub const PAGES: usize = 8;

/// The bits of a page's entry: present, and mapped nowhere else.
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

    /// What a page's state must show.
    fn of_state(state: char) -> Bits {
        let (present, exclusive) = match state {
            // Untouched.
            '.' => (false, false),
            // The zero page; shared after a fork; shared.
            '0' | 'f' | 's' => (true, false),
            // Resident; copied.
            'r' | 'c' => (true, true),
            other => panic!("{other} is no state"),
        };
        Bits { present, exclusive }
    }
}

/// What was seen after a step.
struct Seen {
    parent: Vec<Bits>,
    child: Option<Vec<Bits>>,
    measured: Measured,
}

/// Records the scenario, and writes it as JSON: one line for each step.
///
/// # Panics
/// If the kernel shows anything but what the scenario says, or there is no pagemap, as in some sandboxes.
pub fn record(scenario: &Scenario) -> String {
    crate::small_pages_only();
    // The first time, this program's own code is touched too: that run counts for nothing.
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
    assert_eq!(seen.measured.value, step.value, "{place}: what is read");
    if step.faults.is_some() {
        assert_eq!(
            Some(seen.measured.faults),
            step.faults,
            "{place}: page faults"
        );
    }
}

/// Takes all the steps on a fresh mapping.
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
                child.take().expect("there is a child").end();
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
    let len = NonZero::new(PAGES * page_size()).expect("a few pages");
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mut flags = match shared {
        true => MapFlags::MAP_SHARED,
        false => MapFlags::MAP_PRIVATE,
    };
    flags.set(MapFlags::MAP_POPULATE, populate);
    let mut start = None;
    let measured = measure::faults_of(|| {
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
        start = Some(unsafe { mmap_anonymous(None, len, rights, flags) });
    });
    let start = start
        .expect("mapped above")
        .expect("the kernel maps a few pages");
    (start.cast(), measured)
}

fn dont_need(start: NonNull<u8>, first: usize, count: usize) -> Measured {
    let from = NonNull::new(crate::page(start, first)).expect("a page of the mapping");
    let len = count * page_size();
    measure::faults_of(|| {
        // SAFETY: the pages belong to this module's mapping, and no reference to them exists.
        unsafe { madvise(from.cast(), len, MmapAdvise::MADV_DONTNEED) }.expect("madvise");
    })
}

/// The bits of each page's entry in that process.
fn entries(pid: Pid, start: NonNull<u8>) -> Vec<Bits> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).expect("there is a pagemap");
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

/// What the trace was recorded on: the kernel's version without what its builder appended, and the architecture.
fn machine() -> (String, String) {
    let name = uname().expect("uname");
    let text = |field: &std::ffi::OsStr| field.to_string_lossy().into_owned();
    let mut release = text(name.release());
    release.truncate(release.find('-').unwrap_or(release.len()));
    (release, text(name.machine()))
}
