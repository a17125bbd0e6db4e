//! Brings in the pages of a mapping, so that they do not fault later.

/// Reads one byte of each page.
///
/// # Safety
/// The `len` bytes from `start` on are mapped to be read, and `page` is the size of a page.
pub unsafe fn touch(start: *const u8, len: usize, page: usize) {
    let mut offset = 0;
    while offset < len {
        // SAFETY: `offset` is less than `len`.
        unsafe {
            let _byte = *start.add(offset);
        }
        offset += page;
    }
}
