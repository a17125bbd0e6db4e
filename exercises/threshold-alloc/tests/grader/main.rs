//! Grades `threshold-alloc`. Each stage is a module, and each test is a case.
//!
//! The cases do not depend on the data structures of the heap. They judge where blocks lie, what the kernel has mapped
//! and unmapped, how far the break has moved, and whether every block keeps its bytes.

use std::alloc::Layout;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Mutex;
use std::thread::{JoinHandle, ScopedJoinHandle};

use judge::probe::{Kind, expect_plain, faults, page_size, permissions, resident_pages};
use judge::{
    Errno, Limits, Seen, Spacer, Steps, amount, case, case_with, check, in_child, pretend, watch,
    watched,
};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use threshold_alloc::{Config, ThresholdAlloc};

mod bump;
mod c_interface;
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
const GIB: usize = 1 << 30;

/// The default threshold.
const THRESHOLD: usize = 128 * KIB;

/// A size well above the default threshold.
const LARGE: usize = 512 * KIB;

/// The alignment of `malloc`, which is enough for every fundamental C type.
const ALIGN: usize = 16;

/// The largest page size of aarch64, which is a multiple of every machine's page size.
const PRETENDED_PAGE: usize = 64 * KIB;

/// Sizes of large blocks, not multiples of any page size. A block that gets one after the other grows and shrinks.
const ODD_SIZES: [usize; 5] = [200_123, 400_321, 300_007, 1_000_003, 150_001];

/// A configuration with a small reservation, for cases that use many allocators.
const SHORT: Config = Config {
    reserve: 64 * MIB,
    ..Config::new()
};

/// Reserves few enough addresses for the `mmap` of `judge::pretend`.
static FEW_ADDRESSES: ThresholdAlloc = ThresholdAlloc::new(SHORT);

/// Sizes below the default threshold: each of the shortest, and those around powers of two and pages.
fn small_sizes() -> Vec<usize> {
    let powers = (6..17).map(|power| 1 << power);
    let around =
        powers.flat_map(|power| [power - 8, power - 1, power, power + 1, power + power / 2]);
    let ends = [THRESHOLD - page_size(), THRESHOLD - 16, THRESHOLD - 1];
    (1..=64).chain(around).chain(ends).collect()
}

/// Sizes from the default threshold on, around whole pages.
fn large_sizes() -> Vec<usize> {
    let page = page_size();
    let whole = THRESHOLD.next_multiple_of(page) + page;
    vec![
        THRESHOLD,
        THRESHOLD + 1,
        whole - 1,
        whole,
        whole + 1,
        LARGE - 64,
        LARGE + page - 8,
        MIB + 1,
        3 * MIB + 123,
    ]
}

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

/// Takes the block that `put` has left for another thread.
fn take(place: &Mutex<Option<Block>>) -> Block {
    let block = place.lock().expect("no thread panics here").take();
    block.expect("the block was left for this thread")
}

fn put(place: &Mutex<Option<Block>>, block: Block) {
    *place.lock().expect("no thread panics here") = Some(block);
}

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

/// Calls `alloc`, and returns null if the allocator does. Another block is aligned as `layout` requires, or the case
/// fails.
fn try_alloc(allocator: &ThresholdAlloc, layout: Layout) -> Option<Block> {
    // SAFETY: the size is not 0, because `layout` returned it.
    let start = unsafe { allocator.alloc(layout) };
    (!start.is_null()).then(|| expect_block(start, layout, "alloc"))
}

/// Returns a new block, or fails the case unless it is aligned as `layout` requires.
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
    let align = || amount(layout.align());
    if start.is_null() {
        return Err(format!(
            "{call} returned null; expected a block of {}.",
            size()
        ));
    }
    if start.cast() == libc::MAP_FAILED {
        return Err(format!(
            "{call} returned MAP_FAILED as the address of a block of {}. Compare mmap's result with MAP_FAILED, and \
             return null.",
            size()
        ));
    }
    if !start.addr().is_multiple_of(layout.align()) {
        // Without the size: it can depend on chance for which one the address is misaligned.
        return Err(format!(
            "{call} returned a misaligned block for a layout with an alignment of {}: its address must be a multiple of {}.",
            align(),
            align()
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

/// The length of the pattern that `Block::fill` repeats. It is a prime number, so the same bytes never return at the
/// same offset of a page.
const PERIOD: usize = 8191;

/// Two periods of pseudorandom bytes, none of them zero.
static PATTERN: [u8; 2 * PERIOD] = {
    let mut bytes = [0; 2 * PERIOD];
    let mut state = 1u32;
    let mut index = 0;
    while index < PERIOD {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = 1 + (state >> 16) as u8 % 255;
        bytes[index] = byte;
        bytes[index + PERIOD] = byte;
        index += 1;
    }
    bytes
};

/// Returns the period that begins at `offset` in the pattern of `seed`.
fn pattern(seed: usize, offset: usize) -> &'static [u8] {
    let start = (seed.wrapping_mul(2531) + offset) % PERIOD;
    &PATTERN[start..start + PERIOD]
}

impl Block {
    fn size(&self) -> usize {
        self.layout.size()
    }

    /// Fills the block with the pattern of `seed`.
    fn fill(&self, seed: usize) {
        for offset in (0..self.size()).step_by(PERIOD) {
            let len = PERIOD.min(self.size() - offset);
            let to = self.start.wrapping_add(offset);
            // SAFETY: the block is live and at least this long, and nothing else accesses it.
            unsafe { to.copy_from_nonoverlapping(pattern(seed, offset).as_ptr(), len) };
        }
    }

    /// Returns the offset of the first byte that `fill(seed)` has not written, with its expected and its actual value.
    fn changed(&self, seed: usize) -> Option<(usize, u8, u8)> {
        let mut chunks = self.bytes().chunks(PERIOD).enumerate();
        chunks.find_map(|(number, chunk)| {
            let expected = &pattern(seed, number * PERIOD)[..chunk.len()];
            if chunk == expected {
                return None;
            }
            let index = chunk
                .iter()
                .zip(expected)
                .position(|(one, other)| one != other)?;
            Some((number * PERIOD + index, expected[index], chunk[index]))
        })
    }

    /// Fails the case unless the block is as `fill(seed)` left it. `why` says what must not have changed it.
    fn expect(&self, seed: usize, why: &str) {
        if let Some(change) = self.changed(seed) {
            judge::fail(format!("{} {why}", self.describe(change)));
        }
    }

    /// Describes a change that `changed` has found.
    fn describe(&self, (offset, before, now): (usize, u8, u8)) -> String {
        let size = amount(self.size());
        format!("Byte {offset} of a live block of {size} changed from {before} to {now}.")
    }

    /// Fails the case unless every byte is zero.
    fn expect_zeros(&self, call: &str) {
        if let Some(offset) = self.bytes().iter().position(|byte| *byte != 0) {
            judge::fail(format!(
                "{call} returned a block of {} whose byte {offset} is {}; expected 0 in every byte. Clear memory that \
                 was used before.",
                amount(self.size()),
                self.bytes()[offset]
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

    /// Writes the first and the last byte.
    fn touch_ends(&self) {
        for byte in self.ends() {
            // SAFETY: both ends belong to the block, which is live.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// Returns the first `size` bytes as a block. It must not be freed.
    fn prefix(&self, size: usize) -> Block {
        assert!(size <= self.size());
        Block {
            layout: layout(size, self.layout.align()),
            ..*self
        }
    }

    /// Returns five short parts of a large block, from its start to its end.
    fn parts(&self) -> [Block; 5] {
        let between = (self.size() - PERIOD) / 4;
        [0, 1, 2, 3, 4].map(|part| Block {
            start: self.start.wrapping_add(part * between),
            layout: layout(PERIOD, 1),
        })
    }

    /// Fills parts of a large block, which takes fewer page faults than filling all of it.
    fn fill_parts(&self, seed: usize) {
        self.parts().iter().for_each(|part| part.fill(seed));
    }

    /// Fails the case unless the parts are as `fill_parts(seed)` left them.
    fn expect_parts(&self, seed: usize, why: &str) {
        let between = (self.size() - PERIOD) / 4;
        for (number, part) in self.parts().iter().enumerate() {
            if let Some((offset, before, now)) = part.changed(seed) {
                let change = (number * between + offset, before, now);
                judge::fail(format!("{} {why}", self.describe(change)));
            }
        }
    }

    /// Returns the addresses of all bytes.
    fn range(&self) -> Range<usize> {
        self.start.addr()..self.start.addr() + self.size()
    }

    fn overlaps(&self, other: &Block) -> bool {
        let (one, other) = (self.range(), other.range());
        one.start < other.end && other.start < one.end
    }

    fn is_in(&self, range: &Range<usize>) -> bool {
        range.contains(&self.start.addr())
    }

    /// Returns the size of the resident pages of the block.
    fn resident(&self) -> usize {
        resident_pages(self.start, self.size()) * page_size()
    }

    /// Returns how many bytes of the block's pages are mapped.
    fn mapped(&self) -> usize {
        let page = page_size();
        let range = self.range();
        mapped_in(&(range.start / page * page..range.end.next_multiple_of(page)))
    }
}

const OVERLAP: &str = "Blocks must not overlap, and the allocator must not write to a live block.";

/// Fails the case if two of the blocks overlap.
fn expect_disjoint(blocks: &[Block]) {
    let mut sorted: Vec<&Block> = blocks.iter().collect();
    sorted.sort_by_key(|block| block.start);
    for pair in sorted.windows(2) {
        check!(
            !pair[0].overlaps(pair[1]),
            "Two live blocks of {} and {} overlap: the second begins at offset {} of the first. Blocks must not \
             overlap.",
            amount(pair[0].size()),
            amount(pair[1].size()),
            pair[1].start.addr() - pair[0].start.addr()
        );
    }
}

/// Returns the heap of `ALLOC`, or fails the case if it has none.
fn heap() -> Range<usize> {
    heap_of(&ALLOC)
}

fn heap_of(allocator: &ThresholdAlloc) -> Range<usize> {
    match allocator.heap_range() {
        Some(Range { start, end }) if start > end => judge::fail(
            "heap_range() returned a range that ends before its start; expected the heap's start and its break."
                .to_owned(),
        ),
        Some(range) => range,
        None => {
            judge::fail("heap_range() returned None; expected the range of the heap.".to_owned())
        }
    }
}

/// Fails the case unless each watched call that changes the heap got whole pages of `PRETENDED_PAGE`.
fn expect_whole_pages(seen: &Seen) {
    for name in ["mprotect", "madvise", "mmap"] {
        for call in seen.calls(name) {
            let changes = name != "mmap" || call.args[3] as i32 & libc::MAP_FIXED != 0;
            let whole = |number: u64| number.is_multiple_of(PRETENDED_PAGE as u64);
            check!(
                !changes || whole(call.args[0]) && whole(call.args[1]),
                "With pages of 64 KiB, {name} was called with a range that does not consist of whole pages. Ask \
                 sysconf(_SC_PAGESIZE) for the page size."
            );
        }
    }
}

/// From here on pages have 64 KiB, and mappings are at multiples of that.
///
/// The case is skipped if the answer makes raw system calls with lengths that are no multiples: the kernel then places its
/// next mapping where no kernel with such pages would.
fn pretend_large_pages() {
    pretend::page_size(PRETENDED_PAGE);
    let block = alloc(large::ODD_FOR_ALL);
    let places = pretend::places_mappings();
    free(block);
    if !places {
        judge::skip(
            "your code does not call libc's mmap, so the grader cannot pretend another page size",
        );
    }
}

/// Fails the case if the watched calls have unmapped pages that belonged neither to a mapping that they had made nor to one
/// of the blocks whose starts are the notes. `which` describes those pages.
fn expect_only_own_pages_unmapped(seen: &Seen, caller: &str, which: &str) {
    let page = page_size() as u64;
    let range = |start: u64, len: u64| start..start + len.next_multiple_of(page);
    // The old blocks may have headers, and guard pages. They are at most 300 KiB long.
    let old = |start: &u64| range(start / page * page - 4 * page, 300 * KIB as u64 + 8 * page);
    let old: Vec<_> = seen.notes().iter().map(old).collect();
    let mut own: Vec<Range<u64>> = Vec::new();
    for call in seen.all_calls() {
        match (call.name, &call.result) {
            ("mmap", Ok(start)) => own.push(range(*start, call.args[1])),
            ("mremap", Ok(start)) => own.push(range(*start, call.args[2])),
            ("munmap", Ok(_)) => {
                let gone = range(call.args[0], call.args[1]);
                let overlap = |own: &Range<u64>| {
                    let end = own.end.min(gone.end);
                    end.saturating_sub(own.start.max(gone.start))
                };
                check!(
                    own.iter().chain(&old).map(overlap).sum::<u64>() >= gone.end - gone.start,
                    "{caller} passed pages to munmap that {which}. Another mapping may be there. Unmap exactly what you have \
                     mapped."
                );
                let rest = |own: Range<u64>| {
                    let before = own.start..own.end.min(gone.start);
                    let after = own.start.max(gone.end)..own.end;
                    [before, after]
                        .into_iter()
                        .filter(|range| range.start < range.end)
                };
                own = own.into_iter().flat_map(rest).collect();
            }
            _ => {}
        }
    }
}

/// Fails the case unless `stats()` counts no mapped block.
fn expect_nothing_mapped(allocator: &ThresholdAlloc) {
    let stats = allocator.stats();
    check!(
        (stats.mapped_blocks, stats.mapped_bytes) == (0, 0),
        "All blocks were freed, and stats() returned mapped_blocks {} and mapped_bytes {}; expected 0 for both.",
        stats.mapped_blocks,
        stats.mapped_bytes
    );
}

/// Returns an allocator whose heap has no room for another block of this layout, and its blocks.
fn full(layout: Layout) -> (&'static ThresholdAlloc, Vec<Block>) {
    let allocator: &ThresholdAlloc = Box::leak(Box::new(ThresholdAlloc::new(Config {
        threshold: usize::MAX,
        max_maps: 0,
        reserve: 128 * KIB,
    })));
    let blocks = the_rest(allocator, layout);
    check!(
        blocks.len() > 10,
        "The configuration reserves 128 KiB, and the heap had room for {} of {}. Use the whole reservation.",
        judge::count(blocks.len(), "block"),
        amount(layout.size())
    );
    (allocator, blocks)
}

/// Allocates blocks until the heap is full.
fn the_rest(allocator: &ThresholdAlloc, layout: Layout) -> Vec<Block> {
    let mut blocks = Vec::new();
    while let Some(block) = try_alloc(allocator, layout) {
        // With a full heap and a cap of 0, an answer may return a mapping or null.
        if !block.is_in(&allocator.heap_range().unwrap_or_default()) {
            free_to(allocator, block);
            break;
        }
        blocks.push(block);
    }
    blocks
}

/// Fails the case unless each watched call that unmaps or resizes a mapping got whole pages of `PRETENDED_PAGE`, or the
/// length of a block of one of these sizes with at most `front` bytes in front of it.
fn expect_whole_lengths(seen: &Seen, sizes: &[usize], front: usize) {
    // The kernel rounds a length up, so the length of the block, and that of a header, will do as well.
    let of_block = |bytes: usize| {
        let mut sizes = sizes.iter();
        sizes.any(|size| (*size..size + front + 64).contains(&bytes))
    };
    for (name, lengths) in [("munmap", 1..2), ("mremap", 1..3)] {
        for call in seen.calls(name) {
            for length in &call.args[lengths.clone()] {
                let bytes = *length as usize;
                check!(
                    bytes.is_multiple_of(PRETENDED_PAGE) || of_block(bytes),
                    "With pages of 64 KiB, {name} was called with a length of {} for a mapped block; expected the block's \
                     length or whole pages. Ask sysconf(_SC_PAGESIZE) for the page size.",
                    amount(bytes)
                );
            }
        }
    }
}

fn pointer_to(address: usize) -> *const u8 {
    std::ptr::without_provenance(address)
}

/// Returns the size of the resident pages in `range`.
fn resident_bytes(range: &Range<usize>) -> usize {
    resident_pages(pointer_to(range.start), range.len()) * page_size()
}

/// Returns how many bytes of `range` are mapped, also without access.
///
/// This takes two system calls, whereas `mapped_pages` makes one for each page.
fn mapped_in(range: &Range<usize>) -> usize {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        judge::skip("/proc/self/maps cannot be read");
    };
    let overlap = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?.max(range.start);
        let end = usize::from_str_radix(end, 16).ok()?.min(range.end);
        end.checked_sub(start)
    };
    maps.lines().filter_map(overlap).sum()
}

/// Returns how many bytes this process has mapped.
fn mapped_by_this_process() -> usize {
    mapped_in(&(0..usize::MAX))
}

/// Maps `len` bytes at `address` and fills them with the pattern of seed 3. Returns `None` if something is mapped there.
fn map_at(address: usize, len: usize) -> Option<Block> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let wanted = pointer_to(address).cast_mut().cast();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces no mapping.
    let start = unsafe { libc::mmap(wanted, len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let block = Block {
        start: start.cast(),
        layout: layout(len, ALIGN),
    };
    block.fill(3);
    Some(block)
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
    "in the order of allocation",
    "in reverse order",
    "every other one first",
    "in random order",
];

fn reorder(blocks: &mut [Block], order: &str) {
    match order {
        "in the order of allocation" => {}
        "in reverse order" => blocks.reverse(),
        "every other one first" => {
            let others: Vec<Block> = blocks.iter().skip(1).step_by(2).copied().collect();
            let first: Vec<Block> = blocks.iter().step_by(2).copied().collect();
            blocks.copy_from_slice(&[first, others].concat());
        }
        _ => Random(7).shuffle(blocks),
    }
}

/// Frees `block` twice in a row in a forked child, which must abort. `prepare` runs before that in the child.
fn expect_abort_if_freed_twice(what: &str, prepare: impl FnOnce() -> Block) {
    expect_abort(what, prepare, free);
}

/// Like `expect_abort_if_freed_twice`, with another function for the second time.
fn expect_abort(what: &str, prepare: impl FnOnce() -> Block, free_again: impl FnOnce(Block)) {
    if let Err(sentence) = check_abort(&ALLOC, what, prepare, free_again) {
        judge::fail(sentence);
    }
}

/// Frees a block twice in a row in a forked child. Returns a sentence unless `dealloc` aborts the second time.
fn check_abort(
    allocator: &ThresholdAlloc,
    what: &str,
    prepare: impl FnOnce() -> Block,
    free_again: impl FnOnce(Block),
) -> Result<(), String> {
    let (mut steps, report) = io::pipe().expect("a pipe");
    let pid = fork_child(|| {
        // Neither the report nor anything else between the two calls uses the allocator.
        let step = || (&report).write_all(&[0]).expect("the parent reads it");
        let block = prepare();
        step();
        free_to(allocator, block);
        step();
        free_again(block);
        // Not reached if `dealloc` detects the double free.
        // SAFETY: the size is not 0.
        let [one, other] = [(); 2].map(|()| unsafe { allocator.alloc(block.layout) });
        if one == other && !one.is_null() {
            exit_now(SAME_BLOCK);
        }
    });
    let status = waitpid(pid, None);
    drop(report);
    let mut done = Vec::new();
    let read = steps.read_to_end(&mut done);
    match (status, read.unwrap_or(0)) {
        (Ok(status), 0) => Err(format!(
            "Blocks of the heap were allocated, and some of them freed, in a forked child, and the process {}.",
            describe(status)
        )),
        (Ok(status), 1) => Err(format!(
            "{what} was freed once, and the process {}; expected dealloc to return.",
            describe(status)
        )),
        (status, _) => check_aborted(what, status),
    }
}

/// Says how a child ended.
fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        WaitStatus::Exited(_, PANICKED) => "panicked".to_owned(),
        other => format!("ended with {other:?}"),
    }
}

/// Returns a sentence unless a child that has freed a block twice in a row has aborted.
fn check_aborted(what: &str, status: nix::Result<WaitStatus>) -> Result<(), String> {
    let freed = format!("{what} was freed twice in a row");
    Err(match status {
        Ok(WaitStatus::Signaled(_, Signal::SIGABRT, _)) => return Ok(()),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!(
            "{freed}, and the process was killed by {signal}; expected dealloc to detect the double free and to call \
             abort (SIGABRT)."
        ),
        Ok(WaitStatus::Exited(_, PANICKED)) => format!(
            "{freed}, and dealloc panicked; expected SIGABRT. An allocator must not unwind: call std::process::abort."
        ),
        Ok(WaitStatus::Exited(_, SAME_BLOCK)) => format!(
            "{freed}, and dealloc returned both times; then alloc returned the same block twice. Detect the double \
             free in dealloc, and call abort."
        ),
        Ok(WaitStatus::Exited(_, ALLOCATED)) => format!(
            "{freed}, and dealloc called the program's global allocator, which it may be itself, before it aborted. Use \
             nothing there that allocates: write a fixed message with write(2), and call abort."
        ),
        Ok(WaitStatus::Exited(_, status)) if status != 0 => format!(
            "{freed}, and the process exited with status {status}; expected SIGABRT. Call abort: exit(3) runs handlers on \
             a corrupted heap."
        ),
        _ => format!(
            "{freed}, and dealloc returned both times; expected SIGABRT. Detect the double free in dealloc, and call \
             abort."
        ),
    })
}

/// The exit status of a child to which `alloc` returned the same block twice.
const SAME_BLOCK: i32 = 2;

/// The exit status of a child in which `ALLOC` called the global allocator.
const ALLOCATED: i32 = 3;

/// The exit status of a child that panicked.
const PANICKED: i32 = 101;

/// Seconds of CPU time that a forked child may use. An endless loop then ends by SIGXCPU, and a slow heap does not.
const CPU_SECONDS: libc::rlim_t = 4;

/// Forks a child that runs `f` and exits. Its exit status is 0 unless `f` panics or exits.
fn fork_child(f: impl FnOnce()) -> Pid {
    fork_limited(CPU_SECONDS, f)
}

/// Like [`fork_child`], with a limit on the CPU time in seconds.
fn fork_limited(seconds: libc::rlim_t, f: impl FnOnce()) -> Pid {
    // SAFETY: libtest's main thread holds no lock while it waits for the case. If the case runs further threads, `f`
    // uses only the allocator under test, which must work in the child.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            judge::expect_panics();
            let limit = libc::rlimit {
                rlim_cur: seconds,
                rlim_max: seconds + 1,
            };
            // SAFETY: `limit` outlives the call. A failure does no harm.
            unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            exit_now(if result.is_ok() { 0 } else { PANICKED })
        }
    }
}

/// Frees `block` in a forked child and then here, or fails the case with `why` if that kills the child.
fn free_safely(allocator: &ThresholdAlloc, block: Block, why: &str) {
    free_in_child(allocator, block, why);
    free_to(allocator, block);
}

/// Frees `block` in a forked child, or fails the case with `why` if that kills the child.
fn free_in_child(allocator: &ThresholdAlloc, block: Block, why: &str) {
    let child = fork_child(|| free_to(allocator, block));
    if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
        judge::fail(format!(
            "dealloc of a block of {} was killed by {signal}. {why}",
            amount(block.size())
        ));
    }
}

/// Fails the case if one of these functions is safe. `why` says why it must not be.
fn expect_unsafe(functions: &[(&str, bool)], why: &str) {
    for (name, is_safe) in functions {
        check!(
            !is_safe,
            "{name} can be called without `unsafe`, {why} Keep it an `unsafe fn`, as in the stub."
        );
    }
}

/// Why a function that gets a block is unsafe.
const FOREIGN_POINTER: &str = "so safe code could pass it any pointer.";

/// Why a function that gets a layout is unsafe.
const EMPTY_LAYOUT: &str = "but the caller must promise that the layout's size is not zero.";

/// Runs `f` in `count` threads with different numbers. A check that fails in one of them fails the case.
fn in_threads(count: usize, f: impl Fn(usize) + Sync) {
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || f(number)))
            .collect();
        threads.into_iter().for_each(join);
    });
}

/// Waits for a thread. A panic in it, of the answer or of a failed check, fails the case.
fn join<T>(thread: ScopedJoinHandle<T>) -> T {
    passed_on(thread.join())
}

/// Waits for a thread as `join` does.
fn join_thread<T>(thread: JoinHandle<T>) -> T {
    passed_on(thread.join())
}

/// Returns the result of a thread, or goes on with its panic.
fn passed_on<T>(result: std::thread::Result<T>) -> T {
    result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// Ends this process, a forked child, without running exit handlers.
fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` accesses no memory.
    unsafe { libc::_exit(status) }
}

/// Returns by how much the break may move up although freed memory is reused: 256 KiB, or more if an answer moves it by more
/// than 128 KiB at a time.
fn most_moved() -> usize {
    let allocator = global::fresh();
    let mut ends = (0..100).map(|_| {
        alloc_from(allocator, layout(50_000, ALIGN));
        heap_of(allocator).end
    });
    let first = ends.next().unwrap_or_default();
    let next = ends.find(|end| *end != first).unwrap_or(first);
    (next.saturating_sub(first) + 128 * KIB).clamp(256 * KIB, 768 * KIB)
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
