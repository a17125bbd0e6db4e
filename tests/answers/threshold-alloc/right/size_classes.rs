//! Size classes without headers. The layout gives a block's length, and a table describes the spans of the heap.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

use heap::{Arena, Need, STEP};
use kernel::{page_size, whole_pages};
use nix::errno::Errno;
use nix::sys::mman::{MRemapFlags, ProtFlags};

/// The initial settings of an allocator.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Size in bytes from which a block gets a separate mapping.
    pub threshold: usize,
    /// Cap on the number of mapped blocks that are live. Further large blocks come from the heap.
    pub max_maps: usize,
    /// Bytes of address space to reserve for the heap. If the kernel refuses, half of it is tried, and so on.
    pub reserve: usize,
}

impl Config {
    /// Returns glibc's defaults of 128 KiB and 65,536 mappings, with 64 GiB of address space.
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

/// The mapped blocks that are live, and the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Number of mapped blocks.
    pub mapped_blocks: usize,
    /// Total length of their mappings in bytes: whole pages.
    pub mapped_bytes: usize,
    /// Current threshold in bytes.
    pub threshold: usize,
}

/// The allocator. As a `static` it can be the program's `#[global_allocator]`.
///
/// No method unwinds. If a block is freed twice in a row or with another layout, the process is aborted. A `fork` waits
/// until no other thread is inside an allocator.
pub struct ThresholdAlloc {
    reserve: usize,
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    moving: AtomicBool,
    cached: AtomicUsize,
    mapped_blocks: AtomicUsize,
    mapped_bytes: AtomicUsize,
    /// Null before the first small block. The arena is part of a reservation that is never unmapped, because blocks and
    /// thread caches can outlive the allocator.
    arena: AtomicPtr<Arena>,
}

/// glibc's upper limit for a dynamic threshold: DEFAULT_MMAP_THRESHOLD_MAX.
const MOVES_UP_TO: usize = 32 << 20;

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
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

    /// Returns an uninitialised block with this size and alignment, or null if there is no memory.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        if large && let Some(block) = self.map(layout) {
            return block;
        }
        self.alloc_in_arena(layout)
            // If the heap is full, small blocks are mapped too.
            .or_else(|| self.map(layout))
            .unwrap_or(ptr::null_mut())
    }

    /// Frees a block. A mapped block is unmapped immediately.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Decide by address, not by size: the threshold may have changed since the block was allocated.
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

    /// Like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let block = unsafe { self.alloc(layout) };
        // A new mapping is already zero. Writing to it would make its pages resident.
        if !block.is_null() && self.arena_of(block).is_some() {
            // SAFETY: the block has this length, and nobody else uses it yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Changes the size of a block to `size` bytes. Alignment and contents are kept, up to the shorter of both sizes.
    /// The block may move. Returns null if there is no memory; the old block is still valid then.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment comes from a layout, and the size is valid by the caller's contract.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let large = size >= self.threshold.load(Relaxed);
        match (self.arena_of(block), large) {
            (None, true) => return self.remap(block, layout, wanted),
            (Some(arena), false) if arena.resize(block, layout, wanted) => return block,
            // The block moves between the heap and a mapping, or it has no room to grow in place.
            _ => {}
        }
        // SAFETY: the size is not zero by the caller's contract.
        let copy = unsafe { self.alloc(wanted) };
        if !copy.is_null() {
            let kept = size.min(layout.size());
            // SAFETY: both blocks are at least this long, and the new one does not overlap the old one.
            unsafe { ptr::copy_nonoverlapping(block, copy, kept) };
            // SAFETY: the caller's contract.
            unsafe { self.dealloc(block, layout) };
        }
        copy
    }

    /// Sets the threshold, and turns the dynamic threshold off.
    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Relaxed);
        self.threshold.store(bytes, Relaxed);
    }

    /// Sets the cap on mapped blocks. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    /// Turns a dynamic threshold like glibc's on or off. It moves past the size of each mapped block that is freed, up
    /// to 32 MiB.
    pub fn set_moving_threshold(&self, on: bool) {
        self.moving.store(on, Relaxed);
    }

    /// Sets how many bytes of small blocks that it has freed each thread may cache.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cached.store(bytes, Relaxed);
    }

    /// Returns the accessible part of the heap, from its start to its break. `None` before the first small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        Some(self.arena()?.heap.with(|heap| heap.range()))
    }

    /// Returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.mapped_blocks.load(Relaxed),
            mapped_bytes: self.mapped_bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Empties this thread's cache, and returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        if let Some(arena) = self.arena() {
            cache::empty(arena);
            arena.heap.with(|heap| heap.trim(0));
        }
    }

    fn arena(&self) -> Option<&'static Arena> {
        // SAFETY: the pointer is null, or points to an arena that was initialised before the store and is never
        // unmapped.
        unsafe { self.arena.load(Acquire).as_ref() }
    }

    /// Returns the arena if the block is in it. Otherwise the block is mapped.
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
            // Another thread may have created the arena in the meantime.
            if self.arena().is_none() {
                let arena = arenas.add(|others| Arena::reserve(self.reserve, others))?;
                self.arena.store(ptr::from_ref(arena).cast_mut(), Release);
            }
            self.arena()
        })
    }

    /// Returns how many bytes may stay free at the end of the heap. With a dynamic threshold, blocks that no longer get
    /// a mapping must find room there.
    fn slack(&self) -> usize {
        match self.moving.load(Relaxed) {
            true => self.threshold.load(Relaxed).min(MOVES_UP_TO) * 2,
            false => STEP,
        }
    }

    /// Maps a block. Returns `None` if the cap is reached or the kernel refuses.
    fn map(&self, layout: Layout) -> Option<*mut u8> {
        let max = self.max_maps.load(Relaxed);
        let one_more = |live: usize| (live < max).then(|| live + 1);
        // Count before mapping: otherwise two threads could exceed the cap together.
        self.mapped_blocks
            .fetch_update(Relaxed, Relaxed, one_more)
            .ok()?;
        let len = whole_pages(layout.size());
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let Ok(block) = kernel::map_aligned(len, layout.align(), protection) else {
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
        // SAFETY: nothing else lies in the block's mapping, and the caller no longer uses the block.
        match unsafe { kernel::unmap(block, len) } {
            // The kernel could not split a mapping (vm.max_map_count). The memory is lost.
            Ok(()) | Err(Errno::ENOMEM) => {}
            Err(_) => corrupted(),
        }
        if self.moving.load(Relaxed) && len <= MOVES_UP_TO {
            self.threshold.fetch_max(len + 1, Relaxed);
        }
    }

    /// Resizes a mapped block. The kernel moves page-table entries and copies no data.
    fn remap(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        let (old, new) = (whole_pages(layout.size()), whole_pages(wanted.size()));
        let moved = match layout.align() {
            align if align > page_size() => remap_aligned(block, old, new, align),
            // SAFETY: nothing else lies in the block's mapping, and the caller uses only the new address afterwards.
            _ => unsafe { kernel::remap(block, old, new, MRemapFlags::MREMAP_MAYMOVE, None) },
        };
        if moved.is_ok() {
            // The wrapping arithmetic is also correct if the block became shorter.
            self.mapped_bytes.fetch_add(new.wrapping_sub(old), Relaxed);
        }
        moved.unwrap_or(ptr::null_mut())
    }
}

/// Resizes a mapping, and keeps an alignment above the page size, which mremap alone would not keep.
fn remap_aligned(block: *mut u8, old: usize, new: usize, align: usize) -> nix::Result<*mut u8> {
    // SAFETY: nothing else lies in the block's mapping, and without MREMAP_MAYMOVE it stays at its address.
    let stayed = unsafe { kernel::remap(block, old, new, MRemapFlags::empty(), None) };
    if stayed.is_ok() {
        return stayed;
    }
    let place = kernel::map_aligned(new, align, ProtFlags::PROT_NONE)?;
    let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
    // SAFETY: as above, and nothing uses the new mapping that the block replaces.
    let moved = unsafe { kernel::remap(block, old, new, flags, Some(place)) };
    if moved.is_err() {
        // SAFETY: nothing uses the new mapping.
        let _ = unsafe { kernel::unmap(place, new) };
    }
    moved
}

// SAFETY: a block has the size and alignment of its layout, it is not handed out again until it is freed, and no method
// unwinds.
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

/// Aborts the process. Unwinding would run more code on a corrupted heap.
#[cold]
fn corrupted() -> ! {
    let words = b"threshold-alloc: freed twice, with another layout, or written over\n";
    // `eprintln!` is not used because it might allocate.
    // SAFETY: the message has this length.
    unsafe { nix::libc::write(2, words.as_ptr().cast(), words.len()) };
    std::process::abort()
}

/// Size classes: the lengths that blocks are rounded up to.
mod class {
    use super::heap::UNIT;
    use std::alloc::Layout;

    /// Number of classes: one for each multiple of 16 up to 128 bytes, then eight for each power of two up to
    /// `LONGEST`.
    pub const CLASSES: usize = 64;

    /// Length of the longest slot. Longer blocks are runs of units: the next class would be a whole unit longer anyway.
    pub const LONGEST: usize = 8 * UNIT;

    /// Returns the class of a layout, both for `alloc` and for `dealloc`. It depends on the alignment too: a length
    /// that is a multiple of the alignment is rounded up to another multiple of it, and spans begin at a unit.
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

    /// Returns the length of a slot in bytes.
    pub const fn slot(class: usize) -> usize {
        match class / 8 {
            0 => (class + 1) * 16,
            octave => (8 + class % 8 + 1) << (octave + 3),
        }
    }

    /// Returns the number of units in a span of this class.
    pub fn units(class: usize) -> usize {
        UNITS[class]
    }

    /// Returns the number of slots in a span of this class.
    pub fn slots(class: usize) -> usize {
        units(class) * UNIT / slot(class)
    }

    const UNITS: [usize; CLASSES] = {
        let mut units = [1; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            // The fewest units that waste at most an eighth of the span after the last slot.
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

/// A heap of units inside a reservation. A run of units is a block, a span of slots, or free.
///
/// The reservation holds the arena, then the table with an entry for each unit, then the heap. Only the heap returns
/// memory to the kernel.
mod heap {
    use super::lock::Locked;
    use super::{class, corrupted, kernel};
    use std::alloc::Layout;
    use std::ops::Range;
    use std::ptr;

    /// Length of a unit in bytes. It is shorter than a page, because on average half a span is unused in each class.
    pub const UNIT: usize = 2 << 10;

    /// The break moves up in steps of this many bytes, because each step is a system call. All parts of the reservation
    /// begin at a multiple of it, and so at a page: Linux pages have at most 64 KiB here.
    pub const STEP: usize = 128 << 10;

    /// The kind of memory that a block of the heap needs.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Need {
        /// A slot of this class.
        Slot(usize),
        /// A run of this many units.
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

    /// A heap, with the data that can be read without its lock.
    pub struct Arena {
        pub reserved: Range<usize>,
        pub heap: Locked<Heap>,
        pub others: Option<&'static Arena>,
    }

    impl Arena {
        /// Reserves address space. With `PROT_NONE` it costs neither memory nor commit charge, even under strict
        /// overcommit.
        pub fn reserve(bytes: usize, others: Option<&'static Arena>) -> Option<&'static Arena> {
            const { assert!(size_of::<Arena>() <= STEP) };
            let mut len = bytes.clamp(STEP, isize::MAX as usize);
            let (reservation, table_len, whole) = loop {
                len = len.next_multiple_of(STEP);
                let table_len = (len / UNIT * size_of::<Span>()).next_multiple_of(STEP);
                // One extra step is for aligning the start, and one for the arena.
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
            // SAFETY: this part of the reservation is not used yet.
            if unsafe { kernel::commit(arena, STEP) }.is_err() {
                // SAFETY: no part of the reservation is used.
                let _ = unsafe { kernel::unmap(reservation, whole) };
                return None;
            }
            let arena = arena.cast::<Arena>();
            let begun = Arena {
                reserved: start.addr()..start.addr() + len,
                heap: Locked::new(heap),
                others,
            };
            // SAFETY: the step is writable, aligned to its length, and long enough for an arena.
            unsafe { arena.write(begun) };
            // SAFETY: the arena was written above, and is never unmapped.
            Some(unsafe { &*arena })
        }

        /// Resizes a block of this heap in place. Returns whether that was possible.
        pub fn resize(&self, block: *mut u8, layout: Layout, wanted: Layout) -> bool {
            match (Need::of(layout), Need::of(wanted)) {
                (Need::Run(_), Need::Run(units)) => {
                    self.heap.with(|heap| heap.resize(block, units).is_some())
                }
                (before, after) => before == after,
            }
        }
    }

    /// End of a list.
    const NONE: usize = usize::MAX;

    /// Free runs of up to this many units have a list for each length. Longer ones share a list. Each class has a list
    /// of spans with a free slot.
    const EXACT: usize = 128;
    const LONGER: usize = EXACT;
    const WITH_ROOM: usize = EXACT + 1;
    const LISTS: usize = WITH_ROOM + class::CLASSES;

    /// Returns the list of free runs of this length.
    fn runs_of(len: usize) -> usize {
        if len <= EXACT { len - 1 } else { LONGER }
    }

    /// The kind of run that begins at a unit. `Nothing` is zero, because a new table is zero-filled.
    #[derive(Clone, Copy, PartialEq, Eq)]
    #[repr(u8)]
    enum Kind {
        /// The unit is not the first of its run.
        Nothing = 0,
        Free,
        Block,
        Slots,
    }

    /// An entry of the table, as long as a cache line. Only the first entry of a run is filled in. The last entry of a
    /// run holds `first`, and so does every entry of a span of slots.
    #[repr(align(64))]
    struct Span {
        kind: Kind,
        first: usize,
        len: usize,
        /// Link in a list of runs or spans.
        next: usize,
        previous: usize,
        /// For a span of slots: the first freed slot. Each freed slot begins with the address of the next one.
        freed: *mut u8,
        /// For a span of slots: its class. `touched` counts slots that were ever in use, and `live` those in use now.
        class: u8,
        touched: u32,
        live: u32,
    }

    /// Invariant: the units up to `top` are adjacent runs. No two free runs are adjacent, and the last run is not free.
    /// All of them have entries, and lie below the break.
    pub struct Heap {
        start: *mut u8,
        /// Length of the reserved heap in units.
        end: usize,
        /// Length of the accessible part in bytes.
        brk: usize,
        /// The first unit that is in no run.
        top: usize,
        table: *mut Span,
        /// Number of accessible entries.
        entries: usize,
        lists: [usize; LISTS],
        /// Bit `n` is set if list `n` of free runs is not empty, for the lists with exact lengths.
        filled: u128,
    }

    // SAFETY: the memory that the pointers point to is not tied to a thread.
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

        /// Resizes a run in place. Returns `None` if there is no room after it.
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

        /// Returns the number of bytes between the last run and the break.
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
            // SAFETY: nothing above `top` is in use.
            if unsafe { kernel::decommit(beyond, self.brk - brk) }.is_ok() {
                self.brk = brk;
            }
        }

        fn span(&mut self, unit: usize) -> &mut Span {
            if unit >= self.entries {
                corrupted();
            }
            // SAFETY: this entry is accessible, only the heap uses it, and all zeros is a valid entry.
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

        /// Returns the first unit of a block that is a run.
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
                // SAFETY: only the heap uses a freed slot, and `give_slot` wrote this address.
                span.freed = unsafe { block.cast::<*mut u8>().read() };
                let inside = start.addr()..start.addr() + span.touched as usize * slot;
                if !span.freed.is_null() && !inside.contains(&span.freed.addr()) {
                    // The slot was written to after it was freed.
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
            // SAFETY: only the heap uses the freed slot, which is aligned to 16 bytes and at least that long.
            unsafe { block.cast::<*mut u8>().write(span.freed) };
            span.freed = block;
            if was_full {
                self.link(WITH_ROOM + class, first);
            }
        }

        fn take_aligned(&mut self, units: usize, align: usize) -> Option<*mut u8> {
            // Take enough to skip to an aligned address.
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

        /// Takes a run of this length from the shortest free run that is long enough, or else above the last run.
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

        /// Finds the shortest free run of at least this length.
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

        /// Frees a run, and joins it with free neighbours.
        fn give_run(&mut self, mut first: usize, mut len: usize) {
            // If the run is joined, no run begins here any more. This detects a double free.
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

        /// Frees the units of a block beyond `units`.
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

        /// Makes the first `units` units and their entries accessible.
        fn reach(&mut self, units: usize) -> Option<()> {
            if units > self.end {
                return None;
            }
            if units > self.entries {
                let used = self.entries * size_of::<Span>();
                let more = (units * size_of::<Span>()).next_multiple_of(STEP) - used;
                let beyond = self.table.cast::<u8>().wrapping_add(used);
                // SAFETY: this part of the table is not used yet.
                unsafe { kernel::commit(beyond, more) }.ok()?;
                self.entries = (used + more) / size_of::<Span>();
            }
            if units * UNIT > self.brk {
                let brk = (units * UNIT).next_multiple_of(STEP).min(self.end * UNIT);
                let beyond = self.start.wrapping_add(self.brk);
                // SAFETY: this part of the reservation is above the break.
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

        /// Updates the bit that says whether a list is empty.
        fn mark(&mut self, list: usize) {
            if list < EXACT {
                let others = self.filled & !(1 << list);
                self.filled = others | u128::from(self.lists[list] != NONE) << list;
            }
        }
    }
}

/// Wrappers of system calls.
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

    /// Maps private anonymous memory.
    pub fn map_anywhere(len: usize, protection: ProtFlags) -> nix::Result<*mut u8> {
        let len = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) };
        Ok(start?.as_ptr().cast())
    }

    /// Maps private anonymous memory, aligned to `align` bytes.
    pub fn map_aligned(len: usize, align: usize, protection: ProtFlags) -> nix::Result<*mut u8> {
        // mmap aligns to a page. For more, map a longer range and unmap both ends.
        let spare = align.saturating_sub(page_size());
        let start = map_anywhere(len + spare, protection)?;
        let before = start.addr().next_multiple_of(align) - start.addr();
        let block = start.wrapping_add(before);
        if before > 0 {
            // SAFETY: this part of the new mapping is not used.
            let _ = unsafe { unmap(start, before) };
        }
        if before < spare {
            // SAFETY: as above.
            let _ = unsafe { unmap(block.wrapping_add(len), spare - before) };
        }
        Ok(block)
    }

    /// # Safety
    /// Nothing uses the range any more.
    pub unsafe fn unmap(start: *mut u8, len: usize) -> nix::Result<()> {
        // SAFETY: the caller's contract.
        unsafe { munmap(start_of(start), len) }
    }

    /// Resizes a mapping. `place` is the new address, and only used with MREMAP_FIXED.
    ///
    /// # Safety
    /// The range is a whole mapping of the caller, who no longer uses the old address. Nothing uses the memory at
    /// `place`.
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

    /// Makes reserved memory readable and writable.
    ///
    /// # Safety
    /// The range is part of the caller's reservation.
    pub unsafe fn commit(start: *mut u8, len: usize) -> nix::Result<()> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the caller's contract.
        unsafe { mprotect(start_of(start), len, protection) }
    }

    /// Turns memory into a mere reservation again. A new mapping returns both the pages and the commit charge.
    ///
    /// # Safety
    /// The range is part of the caller's reservation, and nothing in it is used any more.
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

    /// Returns the page size in bytes.
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

/// A futex lock. It can be held across a fork: both parent and child then unlock their own copy.
mod lock {
    use nix::libc;
    use std::cell::UnsafeCell;
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    /// The lock is held, and another thread may be asleep.
    const WAITED_FOR: u32 = 2;

    /// How often a thread spins before it sleeps. Spinning pays because these locks are held for a short time only.
    const LOOKS: usize = 100;

    /// A value protected by a lock.
    pub struct Locked<T> {
        word: AtomicU32,
        value: UnsafeCell<T>,
    }

    // SAFETY: only one thread at a time accesses the value.
    unsafe impl<T: Send> Sync for Locked<T> {}

    impl<T> Locked<T> {
        pub const fn new(value: T) -> Locked<T> {
            Locked {
                word: AtomicU32::new(FREE),
                value: UnsafeCell::new(value),
            }
        }

        /// Locks the value, calls `f`, and unlocks. `f` must not unwind.
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            self.lock();
            // SAFETY: the lock is held, and `f` receives the only reference.
            let result = f(unsafe { &mut *self.value.get() });
            // SAFETY: the lock was taken above.
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
        /// This thread no longer uses the value. It holds the lock, or it is the copy in a forked child of a thread
        /// that held it.
        pub unsafe fn unlock(&self) {
            if self.word.swap(FREE, Release) == WAITED_FOR {
                futex(&self.word, libc::FUTEX_WAKE, 1);
            }
        }
    }

    /// With FUTEX_WAIT, sleeps if the word is `value`; spurious wakeups are possible. With FUTEX_WAKE, wakes `value`
    /// threads.
    fn futex(word: &AtomicU32, call: libc::c_int, value: u32) {
        let call = call | libc::FUTEX_PRIVATE_FLAG;
        let for_ever = ptr::null::<libc::timespec>();
        // SAFETY: the word outlives the call, and the null timeout means no timeout.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), call, value, for_ever) };
    }
}

/// The list of all arenas. A fork takes their locks, because a lock held by another thread would stay locked in the
/// child.
mod fork {
    use super::heap::Arena;
    use super::lock::Locked;
    use nix::libc;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

    /// The arena that was added last. Its `others` leads to the earlier ones.
    static LAST: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

    static ARENAS: Locked<Arenas> = Locked::new(Arenas { watched: false });

    /// Access to the list of arenas. It exists only while the lock is held.
    pub struct Arenas {
        /// Whether the fork handlers are registered.
        watched: bool,
    }

    /// Calls `f` while no fork can happen.
    pub fn no_fork_meanwhile<R>(f: impl FnOnce(&mut Arenas) -> R) -> R {
        ARENAS.with(f)
    }

    impl Arenas {
        /// Adds the arena that `new` creates. `new` receives the arena that was added before it.
        pub fn add(
            &mut self,
            new: impl FnOnce(Option<&'static Arena>) -> Option<&'static Arena>,
        ) -> Option<&'static Arena> {
            if !self.watched {
                // SAFETY: the handlers can be called at any fork.
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
        // SAFETY: the pointer is null, or points to an arena that was initialised before the store and is never
        // unmapped.
        unsafe { LAST.load(Acquire).as_ref() }
    }

    fn all() -> impl Iterator<Item = &'static Arena> {
        std::iter::successors(last(), |arena| arena.others)
    }

    extern "C" fn before_fork() {
        // Take this lock first, so that no arena is added meanwhile.
        ARENAS.lock();
        all().for_each(|arena| arena.heap.lock());
    }

    /// Runs in the parent and in the child.
    extern "C" fn after_fork() {
        for arena in all() {
            // SAFETY: this thread, or the thread that it is a copy of, took the lock in `before_fork`.
            unsafe { arena.heap.unlock() };
        }
        // SAFETY: as above.
        unsafe { ARENAS.unlock() };
    }
}

/// A per-thread cache of small free blocks. Taking a block from it needs no lock.
mod cache {
    use super::heap::{Arena, Need};
    use super::{class, corrupted};
    use std::cell::Cell;
    use std::ptr;

    /// Number of classes that are cached: blocks of up to 1 KiB.
    const CLASSES: usize = 32;

    struct Cache {
        /// The arena of all cached blocks. The first block that this thread caches determines it.
        arena: Cell<Option<&'static Arena>>,
        bytes: Cell<usize>,
        /// One list of blocks for each class. Each block begins with the address of the next.
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

    /// Returns the cached blocks to the heap when the thread ends.
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
        // SAFETY: a block in the list is free, and `keep` wrote the address of the next one into it.
        list.set(unsafe { block.cast::<*mut u8>().read() });
        Some(block)
    }

    /// Takes a block from this thread's cache.
    pub fn take(arena: &'static Arena, class: usize) -> Option<*mut u8> {
        let take = |cache: &Cache| {
            let list = cache.lists.get(class).filter(|_| cache.is_of(arena))?;
            let block = pop(list)?;
            cache.bytes.set(cache.bytes.get() - class::slot(class));
            Some(block)
        };
        // When a thread ends, its cache may be destroyed before other destructors run.
        CACHE.try_with(take).ok().flatten()
    }

    /// Puts a block into this thread's cache, which holds at most `limit` bytes. Returns whether there was room.
    pub fn keep(arena: &'static Arena, block: *mut u8, class: usize, limit: usize) -> bool {
        let keep = |cache: &Cache| {
            let Some(list) = cache.lists.get(class) else {
                return false;
            };
            if cache.arena.get().is_none() {
                cache.arena.set(Some(arena));
            }
            // Before the limit is checked: a block that has filled the cache may be freed twice, too.
            if list.get() == block {
                corrupted();
            }
            let bytes = cache.bytes.get() + class::slot(class);
            if bytes > limit || !cache.is_of(arena) {
                return false;
            }
            // SAFETY: the block is free, and long enough for an address.
            unsafe { block.cast::<*mut u8>().write(list.get()) };
            list.set(block);
            cache.bytes.set(bytes);
            true
        };
        CACHE.try_with(keep).unwrap_or(false)
    }

    /// Returns this thread's cached blocks to the heap if they come from this arena.
    pub fn empty(arena: &'static Arena) {
        let empty = |cache: &Cache| {
            if cache.is_of(arena) {
                cache.empty();
            }
        };
        let _ = CACHE.try_with(empty);
    }
}

/// Stage 10: C's functions. The word in front of a block has the size that was asked for and, in its last six bits, the
/// logarithm of the alignment.
mod c {
    use super::*;

    const ALIGN: usize = 16;
    const BITS: u32 = 6;

    fn refuse(error: Errno) -> *mut u8 {
        error.set();
        ptr::null_mut()
    }

    /// `None` if the size does not fit into the word.
    fn layout(align: usize, size: usize) -> Option<Layout> {
        if size >= usize::MAX >> BITS {
            return None;
        }
        Layout::from_size_align(align + size, align).ok()
    }

    /// # Safety
    /// `block` is a live block of these functions.
    unsafe fn read(block: *mut u8) -> (usize, usize) {
        // SAFETY: the word is in front of the block.
        let word = unsafe { block.cast::<usize>().wrapping_sub(1).read() };
        (1 << (word & ((1 << BITS) - 1)), word >> BITS)
    }

    impl ThresholdAlloc {
        pub fn malloc(&'static self, size: usize) -> *mut u8 {
            self.aligned_alloc(ALIGN, size)
        }

        pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
            match count.checked_mul(size) {
                // SAFETY: the layout is not empty.
                Some(size) => {
                    self.place(ALIGN, size, |layout| unsafe { self.alloc_zeroed(layout) })
                }
                None => refuse(Errno::ENOMEM),
            }
        }

        pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
            if !align.is_power_of_two() {
                return refuse(Errno::EINVAL);
            }
            // SAFETY: the layout is not empty.
            self.place(align.max(ALIGN), size, |layout| unsafe {
                self.alloc(layout)
            })
        }

        fn place(
            &self,
            align: usize,
            size: usize,
            alloc: impl FnOnce(Layout) -> *mut u8,
        ) -> *mut u8 {
            let Some(layout) = layout(align, size) else {
                return refuse(Errno::ENOMEM);
            };
            let start = alloc(layout);
            if start.is_null() {
                return refuse(Errno::ENOMEM);
            }
            let block = start.wrapping_add(align);
            let word = size << BITS | align.ilog2() as usize;
            // SAFETY: the alignment is at least two words.
            unsafe { block.cast::<usize>().wrapping_sub(1).write(word) };
            block
        }

        /// # Safety
        /// As in the stub.
        pub unsafe fn reallocarray(
            &'static self,
            block: *mut u8,
            count: usize,
            size: usize,
        ) -> *mut u8 {
            let Some(size) = count.checked_mul(size) else {
                return refuse(Errno::ENOMEM);
            };
            let new = self.malloc(size);
            if block.is_null() || new.is_null() {
                return new;
            }
            // SAFETY: the caller's contract.
            let (_, old) = unsafe { read(block) };
            // SAFETY: both blocks are that long, and the new one does not overlap the other.
            unsafe { ptr::copy_nonoverlapping(block, new, old.min(size)) };
            // SAFETY: the caller's contract.
            unsafe { self.free(block) };
            new
        }

        /// # Safety
        /// As in the stub.
        pub unsafe fn free(&self, block: *mut u8) {
            if block.is_null() {
                return;
            }
            let errno = Errno::last_raw();
            // SAFETY: the caller's contract.
            let (align, size) = unsafe { read(block) };
            if let Some(layout) = layout(align, size) {
                // SAFETY: the block was allocated with this layout.
                unsafe { self.dealloc(block.wrapping_sub(align), layout) };
            }
            Errno::set_raw(errno);
        }

        /// # Safety
        /// As in the stub.
        pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
            if block.is_null() {
                return 0;
            }
            // SAFETY: the caller's contract.
            unsafe { read(block) }.1
        }
    }
}
