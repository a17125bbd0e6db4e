//! The functions that the object exports: malloc(3), posix_memalign(3) and malloc_usable_size(3), as glibc has them.
//!
//! glibc's manual lists what a replacement of malloc must define ("Replacing malloc"). The loader and libc itself then
//! call these functions, too.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::errno::Errno;
use nix::libc;

use crate::guard::enter;
use crate::{C, nested};

/// The number of blocks that were allocated, and of those that are not aligned. A tracer reads them. Concurrent calls may
/// count as one.
#[unsafe(no_mangle)]
pub static workbook_blocks: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// malloc's alignment, which is enough for every fundamental type of C.
const ALIGN: usize = align_of::<libc::max_align_t>();

fn counted(block: *mut u8, align: usize) -> *mut c_void {
    // Not one atomic step, which would cost more than the rest of this file.
    let count = |counter: &AtomicU64| counter.store(counter.load(Relaxed) + 1, Relaxed);
    let [blocks, misaligned] = &workbook_blocks;
    if !block.is_null() {
        count(blocks);
        if !block.addr().is_multiple_of(align.max(ALIGN)) {
            count(misaligned);
        }
    }
    block.cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    counted(
        enter(|| C.malloc(size), || nested::allocate(1, size)),
        ALIGN,
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let nested = || nested::allocate(1, count.saturating_mul(size));
    counted(enter(|| C.calloc(count, size), nested), ALIGN)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's contract is the same.
    unsafe { reallocarray(block, 1, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let block = block.cast();
    // SAFETY: the caller's contract.
    let nested = || unsafe { nested::resize(block, count.saturating_mul(size)) };
    if nested::is_nested(block) {
        return nested().cast();
    }
    // SAFETY: the caller's contract, and the block is not nested.
    let call = || unsafe { C.reallocarray(block, count, size) };
    counted(enter(call, nested), ALIGN)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    let block = block.cast();
    // SAFETY: the caller's contract.
    let nested = || unsafe { nested::free(block) };
    if nested::is_nested(block) {
        return nested();
    }
    // SAFETY: the caller's contract, and the block is not nested.
    enter(|| unsafe { C.free(block) }, nested);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's contract.
    unsafe { free(block) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's contract.
    unsafe { free(block) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    let block = block.cast();
    if nested::is_nested(block) {
        return nested::SLOT;
    }
    // SAFETY: the caller's contract, and the block is not nested.
    enter(|| unsafe { C.usable_size(block) }, || 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        Errno::EINVAL.set();
        return ptr::null_mut();
    }
    let nested = || nested::allocate(align, size);
    counted(enter(|| C.aligned_alloc(align, size), nested), align)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    // It returns the error, and leaves errno and the place as they are.
    let errno = Errno::last_raw();
    let block = aligned_alloc(align, size);
    Errno::set_raw(errno);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's contract.
    unsafe { place.write(block) };
    0
}

/// As in glibc, another alignment is rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // 0 is no power of two, like a result that is too large.
    aligned_alloc(align.checked_next_power_of_two().unwrap_or(0), size)
}

#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned_alloc(page_size(), size)
}

/// Rounds the size up to whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = page_size();
    // `usize::MAX` fails with ENOMEM.
    let size = size.checked_next_multiple_of(page).unwrap_or(usize::MAX);
    aligned_alloc(page, size)
}

fn page_size() -> usize {
    // SAFETY: sysconf accesses no memory of the caller.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
