//! What the allocators are made to do.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::Barrier;
use std::{ptr, thread};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::child::meter::{Held, Measure, Meter, page_size, resident};

/// One thing to do, with its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Small blocks, freed in any order.
    Small { steps: u64 },
    /// Blocks of a quarter of the threshold up to four times as much, freed in any order.
    Mixed { steps: u64 },
    /// One large block after the other: allocated, written to, freed.
    Large { bytes: usize, steps: u64 },
    /// A `Vec` that doubles, from the threshold on.
    Vec { bytes: usize },
    /// Zeroed memory, of which little is touched.
    Sparse { bytes: usize, steps: u64 },
    /// Zeroed memory, of which nothing is touched.
    Untouched { bytes: usize, steps: u64 },
    /// Blocks of 1 MiB: all held, then all freed.
    Blocks { bytes: usize },
    /// Small blocks, some of them replaced by others: all held, then all freed.
    Heap { bytes: usize },
    /// Two threads with small blocks.
    Threads { steps: u64 },
}

type Alloc = dyn GlobalAlloc + Sync;

/// Blocks that are live at a time in the churns.
const SMALL_SLOTS: usize = 1 << 10;
const MIXED_SLOTS: usize = 1 << 5;

/// Of a sparse block one page in so many is touched.
const SPARSE: usize = 64;

impl Workload {
    /// Does it, and measures.
    ///
    /// # Errors
    /// If memory is refused, or the process cannot look at itself.
    pub fn run(self, alloc: &'static Alloc, heap_bytes: Option<fn() -> usize>) -> Result<Measure> {
        // Its own pages are resident before anything is counted.
        Meter::start()?.stop(0, 0)?;
        match self {
            Workload::Small { steps } => churn::<SMALL_SLOTS>(alloc, small_sizes(), steps),
            Workload::Mixed { steps } => churn::<MIXED_SLOTS>(alloc, mixed_sizes(), steps),
            Workload::Large { bytes, steps } => large(alloc, bytes, steps),
            Workload::Vec { bytes } => vec(alloc, bytes),
            Workload::Sparse { bytes, steps } => zeroed(alloc, bytes, steps, Some(SPARSE)),
            Workload::Untouched { bytes, steps } => zeroed(alloc, bytes, steps, None),
            Workload::Blocks { bytes } => hold(alloc, bytes, [1 << 20; SIZES], 0, None),
            Workload::Heap { bytes } => hold(alloc, bytes, small_sizes(), 2, heap_bytes),
            Workload::Threads { steps } => threads(alloc, steps),
        }
    }
}

/// A block and the layout it was allocated with.
#[derive(Clone, Copy)]
struct Block {
    start: *mut u8,
    layout: Layout,
}

impl Block {
    const NONE: Block = Block {
        start: ptr::null_mut(),
        layout: Layout::new::<usize>(),
    };

    fn new(alloc: &Alloc, layout: Layout) -> Block {
        // SAFETY: no size here is 0.
        let start = unsafe { alloc.alloc(layout) };
        assert!(!start.is_null(), "no memory for {layout:?}");
        // Otherwise the compiler could see that a block is not used, and leave it out.
        Block {
            start: black_box(start),
            layout,
        }
    }

    /// Writes to the first byte and to the last.
    fn touch(self) {
        // SAFETY: a block has a first byte.
        unsafe { self.start.write_volatile(1) };
        let last = self.start.wrapping_add(self.layout.size() - 1);
        // SAFETY: and a last one.
        unsafe { last.write_volatile(1) };
    }

    /// Writes to every byte from `from` on.
    fn fill(self, from: usize) {
        let start = self.start.wrapping_add(from);
        // SAFETY: the block is that long.
        unsafe { start.write_bytes(1, self.layout.size() - from) };
        black_box(self.start);
    }

    /// Writes to one byte in so many.
    fn touch_every(self, bytes: usize) {
        for at in (0..self.layout.size()).step_by(bytes) {
            // SAFETY: this byte is inside.
            unsafe { self.start.wrapping_add(at).write_volatile(1) };
        }
    }

    fn free(self, alloc: &Alloc) {
        // SAFETY: it came from there with this layout, and each is freed once.
        unsafe { alloc.dealloc(self.start, self.layout) };
    }
}

/// As most collections align.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, align_of::<usize>()).expect("a size below isize::MAX")
}

/// Numbers that look random, and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits are the weak ones.
        (self.0 >> 16) as usize
    }
}

/// Sizes to choose from.
const SIZES: usize = 256;

/// As many of each power of two.
fn sizes(smallest: usize, powers: f64) -> [usize; SIZES] {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    [(); SIZES].map(|()| {
        let share = (numbers.next() % 1_000) as f64 / 1_000.0;
        (smallest as f64 * (share * powers).exp2()) as usize
    })
}

/// 8 bytes to 1 KiB.
fn small_sizes() -> [usize; SIZES] {
    sizes(8, 7.0)
}

/// 32 KiB to 512 KiB.
fn mixed_sizes() -> [usize; SIZES] {
    sizes(crate::allocators::THRESHOLD / 4, 4.0)
}

/// Blocks in slots; a step frees one and puts a new one in its place. What it does itself is kept short: it is counted.
struct Churn<const SLOTS: usize> {
    layouts: [Layout; SIZES],
    blocks: [Block; SLOTS],
    numbers: Numbers,
    /// Where larger blocks are touched: every page.
    page: Option<usize>,
}

impl<const SLOTS: usize> Churn<SLOTS> {
    fn new(alloc: &Alloc, sizes: [usize; SIZES], seed: u64) -> Result<Churn<SLOTS>> {
        let page = page_size()?;
        let mut churn = Churn {
            layouts: sizes.map(layout),
            blocks: [Block::NONE; SLOTS],
            numbers: Numbers(seed),
            page: sizes.iter().any(|size| *size > page).then_some(page),
        };
        for slot in 0..SLOTS {
            churn.blocks[slot] = churn.block(alloc, slot);
        }
        Ok(churn)
    }

    fn block(&self, alloc: &Alloc, number: usize) -> Block {
        let block = Block::new(alloc, self.layouts[number % SIZES]);
        block.touch();
        if let Some(page) = self.page {
            block.touch_every(page);
        }
        block
    }

    fn steps(&mut self, alloc: &Alloc, steps: u64) {
        for _ in 0..steps {
            let number = self.numbers.next();
            let slot = (number / SIZES) % SLOTS;
            self.blocks[slot].free(alloc);
            self.blocks[slot] = self.block(alloc, number);
        }
    }

    fn end(self, alloc: &Alloc) {
        self.blocks.into_iter().for_each(|block| block.free(alloc));
    }
}

fn churn<const SLOTS: usize>(alloc: &Alloc, sizes: [usize; SIZES], steps: u64) -> Result<Measure> {
    let mut churn = Churn::<SLOTS>::new(alloc, sizes, 1)?;
    churn.steps(alloc, warm_up(SLOTS));
    let meter = Meter::start()?;
    churn.steps(alloc, steps);
    let measure = meter.stop(steps, 0)?;
    churn.end(alloc);
    Ok(measure)
}

/// Steps after which the heap has seen every order that matters.
fn warm_up(slots: usize) -> u64 {
    64 * slots as u64
}

fn large(alloc: &Alloc, bytes: usize, steps: u64) -> Result<Measure> {
    let pair = || {
        let block = Block::new(alloc, layout(bytes));
        block.fill(0);
        block.free(alloc);
    };
    // A threshold that moves has moved.
    (0..4).for_each(|_| pair());
    let meter = Meter::start()?;
    (0..steps).for_each(|_| pair());
    meter.stop(steps, steps * (bytes / page_size()?) as u64)
}

fn vec(alloc: &Alloc, bytes: usize) -> Result<Measure> {
    let first = crate::allocators::THRESHOLD;
    ensure!(bytes > first, "a Vec of {bytes} bytes never grows");
    let mut block = Block::new(alloc, layout(64));
    block.fill(0);
    let mut grow = |to: usize| {
        while block.layout.size() < to {
            let from = block.layout.size();
            // SAFETY: the block came from there with this layout, and is used no more.
            let start = unsafe { alloc.realloc(block.start, block.layout, 2 * from) };
            assert!(!start.is_null(), "no memory for {} bytes", 2 * from);
            block = Block {
                start: black_box(start),
                layout: layout(2 * from),
            };
            block.fill(from);
        }
    };
    grow(first);
    let meter = Meter::start()?;
    grow(bytes);
    let doublings = (bytes / first).ilog2() as u64;
    let measure = meter.stop(doublings, ((bytes - first) / page_size()?) as u64)?;
    block.free(alloc);
    Ok(measure)
}

fn zeroed(alloc: &Alloc, bytes: usize, steps: u64, touched: Option<usize>) -> Result<Measure> {
    let page = page_size()?;
    let pair = || {
        let layout = layout(bytes);
        // SAFETY: the size is not 0.
        let start = unsafe { alloc.alloc_zeroed(layout) };
        assert!(!start.is_null(), "no memory for {bytes} bytes");
        let block = Block {
            start: black_box(start),
            layout,
        };
        if let Some(touched) = touched {
            block.touch_every(touched * page);
        }
        block.free(alloc);
    };
    (0..2).for_each(|_| pair());
    let meter = Meter::start()?;
    (0..steps).for_each(|_| pair());
    meter.stop(steps, steps * (bytes / page) as u64)
}

/// Holds so many bytes in blocks of those sizes, replaces each block `replaced` times on average, and frees them in another
/// order.
fn hold(
    alloc: &Alloc,
    bytes: usize,
    sizes: [usize; SIZES],
    replaced: usize,
    heap_bytes: Option<fn() -> usize>,
) -> Result<Measure> {
    let count = bytes * SIZES / sizes.iter().sum::<usize>();
    let mut blocks: Vec<Block> = Vec::with_capacity(count);
    let mut order: Vec<usize> = (0..count).collect();
    let mut numbers = Numbers(1);
    for at in (1..count).rev() {
        order.swap(at, numbers.next() % (at + 1));
    }
    // The blocks' own list is resident before.
    blocks.resize(count, Block::NONE);
    let before = resident()?;
    let new = |number: usize| {
        let block = Block::new(alloc, layout(sizes[number % SIZES]));
        block.fill(0);
        block
    };
    for (number, block) in blocks.iter_mut().enumerate() {
        *block = new(number);
    }
    for _ in 0..count * replaced {
        let number = numbers.next();
        let block = &mut blocks[number / SIZES % count];
        block.free(alloc);
        *block = new(number);
    }
    let live: usize = blocks.iter().map(|block| block.layout.size()).sum();
    let peak = resident()?.saturating_sub(before);
    let heap = heap_bytes.map_or(peak, |heap_bytes| heap_bytes() as u64);
    for number in order {
        blocks[number].free(alloc);
    }
    let kept = resident()?.saturating_sub(before);
    Ok(Measure {
        steps: count as u64,
        held: Some(Held {
            live: live as u64,
            heap,
            peak,
            kept,
        }),
        ..Measure::default()
    })
}

fn threads(alloc: &'static Alloc, steps: u64) -> Result<Measure> {
    const THREADS: u64 = 2;
    // Warm; go; done.
    let barrier = Barrier::new(THREADS as usize + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || -> Result<()> {
                    let mut churn = Churn::<SMALL_SLOTS>::new(alloc, small_sizes(), thread + 1)?;
                    churn.steps(alloc, warm_up(SMALL_SLOTS));
                    barrier.wait();
                    barrier.wait();
                    churn.steps(alloc, steps);
                    barrier.wait();
                    churn.end(alloc);
                    Ok(())
                })
            })
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
