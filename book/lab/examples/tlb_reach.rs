//! The same number of cache lines takes longer to read if each lies in another page.

use std::hint::black_box;
use std::num::NonZero;
use std::time::Instant;

use lab::kernel::RW;
use lab::page_size;
use nix::sys::mman::{MapFlags, MmapAdvise, madvise, mmap_anonymous};

const LINES: usize = 8192;
/// Words in a cache line.
const LINE: usize = 64 / size_of::<usize>();

// ANCHOR: main
/// Reads 8192 cache lines in random order, several times. Each contains the place of
/// the next one, so the processor cannot read two at a time.
fn nanoseconds_per_read(memory: &mut [usize], place_of: impl Fn(usize) -> usize) -> f64 {
    let mut line = 0;
    for _ in 0..LINES {
        let next = (line * 1_664_525 + 1_013_904_223) % LINES; // visits every line once
        memory[place_of(line)] = place_of(next);
        line = next;
    }
    let round = |_| {
        let begin = Instant::now();
        let mut place = place_of(0);
        for _ in 0..LINES {
            place = memory[place];
        }
        black_box(place);
        begin.elapsed().as_secs_f64() * 1e9 / LINES as f64
    };
    (0..50).map(round).fold(f64::INFINITY, f64::min)
}
// ANCHOR_END: main

/// Maps a page for each line, with or without huge pages.
fn map(advice: MmapAdvise) -> &'static mut [usize] {
    let len = NonZero::new(LINES * page_size()).expect("a length");
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { mmap_anonymous(None, len, RW, MapFlags::MAP_PRIVATE) }.expect("mmap");
    // SAFETY: the advice changes no contents. It fails if the kernel was built without huge pages.
    if let Err(error) = unsafe { madvise(start, len.get(), advice) } {
        eprintln!("{advice:?}: {error}");
    }
    let words = len.get() / size_of::<usize>();
    // SAFETY: the new mapping has this length, is never unmapped, and contains zeros. Nothing else refers to it.
    unsafe { std::slice::from_raw_parts_mut(start.cast().as_ptr(), words) }
}

fn main() {
    let small = map(MmapAdvise::MADV_NOHUGEPAGE);
    let huge = map(MmapAdvise::MADV_HUGEPAGE);
    let page = page_size() / size_of::<usize>();
    let packed = |line: usize| line * LINE;
    // At a random offset in each page. At equal offsets, the lines would compete for a few places in the cache.
    let spread = |line: usize| line * page + ((line * 40_503) >> 8) * LINE % page;
    println!("{LINES} cache lines, read in random order: times are on stderr");
    let show = |name, time| eprintln!("{name:<31} {time:5.1} ns for each read");
    show("side by side", nanoseconds_per_read(small, packed));
    show("one to a page", nanoseconds_per_read(small, spread));
    let with_huge = nanoseconds_per_read(huge, spread);
    show("one to a page, with huge pages", with_huge);
}
