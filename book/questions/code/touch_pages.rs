//! Makes the pages of a mapping resident, so that they do not fault later.

/// Reads one byte of each page.
///
/// # Safety
/// The `len` bytes at `start` are mapped and readable, and `page` is the page size.
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
