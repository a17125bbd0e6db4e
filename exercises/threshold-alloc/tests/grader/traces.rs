//! Random traces of calls, against a model of what must be live and where; a failing one is made as short as it can be.

use super::*;

/// One call.
#[derive(Debug, Clone)]
pub enum Call {
    Alloc {
        size: usize,
        align: usize,
    },
    /// Of the live blocks the one with this number, counted round.
    Free(usize),
    Threshold(usize),
    MaxMaps(usize),
}

/// What a trace may hold.
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
    fn has(self, call: &Call) -> bool {
        match call {
            Call::Alloc { size, .. } => *size <= self.largest,
            Call::Free(_) => true,
            Call::Threshold(_) | Call::MaxMaps(_) => self.settings,
        }
    }
}

/// A live block as the model has it.
struct Live {
    block: Block,
    value: u8,
    mapped: bool,
}

/// Bytes at each end of a block that the trace writes: all of a large block would be most of the work.
const END: usize = 2048;

impl Live {
    fn ends(&self) -> [&'static mut [u8]; 2] {
        let bytes = self.block.size().min(END);
        let last = self.block.start.wrapping_add(self.block.size() - bytes);
        // SAFETY: the bytes belong to the block, which the trace alone uses; the slices do not outlive it.
        [self.block.start, last]
            .map(|start| unsafe { std::slice::from_raw_parts_mut(start, bytes) })
    }

    fn write(&self) {
        for end in self.ends() {
            end.fill(self.value);
        }
    }

    fn is_whole(&self) -> bool {
        let mut ends = self.ends().into_iter();
        ends.all(|end| end.iter().all(|byte| *byte == self.value))
    }
}

/// Runs 100 traces, each with an allocator of its own, and fails the case with the shortest that goes wrong.
pub fn run(config: Config, kind: Kind) {
    // The last failure is the shortest: a failing trace is cut until it no longer fails.
    static SHORTEST: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);
    // A fixed seed: the same answer gets the same traces, and the same verdict.
    let mut traces = QuickCheck::new()
        .rng(Gen::from_size_and_seed(60, 49))
        .tests(100);
    let property = move |calls: Vec<Call>| -> bool {
        let calls: Vec<Call> = calls.into_iter().filter(|call| kind.has(call)).collect();
        // The blocks of a failed trace stay live: another trace needs another allocator.
        let allocator = Box::leak(Box::new(ThresholdAlloc::new(config)));
        match trace(allocator, config, &calls, kind) {
            Ok(()) => true,
            Err(wrong) => {
                let told = format!("{wrong} The calls: {}.", words(&calls));
                *SHORTEST.lock().unwrap() = Some(told);
                false
            }
        }
    };
    let passed = traces.quicktest(Property(property));
    if passed.is_err() {
        let told = SHORTEST.lock().unwrap().take();
        judge::fail(told.expect("a failure is told"));
    }
}

/// A closure as quickcheck's `Testable`, which is made for functions.
struct Property<F>(F);

impl<F: Fn(Vec<Call>) -> bool + 'static> quickcheck::Testable for Property<F> {
    fn result(&self, g: &mut Gen) -> quickcheck::TestResult {
        let calls = Vec::arbitrary(g);
        if (self.0)(calls.clone()) {
            return quickcheck::TestResult::passed();
        }
        self.shrink(calls);
        quickcheck::TestResult::failed()
    }
}

impl<F: Fn(Vec<Call>) -> bool> Property<F> {
    /// Cuts a failing trace for as long as it fails.
    fn shrink(&self, mut calls: Vec<Call>) {
        while let Some(shorter) = calls.shrink().find(|calls| !(self.0)(calls.clone())) {
            calls = shorter;
        }
    }
}

fn words(calls: &[Call]) -> String {
    let words = calls.iter().map(|call| match call {
        Call::Alloc { size, align } => format!("alloc({size}, align {align})"),
        Call::Free(number) => format!("dealloc(live block {number})"),
        Call::Threshold(usize::MAX) => "set_threshold(usize::MAX)".to_owned(),
        Call::Threshold(bytes) => format!("set_threshold({bytes})"),
        Call::MaxMaps(blocks) => format!("set_max_maps({blocks})"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// One trace; the error says what went wrong.
fn trace(
    allocator: &ThresholdAlloc,
    config: Config,
    calls: &[Call],
    kind: Kind,
) -> Result<(), String> {
    let (mut threshold, mut max_maps) = (config.threshold, config.max_maps);
    let mut live: Vec<Live> = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        match *call {
            Call::Threshold(bytes) => {
                threshold = bytes;
                allocator.set_threshold(bytes);
            }
            Call::MaxMaps(blocks) => {
                max_maps = blocks;
                allocator.set_max_maps(blocks);
            }
            Call::Alloc { size, align } => {
                let layout = layout(size, align);
                // SAFETY: the size is not 0.
                let start = unsafe { allocator.alloc(layout) };
                let block = given(start, layout, "alloc")?;
                let maps = live.iter().filter(|block| block.mapped).count();
                let block = Live {
                    block,
                    value: number as u8 + 1,
                    mapped: size >= threshold && maps < max_maps,
                };
                block.write();
                live.push(block);
            }
            Call::Free(_) if live.is_empty() => {}
            Call::Free(number) => {
                let block = live.swap_remove(number % live.len());
                if !block.is_whole() {
                    return Err(format!("{OVERLAP}."));
                }
                free_to(allocator, block.block);
            }
        }
        if kind.settings {
            agrees(allocator, &live)?;
        }
    }
    for block in live.drain(..) {
        if !block.is_whole() {
            return Err(format!("{OVERLAP}."));
        }
        free_to(allocator, block.block);
    }
    if kind.settings {
        agrees(allocator, &live)?;
    }
    Ok(())
}

/// Whether stats() and heap_range() say what the model says.
fn agrees(allocator: &ThresholdAlloc, live: &[Live]) -> Result<(), String> {
    let heap = allocator.heap_range().unwrap_or_default();
    let mapped = live.iter().filter(|block| block.mapped).count();
    for block in live {
        let size = block.block.size();
        match (block.mapped, block.block.is_in(&heap)) {
            (true, true) => {
                return Err(format!(
                    "A block of {size} must have a mapping of its own, and lies in the heap.",
                    size = amount(size)
                ));
            }
            (false, false) => {
                return Err(format!(
                    "A block of {size} must lie in the heap, and does not.",
                    size = amount(size)
                ));
            }
            _ => {}
        }
    }
    match allocator.stats().mapped_blocks {
        counted if counted == mapped => Ok(()),
        counted => Err(format!(
            "{mapped} live blocks have a mapping of their own, and stats() counts {counted}."
        )),
    }
}
