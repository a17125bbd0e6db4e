//! The workloads that the allocators run.

use std::alloc::Layout;
use std::sync::Barrier;
use std::thread;

use anyhow::{Result, ensure};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::block::{Alloc, Block, layout};
use super::meter::{Held, Measure, Meter, page_size, resident};
use crate::allocators::THRESHOLD;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Small blocks, freed in random order.
    Small { steps: u64 },
    /// Blocks from a quarter of the threshold to four times the threshold, freed in random order.
    Mixed { steps: u64 },
    /// One large block at a time: allocated, filled, freed.
    Large { bytes: usize, steps: u64 },
    /// A `Vec` that doubles, from the threshold on.
    Vec { bytes: usize },
    /// Zeroed blocks of which few pages are touched.
    Sparse { bytes: usize, steps: u64 },
    /// Zeroed blocks that are not touched.
    Untouched { bytes: usize, steps: u64 },
    /// Blocks of 1 MiB: all allocated, then all freed.
    Blocks { bytes: usize },
    /// Small blocks, some of them replaced: all allocated, then all freed.
    Heap { bytes: usize },
    /// Two threads that each allocate small blocks.
    Threads { steps: u64 },
}

/// The number of blocks that are allocated at any time.
const SMALL_SLOTS: usize = 1 << 10;
const MIXED_SLOTS: usize = 1 << 5;

/// A sparse block is touched in one page out of this many.
const SPARSE: usize = 64;

impl Workload {
    /// Runs the workload and measures it. `heap_bytes` returns the size of the allocator's heap, if it reports it.
    ///
    /// # Errors
    /// Returns an error if the process cannot measure itself.
    ///
    /// # Panics
    /// Panics if the allocator returns null.
    pub fn run(self, alloc: &'static Alloc, heap_bytes: Option<fn() -> usize>) -> Result<Measure> {
        // The first use makes the meter's own pages resident.
        Meter::start()?.stop(0, 0)?;
        let before = resident()?;
        let mut measure = match self {
            Workload::Small { steps } => churn::<SMALL_SLOTS>(alloc, small_sizes(), steps),
            Workload::Mixed { steps } => churn::<MIXED_SLOTS>(alloc, mixed_sizes(), steps),
            Workload::Large { bytes, steps } => large(alloc, bytes, steps),
            Workload::Vec { bytes } => vec(alloc, bytes),
            Workload::Sparse { bytes, steps } => zeroed(alloc, bytes, steps, Some(SPARSE)),
            Workload::Untouched { bytes, steps } => zeroed(alloc, bytes, steps, None),
            Workload::Threads { steps } => threads(alloc, steps),
            // These measure what is kept themselves, without their own lists.
            Workload::Blocks { bytes } => return hold(alloc, bytes, [1 << 20; SIZES], 0, None),
            Workload::Heap { bytes } => return hold(alloc, bytes, small_sizes(), 2, heap_bytes),
        }?;
        measure.kept = resident()?.saturating_sub(before);
        Ok(measure)
    }
}

/// The number of sizes that a workload chooses from.
const SIZES: usize = 256;

/// Returns random sizes, the same in every run, with as many in each power of two.
fn sizes(smallest: usize, powers: f64) -> [usize; SIZES] {
    let mut rng = Rng::with_seed(0);
    [(); SIZES].map(|()| (smallest as f64 * (rng.f64() * powers).exp2()) as usize)
}

/// 8 bytes to 1 KiB.
fn small_sizes() -> [usize; SIZES] {
    sizes(8, 7.0)
}

/// 32 KiB to 512 KiB.
fn mixed_sizes() -> [usize; SIZES] {
    sizes(THRESHOLD / 4, 4.0)
}

/// Blocks in slots. Each step frees the block of a random slot and allocates another one in its place. A step does
/// little else, because its own work is part of the measurement.
struct Churn<const SLOTS: usize> {
    layouts: [Layout; SIZES],
    blocks: [Option<Block>; SLOTS],
    rng: Rng,
    /// The page size, if some blocks are longer than a page. Every page of a block is touched.
    page: Option<usize>,
}

impl<const SLOTS: usize> Churn<SLOTS> {
    fn new(alloc: &Alloc, sizes: [usize; SIZES], seed: u64) -> Result<Churn<SLOTS>> {
        let page = page_size()?;
        let mut churn = Churn {
            layouts: sizes.map(layout),
            blocks: [const { None }; SLOTS],
            rng: Rng::with_seed(seed),
            page: sizes.iter().any(|size| *size > page).then_some(page),
        };
        for slot in 0..SLOTS {
            churn.blocks[slot] = Some(churn.block(alloc, slot));
        }
        Ok(churn)
    }

    #[inline(always)] // Otherwise the block is returned in memory, which costs as much as a fast allocator.
    fn block(&self, alloc: &Alloc, number: usize) -> Block {
        let block = Block::new(alloc, self.layouts[number % SIZES]);
        block.touch_ends();
        if let Some(page) = self.page {
            block.touch_every(page);
        }
        block
    }

    fn steps(&mut self, alloc: &Alloc, steps: u64) {
        for _ in 0..steps {
            let number = self.rng.usize(..);
            let slot = (number / SIZES) % SLOTS;
            // SAFETY: every block of a workload is allocated by `alloc`.
            unsafe { free(self.blocks[slot].take(), alloc) };
            self.blocks[slot] = Some(self.block(alloc, number));
        }
    }

    /// Brings the allocator into the state that it keeps: each slot has been replaced many times.
    fn warm_up(&mut self, alloc: &Alloc) {
        self.steps(alloc, 64 * SLOTS as u64);
    }

    fn free_all(self, alloc: &Alloc) {
        for block in self.blocks {
            // SAFETY: every block of a workload is allocated by `alloc`.
            unsafe { free(block, alloc) };
        }
    }
}

/// Frees the block, if there is one.
///
/// # Safety
/// The block must have been allocated by `alloc`.
unsafe fn free(block: Option<Block>, alloc: &Alloc) {
    if let Some(block) = block {
        // SAFETY: the caller vouches for `alloc`.
        unsafe { block.free(alloc) };
    }
}

fn churn<const SLOTS: usize>(alloc: &Alloc, sizes: [usize; SIZES], steps: u64) -> Result<Measure> {
    let mut churn = Churn::<SLOTS>::new(alloc, sizes, 1)?;
    churn.warm_up(alloc);
    let meter = Meter::start()?;
    churn.steps(alloc, steps);
    let measure = meter.stop(steps, 0)?;
    churn.free_all(alloc);
    Ok(measure)
}

fn large(alloc: &Alloc, bytes: usize, steps: u64) -> Result<Measure> {
    let pair = || {
        let block = Block::new(alloc, layout(bytes));
        block.fill(0);
        // SAFETY: every block of a workload is allocated by `alloc`.
        unsafe { block.free(alloc) };
    };
    // After the first pairs a dynamic threshold has adjusted itself.
    (0..4).for_each(|_| pair());
    let meter = Meter::start()?;
    (0..steps).for_each(|_| pair());
    meter.stop(steps, steps * (bytes / page_size()?) as u64)
}

fn vec(alloc: &Alloc, bytes: usize) -> Result<Measure> {
    ensure!(bytes > THRESHOLD, "a Vec of {bytes} bytes never grows");
    let block = Block::new(alloc, layout(64));
    block.fill(0);
    let grow = |mut block: Block, to: usize| {
        while block.len() < to {
            let from = block.len();
            // SAFETY: every block of a workload is allocated by `alloc`.
            block = unsafe { block.resized(alloc, 2 * from) };
            block.fill(from);
        }
        block
    };
    let block = grow(block, THRESHOLD);
    let meter = Meter::start()?;
    let block = grow(block, bytes);
    let doublings = (bytes / THRESHOLD).ilog2() as u64;
    let pages = (bytes - THRESHOLD) / page_size()?;
    let measure = meter.stop(doublings, pages as u64)?;
    // SAFETY: every block of a workload is allocated by `alloc`.
    unsafe { block.free(alloc) };
    Ok(measure)
}

/// `sparse`, if set, touches one page out of this many.
fn zeroed(alloc: &Alloc, bytes: usize, steps: u64, sparse: Option<usize>) -> Result<Measure> {
    let page = page_size()?;
    let pair = || {
        let block = Block::zeroed(alloc, layout(bytes));
        if let Some(pages) = sparse {
            block.touch_every(pages * page);
        }
        // SAFETY: every block of a workload is allocated by `alloc`.
        unsafe { block.free(alloc) };
    };
    (0..2).for_each(|_| pair());
    let meter = Meter::start()?;
    (0..steps).for_each(|_| pair());
    meter.stop(steps, steps * (bytes / page) as u64)
}

/// Allocates `bytes` bytes in blocks of the given sizes, replaces each block `replaced` times on average, and frees all
/// of them in random order.
fn hold(
    alloc: &Alloc,
    bytes: usize,
    sizes: [usize; SIZES],
    replaced: usize,
    heap_bytes: Option<fn() -> usize>,
) -> Result<Measure> {
    let count = bytes * SIZES / sizes.iter().sum::<usize>();
    let mut rng = Rng::with_seed(1);
    // Both lists are written here, so that they are resident before the first measurement.
    let mut blocks: Vec<Option<Block>> = (0..count).map(|_| None).collect();
    let mut order: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut order);
    let before = resident()?;
    let new = |number: usize| {
        let block = Block::new(alloc, layout(sizes[number % SIZES]));
        block.fill(0);
        block
    };
    for (number, block) in blocks.iter_mut().enumerate() {
        *block = Some(new(number));
    }
    for _ in 0..count * replaced {
        let number = rng.usize(..);
        let block = &mut blocks[number / SIZES % count];
        // SAFETY: every block of a workload is allocated by `alloc`.
        unsafe { free(block.take(), alloc) };
        *block = Some(new(number));
    }
    let live: usize = blocks.iter().flatten().map(Block::len).sum();
    let peak = resident()?.saturating_sub(before);
    let heap = heap_bytes.map_or(peak, |heap_bytes| heap_bytes() as u64);
    for number in order {
        // SAFETY: every block of a workload is allocated by `alloc`.
        unsafe { free(blocks[number].take(), alloc) };
    }
    let kept = resident()?.saturating_sub(before);
    Ok(Measure {
        steps: count as u64,
        kept,
        held: Some(Held {
            live: live as u64,
            heap,
            peak,
        }),
        ..Measure::default()
    })
}

fn threads(alloc: &'static Alloc, steps: u64) -> Result<Measure> {
    const THREADS: u64 = 2;
    // All threads meet three times: after the warm-up, at the start and at the end of the measured part.
    let barrier = Barrier::new(THREADS as usize + 1);
    let run = |seed: u64| -> Result<()> {
        let mut churn = Churn::<SMALL_SLOTS>::new(alloc, small_sizes(), seed)?;
        churn.warm_up(alloc);
        barrier.wait();
        barrier.wait();
        churn.steps(alloc, steps);
        barrier.wait();
        churn.free_all(alloc);
        Ok(())
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        barrier.wait();
        let meter = Meter::start()?;
        barrier.wait();
        barrier.wait();
        let measure = meter.stop(THREADS * steps, 0)?;
        for thread in threads {
            thread.join().expect("the thread does not panic")?;
        }
        Ok(measure)
    })
}
