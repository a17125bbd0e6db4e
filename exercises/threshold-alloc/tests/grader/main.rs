//! Grades `threshold-alloc`: a module for each stage, a case for each test.
//!
//! Nothing here knows how the heap is built. It is judged by where blocks lie, what the kernel has mapped and got back,
//! how far the break has moved, and whether every block keeps its bytes.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use judge::probe::{faults, mapped_pages, page_size, resident_pages, rights};
use judge::{amount, case, check, in_child, pretend, watch, watched};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use quickcheck::{Arbitrary, Gen, QuickCheck};
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

/// Each case has a process of its own, and so this allocator for itself.
static ALLOC: ThresholdAlloc = ThresholdAlloc::new(Config::new());

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Well above the threshold.
const LARGE: usize = 512 * KIB;

/// What `malloc` promises for every type that C has.
const ALIGN: usize = 16;

/// A block of an answer's, with the layout that it was asked for.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: a block is memory of the process; a case gives it to one thread at a time.
unsafe impl Send for Block {}

/// A block of `size` bytes from `ALLOC`.
#[track_caller]
fn block(size: usize) -> Block {
    aligned_block(size, ALIGN)
}

#[track_caller]
fn aligned_block(size: usize, align: usize) -> Block {
    block_of(&ALLOC, layout(size, align))
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// Fails the case unless there is a block, aligned as it was asked for.
fn block_of(allocator: &ThresholdAlloc, layout: Layout) -> Block {
    // SAFETY: no case asks for 0 bytes.
    let start = unsafe { allocator.alloc(layout) };
    checked(start, layout, "alloc")
}

fn checked(start: *mut u8, layout: Layout, call: &str) -> Block {
    given(start, layout, call).unwrap_or_else(|sentence| judge::fail(sentence))
}

/// What a call has given; otherwise the sentence that says what is wrong with it.
fn given(start: *mut u8, layout: Layout, call: &str) -> Result<Block, String> {
    let (size, align) = (amount(layout.size()), amount(layout.align()));
    if start.is_null() {
        return Err(format!(
            "{call} must give a block of {size}, and gave null."
        ));
    }
    if !start.addr().is_multiple_of(layout.align()) {
        return Err(format!(
            "{call} was asked for {size} aligned to {align}, and the block's address is no multiple of that."
        ));
    }
    Ok(Block { start, layout })
}

fn free(block: Block) {
    free_to(&ALLOC, block);
}

fn free_to(allocator: &ThresholdAlloc, block: Block) {
    // SAFETY: cases free each block once, with the layout that it was allocated or resized with.
    unsafe { allocator.dealloc(block.start, block.layout) };
}

impl Block {
    fn size(&self) -> usize {
        self.layout.size()
    }

    /// Writes every byte.
    fn fill(&self, value: u8) {
        // SAFETY: the block was given for this many bytes, and the case alone uses it.
        unsafe { self.start.write_bytes(value, self.size()) };
    }

    /// Fails the case unless every byte is still `value`.
    fn expect(&self, value: u8, what: &str) {
        if let Some(offset) = self.bytes().iter().position(|byte| *byte != value) {
            let size = self.size();
            judge::fail(format!(
                "{what}: byte {offset} of a block of {size} was {value}, and now reads {}.",
                self.bytes()[offset],
                size = amount(size)
            ));
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block was given for this many bytes; cases write them all before they read any.
        unsafe { std::slice::from_raw_parts(self.start, self.size()) }
    }

    /// The bytes at both ends, which no other block may share.
    fn ends(&self) -> [*mut u8; 2] {
        [self.start, self.start.wrapping_add(self.size() - 1)]
    }

    fn is_in(&self, range: &Range<usize>) -> bool {
        range.contains(&self.start.addr())
    }
}

const OVERLAP: &str = "Two live blocks share memory, or the allocator writes into one";

/// The heap of `ALLOC`; fails the case if there is none.
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

fn at(address: usize) -> *const u8 {
    std::ptr::without_provenance(address)
}

/// Bytes in the heap's resident pages.
fn resident_in(range: &Range<usize>) -> usize {
    resident_pages(at(range.start), range.len()) * page_size()
}

/// Numbers that look like chance, and are the same on every run.
struct Numbers(u64);

impl Numbers {
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

/// The orders that blocks are freed in.
const ORDERS: [&str; 4] = [
    "as they came",
    "backwards",
    "every other one first",
    "in no order",
];

fn put_in_order(blocks: &mut [Block], order: &str) {
    match order {
        "as they came" => {}
        "backwards" => blocks.reverse(),
        "every other one first" => {
            let others: Vec<Block> = blocks.iter().skip(1).step_by(2).copied().collect();
            let first: Vec<Block> = blocks.iter().step_by(2).copied().collect();
            blocks.copy_from_slice(&[first, others].concat());
        }
        _ => Numbers(7).shuffle(blocks),
    }
}

/// Fails the case unless `f` ends its process by SIGABRT.
fn expect_abort(f: impl FnOnce(), what: &str) {
    let pid = child(f);
    match waitpid(pid, None) {
        Ok(WaitStatus::Signaled(_, Signal::SIGABRT, _)) => {}
        Ok(WaitStatus::Signaled(_, signal, _)) => judge::fail(format!(
            "{what}: the process died of {signal} and not of an abort, so the mistake was not noticed but followed."
        )),
        Ok(WaitStatus::Exited(_, UNWOUND)) => judge::fail(format!(
            "{what}, and the call panicked: an allocator must never unwind; abort instead."
        )),
        _ => judge::fail(format!(
            "{what}, and the allocator said nothing: where it notices that, it must abort."
        )),
    }
}

/// How a child ends that panicked.
const UNWOUND: i32 = 101;

/// Forks; the child runs `f` and ends.
fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: the child runs what the case is about, and `_exit`s.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            judge::expect_panics();
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            let code = if ended.is_ok() { 0 } else { UNWOUND };
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(code) }
        }
    }
}

judge::compile_fail! {
    large: freed_without_unsafe, copied
}
