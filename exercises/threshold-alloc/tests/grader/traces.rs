//! Random sequences of calls, compared with a model of the allocator. A failing sequence is shortened before it is
//! shown.

use std::sync::Mutex;

use quickcheck::{Arbitrary, Gen, QuickCheck, TestResult, Testable};

use super::*;

/// One call of a trace.
#[derive(Debug, Clone)]
pub enum Call {
    Alloc {
        size: usize,
        align: usize,
    },
    /// Frees the live block with this index, modulo the number of live blocks.
    Free(usize),
    Threshold(usize),
    MaxMaps(usize),
}

/// Which calls a trace may contain.
#[derive(Clone, Copy)]
pub struct Kind {
    largest: usize,
    settings: bool,
}

pub const SMALL: Kind = Kind {
    largest: 4000,
    settings: false,
};
pub const ALL: Kind = Kind {
    largest: 300 * KIB,
    settings: true,
};

impl Arbitrary for Call {
    fn arbitrary(g: &mut Gen) -> Call {
        let below = |g: &mut Gen, bound: usize| usize::arbitrary(g) % bound;
        match below(g, 16) {
            0 => Call::Threshold([0, 1000, 64 * KIB, 128 * KIB, usize::MAX][below(g, 5)]),
            1 => Call::MaxMaps(below(g, 4)),
            2..8 => Call::Free(below(g, 64)),
            kind => Call::Alloc {
                size: 1 + below(g, [16, 300, 4000, 300 * KIB][kind % 4]),
                align: 1 << below(g, [5, 5, 5, 13][kind % 4]),
            },
        }
    }
}

impl Kind {
    fn allows(self, call: &Call) -> bool {
        match call {
            Call::Alloc { size, .. } => *size <= self.largest,
            Call::Free(_) => true,
            Call::Threshold(_) | Call::MaxMaps(_) => self.settings,
        }
    }
}

/// Runs 100 traces, each with a separate allocator, and fails the case with the shortest trace that fails.
pub fn run(config: Config, kind: Kind) {
    // A failing trace is shortened for as long as it fails, so the last failure is the shortest.
    static SHORTEST: Mutex<Option<String>> = Mutex::new(None);
    // The seed is fixed, so that the same answer always gets the same verdict.
    let mut traces = QuickCheck::new()
        .rng(Gen::from_size_and_seed(60, 49))
        .tests(100);
    let property = move |calls: Vec<Call>| -> bool {
        let calls: Vec<Call> = calls.into_iter().filter(|call| kind.allows(call)).collect();
        // A failed trace leaves its blocks live, so the next trace needs a new allocator.
        let allocator = Box::leak(Box::new(ThresholdAlloc::new(config)));
        match Model::new(allocator, config, kind).run(&calls) {
            Ok(()) => true,
            Err(wrong) => {
                let sentence = format!("{wrong} The calls: {}.", list(&calls));
                *SHORTEST.lock().unwrap() = Some(sentence);
                false
            }
        }
    };
    if traces.quicktest(Property(property)).is_err() {
        let sentence = SHORTEST.lock().unwrap().take();
        judge::fail(sentence.expect("a failing trace stores its sentence"));
    }
}

/// A closure as quickcheck's `Testable`, which quickcheck implements only for functions.
struct Property<F>(F);

impl<F: Fn(Vec<Call>) -> bool + 'static> Testable for Property<F> {
    fn result(&self, g: &mut Gen) -> TestResult {
        let calls = Vec::arbitrary(g);
        if (self.0)(calls.clone()) {
            return TestResult::passed();
        }
        self.shrink(calls);
        TestResult::failed()
    }
}

impl<F: Fn(Vec<Call>) -> bool> Property<F> {
    /// Shortens a failing trace for as long as it fails.
    fn shrink(&self, mut calls: Vec<Call>) {
        while let Some(shorter) = calls.shrink().find(|calls| !(self.0)(calls.clone())) {
            calls = shorter;
        }
    }
}

fn list(calls: &[Call]) -> String {
    let calls = calls.iter().map(|call| match call {
        Call::Alloc { size, align } => format!("alloc({size}, align {align})"),
        Call::Free(number) => format!("dealloc(live block {number})"),
        Call::Threshold(usize::MAX) => "set_threshold(usize::MAX)".to_owned(),
        Call::Threshold(bytes) => format!("set_threshold({bytes})"),
        Call::MaxMaps(blocks) => format!("set_max_maps({blocks})"),
    });
    calls.collect::<Vec<_>>().join(", ")
}

/// Makes the calls of one trace and knows what the allocator must do.
struct Model<'a> {
    allocator: &'a ThresholdAlloc,
    kind: Kind,
    threshold: usize,
    max_maps: usize,
    live: Vec<Live>,
}

impl Model<'_> {
    fn new(allocator: &ThresholdAlloc, config: Config, kind: Kind) -> Model<'_> {
        Model {
            allocator,
            kind,
            threshold: config.threshold,
            max_maps: config.max_maps,
            live: Vec::new(),
        }
    }

    /// Makes the calls, then frees every block. The error is a sentence on what went wrong.
    fn run(mut self, calls: &[Call]) -> Result<(), String> {
        for (number, call) in calls.iter().enumerate() {
            self.make(call, number as u8 + 1)?;
            self.check()?;
        }
        for block in std::mem::take(&mut self.live) {
            self.free(block)?;
        }
        self.check()
    }

    /// Makes one call. A new block is filled with `value`.
    fn make(&mut self, call: &Call, value: u8) -> Result<(), String> {
        match *call {
            Call::Threshold(bytes) => {
                self.threshold = bytes;
                self.allocator.set_threshold(bytes);
            }
            Call::MaxMaps(blocks) => {
                self.max_maps = blocks;
                self.allocator.set_max_maps(blocks);
            }
            Call::Alloc { size, align } => {
                let layout = layout(size, align);
                // SAFETY: `layout` returns no layout of size 0.
                let start = unsafe { self.allocator.alloc(layout) };
                let block = Live {
                    block: check_block(start, layout, "alloc")?,
                    value,
                    mapped: size >= self.threshold && self.mapped_blocks() < self.max_maps,
                };
                block.write();
                self.live.push(block);
            }
            Call::Free(_) if self.live.is_empty() => {}
            Call::Free(number) => {
                let block = self.live.swap_remove(number % self.live.len());
                self.free(block)?;
            }
        }
        Ok(())
    }

    fn free(&self, block: Live) -> Result<(), String> {
        if !block.is_intact() {
            return Err(format!("{OVERLAP}."));
        }
        free_to(self.allocator, block.block);
        Ok(())
    }

    fn mapped_blocks(&self) -> usize {
        self.live.iter().filter(|block| block.mapped).count()
    }

    /// Compares `heap_range()` and `stats()` with the model, if the trace changes settings.
    fn check(&self) -> Result<(), String> {
        if !self.kind.settings {
            return Ok(());
        }
        let heap = self.allocator.heap_range().unwrap_or_default();
        for block in &self.live {
            block.check_place(&heap)?;
        }
        let mapped = self.mapped_blocks();
        match self.allocator.stats().mapped_blocks {
            counted if counted == mapped => Ok(()),
            counted => Err(format!(
                "{mapped} live blocks have a mapping of their own, and stats() counts {counted}."
            )),
        }
    }
}

/// A live block in the model.
struct Live {
    block: Block,
    /// The value of its bytes.
    value: u8,
    /// Whether it must be a separate mapping.
    mapped: bool,
}

/// How many bytes a trace writes at each end of a block. To write whole large blocks would take most of the time.
const END: usize = 2048;

impl Live {
    /// Returns the first and the last bytes as blocks, which overlap if the block is short.
    fn ends(&self) -> [Block; 2] {
        let first = self.block.prefix(self.block.size().min(END));
        let last = Block {
            start: first.start.wrapping_add(self.block.size() - first.size()),
            ..first
        };
        [first, last]
    }

    fn write(&self) {
        for end in self.ends() {
            end.fill(self.value);
        }
    }

    fn is_intact(&self) -> bool {
        let mut ends = self.ends().into_iter();
        ends.all(|end| end.bytes().iter().all(|byte| *byte == self.value))
    }

    fn check_place(&self, heap: &Range<usize>) -> Result<(), String> {
        let size = self.block.size();
        match (self.mapped, self.block.is_in(heap)) {
            (true, true) => Err(format!(
                "A block of {size} must have a mapping of its own, and lies in the heap.",
                size = amount(size)
            )),
            (false, false) => Err(format!(
                "A block of {size} must lie in the heap, and does not.",
                size = amount(size)
            )),
            _ => Ok(()),
        }
    }
}
