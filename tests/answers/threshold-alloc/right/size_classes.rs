//! Size classes without headers: the layout says how long a block is, and a table of spans what lies at its address.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

use heap::{Arena, Need, STEP};
use kernel::{page_size, whole_pages};
use nix::sys::mman::{MRemapFlags, ProtFlags};

/// What an allocator begins with.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Blocks of this many bytes and more have a mapping of their own.
    pub threshold: usize,
    /// At most that many blocks have one at a time; further ones come from the heap.
    pub max_maps: usize,
    /// Bytes of addresses to reserve for the heap. Where that is refused, half of it, and so on.
    pub reserve: usize,
}

impl Config {
    /// 128 KiB and 65,536 mappings, as glibc has them; 64 GiB of addresses.
    pub const fn new() -> Config {
        Config {
            threshold: 128 << 10,
            max_maps: 65_536,
            reserve: 64 << 30,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

/// What an allocator has given out, and not got back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Blocks with a mapping of their own.
    pub mapped_blocks: usize,
    /// Bytes in those mappings: whole pages.
    pub mapped_bytes: usize,
    /// The threshold of this moment, in bytes.
    pub threshold: usize,
}

/// The allocator. As a `static` it can be the program's `#[global_allocator]`.
///
/// No call unwinds. A block that is freed twice in a row, or with another layout, ends the process by `abort`. A `fork`
/// waits until no other thread is inside an allocator.
pub struct ThresholdAlloc {
    reserve: usize,
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    moving: AtomicBool,
    cached: AtomicUsize,
    mapped_blocks: AtomicUsize,
    mapped_bytes: AtomicUsize,
    /// Null before the first small block. What it points to lies in the reservation, which is never unmapped: blocks and
    /// threads' caches may outlive the allocator.
    arena: AtomicPtr<Arena>,
}

/// glibc's limit for a threshold that moves by itself: DEFAULT_MMAP_THRESHOLD_MAX.
const MOVES_UP_TO: usize = 32 << 20;

impl ThresholdAlloc {
    /// An allocator that has asked the kernel for nothing yet.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            reserve: config.reserve,
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            moving: AtomicBool::new(false),
            cached: AtomicUsize::new(0),
            mapped_blocks: AtomicUsize::new(0),
            mapped_bytes: AtomicUsize::new(0),
            arena: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A block of that size and alignment, not initialised; null where there is no memory for it.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        if large && let Some(block) = self.map(layout) {
            return block;
        }
        self.alloc_in_arena(layout)
            // The heap is full.
            .or_else(|| self.map(layout))
            .unwrap_or(ptr::null_mut())
    }

    /// Takes a block back. A block with a mapping of its own is unmapped at once.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and nothing uses it any more.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // The address tells, and not the size: the threshold may have changed since.
        let Some(arena) = self.arena_of(block) else {
            return self.unmap(block, layout);
        };
        let need = Need::of(layout);
        let limit = self.cached.load(Relaxed);
        if limit > 0
            && let Need::Slot(class) = need
            && cache::keep(arena, block, class, limit)
        {
            return;
        }
        let slack = self.slack();
        arena.heap.with(|heap| {
            heap.dealloc(block, need);
            if heap.free_at_the_end() > slack + STEP {
                heap.trim(slack);
            }
        });
    }

    /// As `alloc`, and every byte is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let block = unsafe { self.alloc(layout) };
        // A fresh mapping is zero already, and stays untouched.
        if !block.is_null() && self.arena_of(block).is_some() {
            // SAFETY: the block is that long, and nobody else knows it yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Makes a block `size` bytes long, and keeps its alignment and what it holds, up to the shorter of both lengths. The
    /// block may move. Null where there is no memory for it: then the old block stays as it was.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is a layout's own, and the caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let large = size >= self.threshold.load(Relaxed);
        match (self.arena_of(block), large) {
            (None, true) => return self.remap(block, layout, wanted),
            (Some(arena), false) if arena.resize(block, layout, wanted) => return block,
            // It changes its kind, or has no room where it is.
            _ => {}
        }
        // SAFETY: the caller vouches for the size.
        let copy = unsafe { self.alloc(wanted) };
        if !copy.is_null() {
            let kept = size.min(layout.size());
            // SAFETY: both blocks are that long, and the copy is a new one.
            unsafe { ptr::copy_nonoverlapping(block, copy, kept) };
            // SAFETY: the caller's contract.
            unsafe { self.dealloc(block, layout) };
        }
        copy
    }

    /// From here on blocks of `bytes` and more have a mapping of their own. A moving threshold stands still.
    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Relaxed);
        self.threshold.store(bytes, Relaxed);
    }

    /// From here on at most `blocks` have a mapping of their own at a time. Those that have one keep it.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    /// Lets the threshold move, as glibc's does: past the size of each mapped block that is freed, up to 32 MiB.
    pub fn set_moving_threshold(&self, on: bool) {
        self.moving.store(on, Relaxed);
    }

    /// From here on each thread may keep that many bytes of small blocks that it has freed, for itself.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cached.store(bytes, Relaxed);
    }

    /// The heap from its first byte to its break: all of it can be touched, and nothing beyond. `None` before the first
    /// small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        Some(self.arena()?.heap.with(|heap| heap.range()))
    }

    /// What has been given out.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.mapped_blocks.load(Relaxed),
            mapped_bytes: self.mapped_bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Gives back to the kernel whatever lies free at the heap's end, and first what this thread has cached.
    pub fn trim(&self) {
        if let Some(arena) = self.arena() {
            cache::empty(arena);
            arena.heap.with(|heap| heap.trim(0));
        }
    }

    fn arena(&self) -> Option<&'static Arena> {
        // SAFETY: null, or an arena that was written before it was stored here, and stays for ever.
        unsafe { self.arena.load(Acquire).as_ref() }
    }

    /// The arena, if the block lies there, and otherwise it has a mapping of its own.
    fn arena_of(&self, block: *mut u8) -> Option<&'static Arena> {
        self.arena()
            .filter(|arena| arena.reserved.contains(&block.addr()))
    }

    fn alloc_in_arena(&self, layout: Layout) -> Option<*mut u8> {
        let arena = match self.arena() {
            Some(arena) => arena,
            None => self.begin()?,
        };
        let need = Need::of(layout);
        if self.cached.load(Relaxed) > 0
            && let Need::Slot(class) = need
            && let Some(block) = cache::take(arena, class)
        {
            return Some(block);
        }
        arena.heap.with(|heap| heap.alloc(need, layout.align()))
    }

    #[cold]
    fn begin(&self) -> Option<&'static Arena> {
        fork::no_fork_meanwhile(|arenas| {
            // Another thread may have been first.
            if self.arena().is_none() {
                let arena = arenas.add(|others| Arena::reserve(self.reserve, others))?;
                self.arena.store(ptr::from_ref(arena).cast_mut(), Release);
            }
            self.arena()
        })
    }

    /// Bytes that may lie free at the heap's end. What a moving threshold has sent to the heap is to find room there the
    /// next time.
    fn slack(&self) -> usize {
        match self.moving.load(Relaxed) {
            true => self.threshold.load(Relaxed).min(MOVES_UP_TO) * 2,
            false => STEP,
        }
    }

    /// A block with a mapping of its own, if the cap and the kernel allow one more.
    fn map(&self, layout: Layout) -> Option<*mut u8> {
        let max = self.max_maps.load(Relaxed);
        let one_more = |live: usize| (live < max).then(|| live + 1);
        // Counted before it is mapped: otherwise two threads could both find room for one.
        self.mapped_blocks
            .fetch_update(Relaxed, Relaxed, one_more)
            .ok()?;
        let len = whole_pages(layout.size());
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let Ok(block) = kernel::map_aligned(len, layout.align(), rights) else {
            self.mapped_blocks.fetch_sub(1, Relaxed);
            return None;
        };
        self.mapped_bytes.fetch_add(len, Relaxed);
        Some(block)
    }

    fn unmap(&self, block: *mut u8, layout: Layout) {
        let len = whole_pages(layout.size());
        let one_less = |live: usize| live.checked_sub(1);
        let counted = self
            .mapped_blocks
            .fetch_update(Relaxed, Relaxed, one_less)
            .is_ok();
        if !counted || !block.addr().is_multiple_of(page_size()) {
            corrupted();
        }
        self.mapped_bytes.fetch_sub(len, Relaxed);
        // SAFETY: the block has this mapping for itself, and its owner has given it up.
        if unsafe { kernel::unmap(block, len) }.is_err() {
            corrupted();
        }
        if self.moving.load(Relaxed) && len <= MOVES_UP_TO {
            self.threshold.fetch_max(len + 1, Relaxed);
        }
    }

    /// Resizes a mapping. The kernel moves page-table entries, and copies nothing.
    fn remap(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        let (old, new) = (whole_pages(layout.size()), whole_pages(wanted.size()));
        let moved = match layout.align() {
            align if align > page_size() => remap_aligned(block, old, new, align),
            // SAFETY: the block has this mapping for itself, and its owner takes the new address.
            _ => unsafe { kernel::remap(block, old, new, MRemapFlags::MREMAP_MAYMOVE, None) },
        };
        if moved.is_ok() {
            // Modulo 2^64 this is right for a shorter one, too.
            self.mapped_bytes.fetch_add(new.wrapping_sub(old), Relaxed);
        }
        moved.unwrap_or(ptr::null_mut())
    }
}

/// Resizes a mapping, and keeps an alignment that the kernel knows nothing of.
fn remap_aligned(block: *mut u8, old: usize, new: usize, align: usize) -> nix::Result<*mut u8> {
    // SAFETY: the block has this mapping for itself; here it cannot move.
    let stayed = unsafe { kernel::remap(block, old, new, MRemapFlags::empty(), None) };
    if stayed.is_ok() {
        return stayed;
    }
    let place = kernel::map_aligned(new, align, ProtFlags::PROT_NONE)?;
    let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
    // SAFETY: as above, and what it replaces was mapped for that just now.
    let moved = unsafe { kernel::remap(block, old, new, flags, Some(place)) };
    if moved.is_err() {
        // SAFETY: the place is not used.
        let _ = unsafe { kernel::unmap(place, new) };
    }
    moved
}

// SAFETY: a block is its owner's alone until it is freed, is as long and aligned as its layout says, and no call unwinds.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.realloc(block, layout, size) }
    }
}

/// Ends the process: nothing can be trusted any more, and to unwind would run more code on it.
#[cold]
fn corrupted() -> ! {
    let words = b"threshold-alloc: freed twice, with another layout, or written over\n";
    // SAFETY: the words are that long. Not `eprintln`, which might allocate.
    unsafe { nix::libc::write(2, words.as_ptr().cast(), words.len()) };
    std::process::abort()
}

/// Sizes that blocks are rounded up to.
mod class {
    use super::heap::UNIT;
    use std::alloc::Layout;

    /// Up to 128 bytes each multiple of 16; above that eight steps to each power of two, up to `LONGEST`.
    pub const CLASSES: usize = 64;

    /// A longer block is a run of units, which are as small steps as these.
    pub const LONGEST: usize = 8 * UNIT;

    /// The class of a layout's blocks, when they are taken and when they are freed. Alignment is part of it: a length that
    /// is a multiple of the alignment is rounded up to another multiple of it, and spans begin with a unit.
    pub fn of(layout: Layout) -> Option<usize> {
        let len = layout.size().next_multiple_of(layout.align());
        (len <= LONGEST && layout.align() <= UNIT).then(|| of_len(len))
    }

    const fn of_len(len: usize) -> usize {
        let last = len.saturating_sub(1);
        if last < 128 {
            return last / 16;
        }
        let power = last.ilog2() as usize;
        let eighth = (last >> (power - 3)) & 7;
        (power - 6) * 8 + eighth
    }

    /// The length of a slot.
    pub const fn slot(class: usize) -> usize {
        match class / 8 {
            0 => (class + 1) * 16,
            octave => (8 + class % 8 + 1) << (octave + 3),
        }
    }

    /// Units in a span of that class.
    pub fn units(class: usize) -> usize {
        UNITS[class]
    }

    /// Slots in a span of that class.
    pub fn slots(class: usize) -> usize {
        units(class) * UNIT / slot(class)
    }

    const UNITS: [usize; CLASSES] = {
        let mut units = [1; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            // As few as leave at most an eighth over behind the last slot.
            while units[class] * UNIT % slot(class) > units[class] * UNIT / 8
                || units[class] * UNIT < slot(class)
            {
                units[class] += 1;
            }
            class += 1;
        }
        units
    };

    const _: () = {
        let mut class = 0;
        while class < CLASSES {
            assert!(of_len(slot(class)) == class && of_len(slot(class) - 15) == class);
            class += 1;
        }
        assert!(slot(CLASSES - 1) == LONGEST);
    };
}

/// A heap of units inside a reservation: runs of them are blocks, or spans of slots, or free.
///
/// The reservation holds, one behind the other: the arena, the table with an entry for each unit, the heap. Only the last
/// one moves its break down again.
mod heap {
    use super::lock::Locked;
    use super::{class, corrupted, kernel};
    use std::alloc::Layout;
    use std::ops::Range;
    use std::ptr;

    /// What runs are counted in. It need not be a page, and is shorter: each class has half a span to spare on average.
    pub const UNIT: usize = 2 << 10;

    /// The break moves up in steps of so many bytes: a system call for each block would cost more than the block. All
    /// parts of the reservation begin at a multiple of it: no page of Linux is longer than 64 KiB here.
    pub const STEP: usize = 128 << 10;

    /// What a layout needs of a heap.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Need {
        /// A slot of that class.
        Slot(usize),
        /// So many units.
        Run(usize),
    }

    impl Need {
        pub fn of(layout: Layout) -> Need {
            match class::of(layout) {
                Some(class) => Need::Slot(class),
                None => Need::Run(layout.size().div_ceil(UNIT)),
            }
        }
    }

    /// A heap, and what is known of it without its lock.
    pub struct Arena {
        pub reserved: Range<usize>,
        pub heap: Locked<Heap>,
        pub others: Option<&'static Arena>,
    }

    impl Arena {
        /// Reserves addresses that cannot be touched yet. They cost nothing but the addresses, also where the kernel
        /// commits no more memory than it has.
        pub fn reserve(bytes: usize, others: Option<&'static Arena>) -> Option<&'static Arena> {
            const { assert!(size_of::<Arena>() <= STEP) };
            let mut len = bytes.clamp(STEP, isize::MAX as usize);
            let (reservation, table_len, whole) = loop {
                len = len.next_multiple_of(STEP);
                let table_len = (len / UNIT * size_of::<Span>()).next_multiple_of(STEP);
                // One step is spent on beginning at a multiple of it, and one on the arena.
                let whole = 2 * STEP + table_len + len;
                match kernel::map_anywhere(whole, kernel::NOTHING) {
                    Ok(reservation) => break (reservation, table_len, whole),
                    Err(_) if len > STEP => len /= 2,
                    Err(_) => return None,
                }
            };
            let unaligned = reservation.addr();
            let arena = reservation.wrapping_add(unaligned.next_multiple_of(STEP) - unaligned);
            let table = arena.wrapping_add(STEP);
            let start = table.wrapping_add(table_len);
            let heap = Heap {
                start,
                end: len / UNIT,
                brk: 0,
                top: 0,
                table: table.cast(),
                entries: 0,
                lists: [NONE; LISTS],
                filled: 0,
            };
            // SAFETY: the arena's step is not used yet.
            if unsafe { kernel::commit(arena, STEP) }.is_err() {
                // SAFETY: nothing of the reservation is used yet.
                let _ = unsafe { kernel::unmap(reservation, whole) };
                return None;
            }
            let arena = arena.cast::<Arena>();
            let begun = Arena {
                reserved: start.addr()..start.addr() + len,
                heap: Locked::new(heap),
                others,
            };
            // SAFETY: an arena fits into its step, which begins at a multiple of that, and can be written now.
            unsafe { arena.write(begun) };
            // SAFETY: it was written above, and is never unmapped.
            Some(unsafe { &*arena })
        }

        /// Makes a block of this heap longer or shorter where it is, if that can be.
        pub fn resize(&self, block: *mut u8, layout: Layout, wanted: Layout) -> bool {
            match (Need::of(layout), Need::of(wanted)) {
                (Need::Run(_), Need::Run(units)) => {
                    self.heap.with(|heap| heap.resize(block, units).is_some())
                }
                (before, after) => before == after,
            }
        }
    }

    /// No entry.
    const NONE: usize = usize::MAX;

    /// A list for the free runs of each length up to this many units, one for all longer ones, and one for the spans of
    /// each class that have a free slot.
    const EXACT: usize = 128;
    const LONGER: usize = EXACT;
    const WITH_ROOM: usize = EXACT + 1;
    const LISTS: usize = WITH_ROOM + class::CLASSES;

    /// The list of free runs of that length.
    fn runs_of(len: usize) -> usize {
        if len <= EXACT { len - 1 } else { LONGER }
    }

    /// What begins with a unit. Zero, as the kernel gives the table, is `Nothing`.
    #[derive(Clone, Copy, PartialEq, Eq)]
    #[repr(u8)]
    enum Kind {
        /// It is not the first of its run.
        Nothing = 0,
        Free,
        Block,
        Slots,
    }

    /// An entry of the table, as long as a cache line. Of a run the first entry is filled in; the last one knows the first,
    /// and of a span of slots each one does.
    #[repr(align(64))]
    struct Span {
        kind: Kind,
        first: usize,
        len: usize,
        /// Neighbours in a list.
        next: usize,
        previous: usize,
        /// For a span of slots: the first one that was freed, which begins with the address of the next one.
        freed: *mut u8,
        /// For a span of slots: its class; slots that were given out, ever and now.
        class: u8,
        touched: u32,
        live: u32,
    }

    /// Invariant: the units up to `top` are runs without a gap, of which no two free ones are neighbours, and the last one
    /// is not free. They have entries, and lie below the break.
    pub struct Heap {
        start: *mut u8,
        /// Units in the reservation.
        end: usize,
        /// Bytes from the start that can be touched.
        brk: usize,
        /// The first unit that is in no run.
        top: usize,
        table: *mut Span,
        /// Entries that can be touched.
        entries: usize,
        lists: [usize; LISTS],
        /// A bit for each exact list of free runs that is not empty.
        filled: u128,
    }

    // SAFETY: what its pointers point to belongs to the heap, whichever thread uses it.
    unsafe impl Send for Heap {}

    impl Heap {
        pub fn range(&self) -> Range<usize> {
            self.start.addr()..self.start.addr() + self.brk
        }

        pub fn alloc(&mut self, need: Need, align: usize) -> Option<*mut u8> {
            match need {
                Need::Slot(class) => self.take_slot(class),
                Need::Run(units) => self.take_aligned(units, align),
            }
        }

        pub fn dealloc(&mut self, block: *mut u8, need: Need) {
            match need {
                Need::Slot(class) => self.give_slot(block, class),
                Need::Run(units) => {
                    let first = self.first_of_block(block);
                    if self.span(first).len != units {
                        corrupted();
                    }
                    self.give_run(first, units);
                }
            }
        }

        /// Makes a block that is a run as many units long, if there is room behind it.
        fn resize(&mut self, block: *mut u8, units: usize) -> Option<()> {
            let first = self.first_of_block(block);
            let mut len = self.span(first).len;
            let after = first + len;
            if units > len && after == self.top {
                self.reach(first + units)?;
                self.top = first + units;
                len = units;
            } else if units > len && self.span(after).kind == Kind::Free {
                let more = self.span(after).len;
                if units > len + more {
                    return None;
                }
                self.unlink(runs_of(more), after);
                self.span(after).kind = Kind::Nothing;
                len += more;
            } else if units > len {
                return None;
            }
            self.set(first, len, Kind::Block);
            self.cut(first, units);
            Some(())
        }

        /// Bytes between the last run and the break.
        pub fn free_at_the_end(&self) -> usize {
            self.brk.saturating_sub(self.top * UNIT)
        }

        /// Moves the break down, and leaves `slack` bytes free below it.
        pub fn trim(&mut self, slack: usize) {
            let brk = kernel::whole_pages(self.top * UNIT + slack);
            if brk >= self.brk {
                return;
            }
            let beyond = self.start.wrapping_add(brk);
            // SAFETY: nothing up there is in use: runs end at `top`.
            if unsafe { kernel::decommit(beyond, self.brk - brk) }.is_ok() {
                self.brk = brk;
            }
        }

        fn span(&mut self, unit: usize) -> &mut Span {
            if unit >= self.entries {
                corrupted();
            }
            // SAFETY: this entry can be touched, was zero in the beginning, which is an entry, and belongs to the heap.
            unsafe { &mut *self.table.wrapping_add(unit) }
        }

        fn address(&self, unit: usize) -> *mut u8 {
            self.start.wrapping_add(unit * UNIT)
        }

        fn offset(&self, block: *mut u8) -> usize {
            let offset = block.addr().wrapping_sub(self.start.addr());
            if offset / UNIT >= self.top {
                corrupted();
            }
            offset
        }

        /// The first unit of a block that is a run.
        fn first_of_block(&mut self, block: *mut u8) -> usize {
            let offset = self.offset(block);
            if !offset.is_multiple_of(UNIT) || self.span(offset / UNIT).kind != Kind::Block {
                corrupted();
            }
            offset / UNIT
        }

        fn take_slot(&mut self, class: usize) -> Option<*mut u8> {
            let unit = match self.lists[WITH_ROOM + class] {
                NONE => self.new_span(class)?,
                unit => unit,
            };
            let (start, slot) = (self.address(unit), class::slot(class));
            let span = self.span(unit);
            let block = if span.freed.is_null() {
                span.touched += 1;
                start.wrapping_add((span.touched as usize - 1) * slot)
            } else {
                let block = span.freed;
                // SAFETY: a freed slot is the heap's, and was given this address when it was freed.
                span.freed = unsafe { block.cast::<*mut u8>().read() };
                let inside = start.addr()..start.addr() + span.touched as usize * slot;
                if !span.freed.is_null() && !inside.contains(&span.freed.addr()) {
                    // Its last owner has gone on writing.
                    corrupted();
                }
                block
            };
            span.live += 1;
            if span.live as usize == class::slots(class) {
                self.unlink(WITH_ROOM + class, unit);
            }
            Some(block)
        }

        fn new_span(&mut self, class: usize) -> Option<usize> {
            let len = class::units(class);
            let first = self.take_run(len)?;
            for unit in first..first + len {
                self.span(unit).first = first;
            }
            let span = self.span(first);
            span.kind = Kind::Slots;
            span.class = class as u8;
            span.freed = ptr::null_mut();
            (span.touched, span.live) = (0, 0);
            self.link(WITH_ROOM + class, first);
            Some(first)
        }

        fn give_slot(&mut self, block: *mut u8, class: usize) {
            let offset = self.offset(block);
            let first = self.span(offset / UNIT).first;
            let inside = offset - first * UNIT;
            let (slot, slots) = (class::slot(class), class::slots(class));
            let span = self.span(first);
            let ours = span.kind == Kind::Slots
                && span.class as usize == class
                && inside.is_multiple_of(slot)
                && inside / slot < span.touched as usize;
            if !ours || span.freed == block {
                corrupted();
            }
            let was_full = span.live as usize == slots;
            span.live -= 1;
            if span.live == 0 {
                if !was_full {
                    self.unlink(WITH_ROOM + class, first);
                }
                return self.give_run(first, class::units(class));
            }
            // SAFETY: the slot is the heap's again, aligned to 16 bytes and at least as long.
            unsafe { block.cast::<*mut u8>().write(span.freed) };
            span.freed = block;
            if was_full {
                self.link(WITH_ROOM + class, first);
            }
        }

        fn take_aligned(&mut self, units: usize, align: usize) -> Option<*mut u8> {
            // Room to move up to an aligned address.
            let spare = align.div_ceil(UNIT) - 1;
            let mut first = self.take_run(units + spare)?;
            let address = self.address(first).addr();
            let skipped = (address.next_multiple_of(align.max(UNIT)) - address) / UNIT;
            if skipped > 0 {
                self.set(first + skipped, units + spare - skipped, Kind::Block);
                self.set(first, skipped, Kind::Block);
                self.give_run(first, skipped);
                first += skipped;
            }
            self.cut(first, units);
            Some(self.address(first))
        }

        /// A run of that length: the shortest free one that is long enough, or a new one.
        fn take_run(&mut self, units: usize) -> Option<usize> {
            let Some(first) = self.find(units) else {
                let first = self.top;
                self.reach(first + units)?;
                self.top = first + units;
                self.set(first, units, Kind::Block);
                return Some(first);
            };
            let len = self.span(first).len;
            self.unlink(runs_of(len), first);
            self.set(first, units, Kind::Block);
            if len > units {
                self.set(first + units, len - units, Kind::Free);
                self.link(runs_of(len - units), first + units);
            }
            Some(first)
        }

        /// The shortest free run of at least that length.
        fn find(&mut self, units: usize) -> Option<usize> {
            let long_enough = match units {
                ..=EXACT => self.filled >> (units - 1),
                _ => 0,
            };
            if long_enough != 0 {
                let list = units - 1 + long_enough.trailing_zeros() as usize;
                return Some(self.lists[list]);
            }
            let mut best = None;
            let mut shortest = usize::MAX;
            let mut unit = self.lists[LONGER];
            while unit != NONE {
                let span = self.span(unit);
                if (units..shortest).contains(&span.len) {
                    (best, shortest) = (Some(unit), span.len);
                }
                unit = span.next;
            }
            best
        }

        /// Takes a run back, and joins it with free neighbours.
        fn give_run(&mut self, mut first: usize, mut len: usize) {
            // Not where a run begins any more, if it is joined: so that it is known if it is freed twice.
            self.span(first).kind = Kind::Nothing;
            if first > 0 {
                let before = self.span(first - 1).first;
                if self.span(before).kind == Kind::Free {
                    let more = first - before;
                    self.unlink(runs_of(more), before);
                    self.span(before).kind = Kind::Nothing;
                    (first, len) = (before, more + len);
                }
            }
            let after = first + len;
            if after == self.top {
                self.top = first;
                return;
            }
            if self.span(after).kind == Kind::Free {
                let more = self.span(after).len;
                self.unlink(runs_of(more), after);
                self.span(after).kind = Kind::Nothing;
                len += more;
            }
            self.set(first, len, Kind::Free);
            self.link(runs_of(len), first);
        }

        /// Gives back what a block has beyond so many units.
        fn cut(&mut self, first: usize, units: usize) {
            let rest = self.span(first).len - units;
            if rest > 0 {
                self.set(first, units, Kind::Block);
                self.give_run(first + units, rest);
            }
        }

        fn set(&mut self, first: usize, len: usize, kind: Kind) {
            self.span(first + len - 1).first = first;
            let span = self.span(first);
            span.kind = kind;
            span.first = first;
            span.len = len;
        }

        /// Makes the first `units` usable, and their entries.
        fn reach(&mut self, units: usize) -> Option<()> {
            if units > self.end {
                return None;
            }
            if units > self.entries {
                let used = self.entries * size_of::<Span>();
                let more = (units * size_of::<Span>()).next_multiple_of(STEP) - used;
                let beyond = self.table.cast::<u8>().wrapping_add(used);
                // SAFETY: this part of the table's reservation is not used yet.
                unsafe { kernel::commit(beyond, more) }.ok()?;
                self.entries = (used + more) / size_of::<Span>();
            }
            if units * UNIT > self.brk {
                let brk = (units * UNIT).next_multiple_of(STEP).min(self.end * UNIT);
                let beyond = self.start.wrapping_add(self.brk);
                // SAFETY: nothing lies beyond the break.
                unsafe { kernel::commit(beyond, brk - self.brk) }.ok()?;
                self.brk = brk;
            }
            Some(())
        }

        fn link(&mut self, list: usize, unit: usize) {
            let first = self.lists[list];
            let span = self.span(unit);
            (span.next, span.previous) = (first, NONE);
            if first != NONE {
                self.span(first).previous = unit;
            }
            self.lists[list] = unit;
            self.mark(list);
        }

        fn unlink(&mut self, list: usize, unit: usize) {
            let span = self.span(unit);
            let (next, previous) = (span.next, span.previous);
            if next != NONE {
                self.span(next).previous = previous;
            }
            match previous {
                NONE => self.lists[list] = next,
                _ => self.span(previous).next = next,
            }
            self.mark(list);
        }

        /// Writes down whether a list is empty.
        fn mark(&mut self, list: usize) {
            if list < EXACT {
                let others = self.filled & !(1 << list);
                self.filled = others | u128::from(self.lists[list] != NONE) << list;
            }
        }
    }
}

/// What is asked of the kernel.
mod kernel {
    use super::corrupted;
    use nix::sys::mman::{
        MRemapFlags, MapFlags, ProtFlags, mmap_anonymous, mprotect, mremap, munmap,
    };
    use nix::unistd::{SysconfVar, sysconf};
    use std::ffi::c_void;
    use std::num::NonZeroUsize;
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    pub const NOTHING: ProtFlags = ProtFlags::PROT_NONE;

    fn start_of(range: *mut u8) -> NonNull<c_void> {
        NonNull::new(range.cast()).unwrap_or_else(|| corrupted())
    }

    /// Fresh private anonymous memory.
    pub fn map_anywhere(len: usize, rights: ProtFlags) -> nix::Result<*mut u8> {
        let len = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
        let start = unsafe { mmap_anonymous(None, len, rights, MapFlags::MAP_PRIVATE) };
        Ok(start?.as_ptr().cast())
    }

    /// Fresh private anonymous memory, aligned to `align` bytes.
    pub fn map_aligned(len: usize, align: usize, rights: ProtFlags) -> nix::Result<*mut u8> {
        // A mapping begins with a page: more than that must be looked for, in so much more.
        let spare = align.saturating_sub(page_size());
        let start = map_anywhere(len + spare, rights)?;
        let before = start.addr().next_multiple_of(align) - start.addr();
        let block = start.wrapping_add(before);
        if before > 0 {
            // SAFETY: this part of the mapping just made is not used.
            unsafe { unmap(start, before) }?;
        }
        if before < spare {
            // SAFETY: as above.
            unsafe { unmap(block.wrapping_add(len), spare - before) }?;
        }
        Ok(block)
    }

    /// # Safety
    /// Nothing uses the range any more.
    pub unsafe fn unmap(start: *mut u8, len: usize) -> nix::Result<()> {
        // SAFETY: the caller's contract.
        unsafe { munmap(start_of(start), len) }
    }

    /// Resizes a mapping; `place` is used with MREMAP_FIXED only.
    ///
    /// # Safety
    /// The whole mapping is the caller's, who forgets its old address; nothing uses the place.
    pub unsafe fn remap(
        start: *mut u8,
        old: usize,
        new: usize,
        flags: MRemapFlags,
        place: Option<*mut u8>,
    ) -> nix::Result<*mut u8> {
        let start = start_of(start);
        // SAFETY: the caller's contract.
        let moved = unsafe { mremap(start, old, new, flags, place.map(start_of)) };
        Ok(moved?.as_ptr().cast())
    }

    /// Makes reserved addresses usable.
    ///
    /// # Safety
    /// The range belongs to the caller's reservation.
    pub unsafe fn commit(start: *mut u8, len: usize) -> nix::Result<()> {
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the caller's contract.
        unsafe { mprotect(start_of(start), len, rights) }
    }

    /// Makes them a mere reservation again: a new mapping gives back pages and commit charge in one call.
    ///
    /// # Safety
    /// The range belongs to the caller's reservation, and nothing there is in use.
    pub unsafe fn decommit(start: *mut u8, len: usize) -> nix::Result<()> {
        let len = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        let start = NonZeroUsize::new(start.expose_provenance());
        // SAFETY: the caller's contract.
        unsafe { mmap_anonymous(start, len, NOTHING, flags) }.map(drop)
    }

    pub fn whole_pages(size: usize) -> usize {
        size.next_multiple_of(page_size())
    }

    /// Bytes in a page.
    pub fn page_size() -> usize {
        static SIZE: AtomicUsize = AtomicUsize::new(0);
        if SIZE.load(Relaxed) == 0 {
            let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
            let size = size.and_then(|size| usize::try_from(size).ok());
            SIZE.store(size.unwrap_or_else(|| corrupted()), Relaxed);
        }
        SIZE.load(Relaxed)
    }
}

/// A lock of one word. It can be held across a fork: the child frees its copy, as it has a copy of the holder.
mod lock {
    use nix::libc;
    use std::cell::UnsafeCell;
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    /// Held, and another thread may be asleep.
    const WAITED_FOR: u32 = 2;

    /// How often a waiting thread looks before it sleeps: what is done under these locks is short.
    const LOOKS: usize = 100;

    /// A value that is used under a lock.
    pub struct Locked<T> {
        word: AtomicU32,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is used by one thread at a time.
    unsafe impl<T: Send> Sync for Locked<T> {}

    impl<T> Locked<T> {
        pub const fn new(value: T) -> Locked<T> {
            Locked {
                word: AtomicU32::new(FREE),
                value: UnsafeCell::new(value),
            }
        }

        /// Calls `f`, which does not unwind, while no other thread is in here.
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            self.lock();
            // SAFETY: the lock is held, and `f` is given the only reference made under it.
            let result = f(unsafe { &mut *self.value.get() });
            // SAFETY: it was taken above.
            unsafe { self.unlock() };
            result
        }

        pub fn lock(&self) {
            for _ in 0..LOOKS {
                let taken = self.word.compare_exchange(FREE, HELD, Acquire, Relaxed);
                if taken.is_ok() {
                    return;
                }
                std::hint::spin_loop();
            }
            while self.word.swap(WAITED_FOR, Acquire) != FREE {
                futex(&self.word, libc::FUTEX_WAIT, WAITED_FOR);
            }
        }

        /// # Safety
        /// This thread holds the lock, or is the copy in a child of one that did, and does not use the value any more.
        pub unsafe fn unlock(&self) {
            if self.word.swap(FREE, Release) == WAITED_FOR {
                futex(&self.word, libc::FUTEX_WAKE, 1);
            }
        }
    }

    /// Sleeps while the word is `value`, or wakes so many. May wake without a cause.
    fn futex(word: &AtomicU32, call: libc::c_int, value: u32) {
        let call = call | libc::FUTEX_PRIVATE_FLAG;
        let for_ever = ptr::null::<libc::timespec>();
        // SAFETY: the word lives as long as the call, and no time is given.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), call, value, for_ever) };
    }
}

/// All arenas: a fork takes their locks, so that none is held by a thread that the child has no copy of.
mod fork {
    use super::heap::Arena;
    use super::lock::Locked;
    use nix::libc;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

    /// The arena that was added last: it knows the others.
    static LAST: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

    static ARENAS: Locked<Arenas> = Locked::new(Arenas { watched: false });

    /// The right to add an arena.
    pub struct Arenas {
        /// Whether the handlers are registered.
        watched: bool,
    }

    /// Calls `f`; forks wait.
    pub fn no_fork_meanwhile<R>(f: impl FnOnce(&mut Arenas) -> R) -> R {
        ARENAS.with(f)
    }

    impl Arenas {
        /// Adds the arena that `new` makes, which is told the others.
        pub fn add(
            &mut self,
            new: impl FnOnce(Option<&'static Arena>) -> Option<&'static Arena>,
        ) -> Option<&'static Arena> {
            if !self.watched {
                // SAFETY: the handlers may be called around any fork.
                let result = unsafe {
                    libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork))
                };
                self.watched = result == 0;
            }
            let arena = new(last())?;
            LAST.store(ptr::from_ref(arena).cast_mut(), Release);
            Some(arena)
        }
    }

    fn last() -> Option<&'static Arena> {
        // SAFETY: null, or an arena that was written before it was stored here, and stays for ever.
        unsafe { LAST.load(Acquire).as_ref() }
    }

    fn all() -> impl Iterator<Item = &'static Arena> {
        std::iter::successors(last(), |arena| arena.others)
    }

    extern "C" fn before_fork() {
        // This one first: no arena is added now.
        ARENAS.lock();
        all().for_each(|arena| arena.heap.lock());
    }

    /// In the parent and in the child.
    extern "C" fn after_fork() {
        for arena in all() {
            // SAFETY: this thread, or the one that it is a copy of, has taken the lock in `before_fork`.
            unsafe { arena.heap.unlock() };
        }
        // SAFETY: as above.
        unsafe { ARENAS.unlock() };
    }
}

/// Small blocks that a thread has freed and keeps for itself: taking one needs no lock.
mod cache {
    use super::heap::{Arena, Need};
    use super::{class, corrupted};
    use std::cell::Cell;
    use std::ptr;

    /// Blocks of the first classes are kept: up to 1 KiB.
    const CLASSES: usize = 32;

    struct Cache {
        /// The arena whose blocks these are: that of the first one kept.
        arena: Cell<Option<&'static Arena>>,
        bytes: Cell<usize>,
        /// Blocks by their class; each begins with the address of the next.
        lists: [Cell<*mut u8>; CLASSES],
    }

    thread_local! {
        static CACHE: Cache = const {
            Cache {
                arena: Cell::new(None),
                bytes: Cell::new(0),
                lists: [const { Cell::new(ptr::null_mut()) }; CLASSES],
            }
        };
    }

    /// What a thread has kept when it ends goes back to the heap.
    impl Drop for Cache {
        fn drop(&mut self) {
            self.empty();
        }
    }

    impl Cache {
        fn is_of(&self, arena: &Arena) -> bool {
            self.arena.get().is_some_and(|own| ptr::eq(own, arena))
        }

        fn empty(&self) {
            self.bytes.set(0);
            let Some(arena) = self.arena.get() else {
                return;
            };
            arena.heap.with(|heap| {
                for (class, list) in self.lists.iter().enumerate() {
                    while let Some(block) = pop(list) {
                        heap.dealloc(block, Need::Slot(class));
                    }
                }
            });
        }
    }

    fn pop(list: &Cell<*mut u8>) -> Option<*mut u8> {
        let block = list.get();
        if block.is_null() {
            return None;
        }
        // SAFETY: a block in a list is free, and was given the next one's address when it was put there.
        list.set(unsafe { block.cast::<*mut u8>().read() });
        Some(block)
    }

    /// A block that this thread has kept.
    pub fn take(arena: &'static Arena, class: usize) -> Option<*mut u8> {
        let take = |cache: &Cache| {
            let list = cache.lists.get(class).filter(|_| cache.is_of(arena))?;
            let block = pop(list)?;
            cache.bytes.set(cache.bytes.get() - class::slot(class));
            Some(block)
        };
        // A thread that is ending has no cache any more.
        CACHE.try_with(take).ok().flatten()
    }

    /// Whether this thread has kept the block, which `limit` bytes allow.
    pub fn keep(arena: &'static Arena, block: *mut u8, class: usize, limit: usize) -> bool {
        let keep = |cache: &Cache| {
            let Some(list) = cache.lists.get(class) else {
                return false;
            };
            if cache.arena.get().is_none() {
                cache.arena.set(Some(arena));
            }
            let bytes = cache.bytes.get() + class::slot(class);
            if bytes > limit || !cache.is_of(arena) {
                return false;
            }
            if list.get() == block {
                corrupted();
            }
            // SAFETY: the block is free, and long enough for an address.
            unsafe { block.cast::<*mut u8>().write(list.get()) };
            list.set(block);
            cache.bytes.set(bytes);
            true
        };
        CACHE.try_with(keep).unwrap_or(false)
    }

    /// Gives back what this thread has kept of that arena.
    pub fn empty(arena: &'static Arena) {
        let empty = |cache: &Cache| {
            if cache.is_of(arena) {
                cache.empty();
            }
        };
        let _ = CACHE.try_with(empty);
    }
}
