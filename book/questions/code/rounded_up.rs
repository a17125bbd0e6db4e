//! Computes the length of a mapping.

/// Rounds `len` up to whole pages for mmap. Returns `None` if no address space can hold them.
pub fn whole_pages(len: usize, page: usize) -> Option<usize> {
    if len == 0 || !page.is_power_of_two() {
        return None;
    }
    let rounded = (len + page - 1) & !(page - 1);
    (rounded <= isize::MAX as usize).then_some(rounded)
}
