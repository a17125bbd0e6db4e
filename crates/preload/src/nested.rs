//! Blocks for calls of malloc from inside malloc. They come from a static array of slots.
//!
//! There are two such callers. libc allocates 48 bytes for each thread that registers the destructor of a thread-local
//! variable. And a panic inside the answer allocates before it prints its message.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// The size of each block.
pub const SLOT: usize = 256;
const SLOTS: usize = 2048;

/// The alignment is that of every slot.
#[repr(align(256))]
struct Slots(UnsafeCell<[u8; SLOT * SLOTS]>);

// SAFETY: a slot belongs to the caller of `allocate` until it is freed.
unsafe impl Sync for Slots {}

/// Memory that is only reserved until it is used.
static MEMORY: Slots = Slots(UnsafeCell::new([0; SLOT * SLOTS]));

/// One bit for each slot that is in use.
static USED: [AtomicU64; SLOTS / 64] = [const { AtomicU64::new(0) }; SLOTS / 64];

/// Returns a zero-filled slot, or null if the block does not fit into one or none is free.
pub fn allocate(align: usize, size: usize) -> *mut u8 {
    if size > SLOT || align > SLOT {
        return ptr::null_mut();
    }
    for (word, bits) in USED.iter().enumerate() {
        let first = |bits: u64| Some(bits | (bits + 1)).filter(|_| bits != u64::MAX);
        if let Ok(before) = bits.fetch_update(AcqRel, Acquire, first) {
            let slot = word * 64 + before.trailing_ones() as usize;
            let block = MEMORY.0.get().cast::<u8>().wrapping_add(slot * SLOT);
            // SAFETY: the slot is in bounds, and from now on this thread's.
            unsafe { block.write_bytes(0, SLOT) };
            return block;
        }
    }
    ptr::null_mut()
}

/// Returns the number of the slot that begins at `block`. `None` if it is another allocator's block.
fn slot(block: *mut u8) -> Option<usize> {
    let offset = block.addr().checked_sub(MEMORY.0.get().addr())?;
    (offset < SLOT * SLOTS).then_some(offset / SLOT)
}

pub fn is_nested(block: *mut u8) -> bool {
    slot(block).is_some()
}

/// Frees a slot. Does nothing if the block is another allocator's: freed from inside the answer, it stays allocated.
///
/// # Safety
/// Nobody uses the block any more.
pub unsafe fn free(block: *mut u8) {
    if let Some(slot) = slot(block) {
        USED[slot / 64].fetch_and(!(1 << (slot % 64)), AcqRel);
    }
}

/// Returns a block of the new size with the old contents, and frees the old one.
///
/// # Safety
/// Null, or a slot that nobody uses any more, unless the result is null.
pub unsafe fn resize(block: *mut u8, size: usize) -> *mut u8 {
    match (slot(block), size <= SLOT) {
        (Some(_), true) => block,
        (None, true) if block.is_null() => allocate(1, size),
        _ => ptr::null_mut(),
    }
}
