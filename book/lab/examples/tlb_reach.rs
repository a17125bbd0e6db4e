//! The same number of cache lines takes longer to read if each lies in another page.

use std::hint::black_box;
use std::num::NonZero;
use std::ptr::NonNull;
use std::time::Instant;

use lab::kernel::RW;
use lab::page_size;
use nix::sys::mman::{MapFlags, MmapAdvise, madvise, mmap_anonymous};

const LINES: usize = 8192;
const LINE: usize = 64;

// ANCHOR: main
/// Reads 8192 cache lines in random order, several times. Each contains the offset of
/// the next one, so the processor cannot read two at a time.
fn nanoseconds_per_read(start: NonNull<u8>, offset: impl Fn(usize) -> usize) -> f64 {
    let at = |place| start.as_ptr().wrapping_add(place).cast::<usize>();
    let mut line = 0;
    for _ in 0..LINES {
        let next = (line * 1_664_525 + 1_013_904_223) % LINES; // visits every line once
        // SAFETY: the offset lies in the mapping, and is a multiple of the line size.
        unsafe { at(offset(line)).write(offset(next)) };
        line = next;
    }
    let round = |_| {
        let begin = Instant::now();
        let mut place = offset(0);
        for _ in 0..LINES {
            // SAFETY: as above, and the lines were written.
            place = unsafe { at(place).read() };
        }
        black_box(place);
        begin.elapsed().as_secs_f64() * 1e9 / LINES as f64
    };
    (0..50).map(round).fold(f64::INFINITY, f64::min)
}
// ANCHOR_END: main

/// Maps private memory, with or without huge pages.
fn map(len: usize, advice: MmapAdvise) -> NonNull<u8> {
    let len = NonZero::new(len).expect("a length");
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { mmap_anonymous(None, len, RW, MapFlags::MAP_PRIVATE) }.expect("mmap");
    // SAFETY: the advice changes no contents. It fails if the kernel was built without huge pages.
    if let Err(error) = unsafe { madvise(start, len.get(), advice) } {
        eprintln!("{advice:?}: {error}");
    }
    start.cast()
}

fn main() {
    let page = page_size();
    let small = map(LINES * page, MmapAdvise::MADV_NOHUGEPAGE);
    let huge = map(LINES * page, MmapAdvise::MADV_HUGEPAGE);
    // A line at a random offset in each page. At equal offsets, they would compete for a few places in the cache.
    let spread = |line: usize| line * page + ((line * 40_503) >> 8) * LINE % page;
    println!("{LINES} cache lines, read in random order: times are on stderr");
    let rows = [
        (
            "side by side",
            nanoseconds_per_read(small, |line| line * LINE),
        ),
        ("one to a page", nanoseconds_per_read(small, spread)),
        (
            "one to a page, with huge pages",
            nanoseconds_per_read(huge, spread),
        ),
    ];
    for (name, time) in rows {
        eprintln!("{name:<31} {time:5.1} ns for each read");
    }
}
