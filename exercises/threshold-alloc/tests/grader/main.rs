//! Grades `threshold-alloc`. Each stage is a module, and each test is a case.
//!
//! The cases do not depend on the data structures of the heap. They judge where blocks lie, what the kernel has mapped
//! and unmapped, how far the break has moved, and whether every block keeps its bytes.

use std::alloc::Layout;
use std::ops::Range;

use judge::probe::{
    Kind, expect_plain, faults, mapped_pages, page_size, permissions, resident_pages,
};
use judge::{amount, case, check, in_child, pretend, watch, watched};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use threshold_alloc::{Config, ThresholdAlloc};

mod bump;
mod cache;
mod global;
mod large;
mod limits;
mod merge;
mod moving;
mod resize;
mod reuse;
mod traces;

/// The allocator under test. Each case runs in a separate process and has this allocator to itself.
static ALLOC: ThresholdAlloc = ThresholdAlloc::new(Config::new());

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A size well above the default threshold.
const LARGE: usize = 512 * KIB;

/// The alignment of `malloc`, which is enough for every fundamental C type.
const ALIGN: usize = 16;

/// The largest page size of aarch64, which is a multiple of every machine's page size.
const PRETENDED_PAGE: usize = 64 * KIB;

/// A block from the allocator under test, with its current layout.
///
/// Its methods are safe because every case follows two rules: it accesses a block only while the block is live, and it
/// reads only bytes that have been initialized.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: any thread may access the memory of a block, and only one thread at a time has the block.
unsafe impl Send for Block {}

fn alloc(size: usize) -> Block {
    alloc_aligned(size, ALIGN)
}

fn alloc_aligned(size: usize, align: usize) -> Block {
    alloc_from(&ALLOC, layout(size, align))
}

/// Returns the layout of a block. Its size is never 0, as `GlobalAlloc` requires.
fn layout(size: usize, align: usize) -> Layout {
    assert_ne!(size, 0, "GlobalAlloc allocates no empty blocks");
    Layout::from_size_align(size, align).expect("a power of two and at most isize::MAX bytes")
}

/// Returns a new block, or fails the case unless it is aligned as `layout` asks.
fn alloc_from(allocator: &ThresholdAlloc, layout: Layout) -> Block {
    // SAFETY: the size is not 0, because `layout` returned it.
    let start = unsafe { allocator.alloc(layout) };
    expect_block(start, layout, "alloc")
}

/// Returns the block at `start`, or fails the case if `call` must not have returned this pointer.
fn expect_block(start: *mut u8, layout: Layout, call: &str) -> Block {
    check_block(start, layout, call).unwrap_or_else(|sentence| judge::fail(sentence))
}

/// Returns the block at `start`, or a sentence on what is wrong with this pointer.
fn check_block(start: *mut u8, layout: Layout, call: &str) -> Result<Block, String> {
    // Formatted only if needed, because random traces check many thousand blocks.
    let size = || amount(layout.size());
    if start.is_null() {
        return Err(format!(
            "{call} must give a block of {}, and gave null.",
            size()
        ));
    }
    if !start.addr().is_multiple_of(layout.align()) {
        return Err(format!(
            "{call} was asked for {} aligned to {}, and the block's address is no multiple of that.",
            size(),
            amount(layout.align())
        ));
    }
    Ok(Block { start, layout })
}

fn free(block: Block) {
    free_to(&ALLOC, block);
}

fn free_to(allocator: &ThresholdAlloc, block: Block) {
    // SAFETY: the block is live, and `layout` is its current layout. A case that frees a block twice does so in a child
    // that must abort.
    unsafe { allocator.dealloc(block.start, block.layout) };
}

impl Block {
    fn size(&self) -> usize {
        self.layout.size()
    }

    /// Sets every byte to `value`.
    fn fill(&self, value: u8) {
        // SAFETY: the block is live and this long, and nothing else accesses it.
        unsafe { self.start.write_bytes(value, self.size()) };
    }

    /// Fails the case unless every byte is still `value`.
    fn expect(&self, value: u8, what: &str) {
        let bytes = self.bytes();
        // A comparison of slices is one memcmp, whereas a loop is not optimised here.
        if bytes[0] == value && bytes[1..] == bytes[..bytes.len() - 1] {
            return;
        }
        if let Some(offset) = bytes.iter().position(|byte| *byte != value) {
            let size = self.size();
            judge::fail(format!(
                "{what}: byte {offset} of a block of {size} was {value}, and now reads {}.",
                bytes[offset],
                size = amount(size)
            ));
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is live and this long, and its bytes are initialized.
        unsafe { std::slice::from_raw_parts(self.start, self.size()) }
    }

    /// Returns the addresses of the first and the last byte.
    fn ends(&self) -> [*mut u8; 2] {
        [self.start, self.start.wrapping_add(self.size() - 1)]
    }

    /// Returns the first `size` bytes as a block. It must not be freed.
    fn prefix(&self, size: usize) -> Block {
        assert!(size <= self.size());
        Block {
            layout: layout(size, self.layout.align()),
            ..*self
        }
    }

    fn is_in(&self, range: &Range<usize>) -> bool {
        range.contains(&self.start.addr())
    }
}

const OVERLAP: &str = "Two live blocks share memory, or the allocator writes into one";

/// Returns the heap of `ALLOC`, or fails the case if it has none.
fn heap() -> Range<usize> {
    heap_of(&ALLOC)
}

fn heap_of(allocator: &ThresholdAlloc) -> Range<usize> {
    match allocator.heap_range() {
        Some(range) => range,
        None => judge::fail(
            "A small block was given out, and heap_range() says that there is no heap.".to_owned(),
        ),
    }
}

fn pointer_to(address: usize) -> *const u8 {
    std::ptr::without_provenance(address)
}

/// Returns the size of the resident pages in `range`.
fn resident_bytes(range: &Range<usize>) -> usize {
    resident_pages(pointer_to(range.start), range.len()) * page_size()
}

/// A pseudorandom sequence that is the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The orders in which `reorder` can arrange blocks.
const ORDERS: [&str; 4] = [
    "as they came",
    "backwards",
    "every other one first",
    "in no order",
];

fn reorder(blocks: &mut [Block], order: &str) {
    match order {
        "as they came" => {}
        "backwards" => blocks.reverse(),
        "every other one first" => {
            let others: Vec<Block> = blocks.iter().skip(1).step_by(2).copied().collect();
            let first: Vec<Block> = blocks.iter().step_by(2).copied().collect();
            blocks.copy_from_slice(&[first, others].concat());
        }
        _ => Random(7).shuffle(blocks),
    }
}

/// Fails the case unless `f` aborts its process.
fn expect_abort(f: impl FnOnce(), what: &str) {
    let pid = fork_child(f);
    match waitpid(pid, None) {
        Ok(WaitStatus::Signaled(_, Signal::SIGABRT, _)) => {}
        Ok(WaitStatus::Signaled(_, signal, _)) => judge::fail(format!(
            "{what}: the process died of {signal} and not of an abort, so the mistake was not noticed but followed."
        )),
        Ok(WaitStatus::Exited(_, PANICKED)) => judge::fail(format!(
            "{what}, and the call panicked: an allocator must never unwind; abort instead."
        )),
        _ => judge::fail(format!(
            "{what}, and the allocator said nothing: where it notices that, it must abort."
        )),
    }
}

/// The exit status of a child that panicked.
const PANICKED: i32 = 101;

/// Forks a child that runs `f` and exits.
fn fork_child(f: impl FnOnce()) -> Pid {
    // SAFETY: libtest's main thread holds no lock while it waits for the case. If the case runs further threads, `f`
    // uses only the allocator under test, which must work in the child.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            judge::expect_panics();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            let status = if result.is_ok() { 0 } else { PANICKED };
            // SAFETY: ends the child, which is this process, without running exit handlers.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Runs `f` and returns its result and the number of page faults that it took.
fn with_faults<R>(f: impl FnOnce() -> R) -> (R, u64) {
    // The first call of `faults` calibrates the probe, which takes page faults.
    faults();
    let before = faults();
    let result = f();
    (result, faults() - before)
}

judge::answer!();

judge::compile_fail! {
    large: freed_without_unsafe, copied
}
