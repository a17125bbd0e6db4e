//! How long a mapping must be.

/// `len` bytes in whole pages, for mmap; none where no address space holds them.
pub fn whole_pages(len: usize, page: usize) -> Option<usize> {
    if len == 0 || !page.is_power_of_two() {
        return None;
    }
    let rounded = (len + page - 1) & !(page - 1);
    (rounded <= isize::MAX as usize).then_some(rounded)
}
