//! Mappings of the grader directly before and after a mapping of the answer.

use std::ptr::without_provenance_mut;
use std::slice;

use judge::probe::{mapped_pages, page_size};
use nix::libc;

/// One page on each side of a mapping, where the addresses were free. No operation on the mapping may change them.
pub struct Neighbours {
    pages: Vec<(&'static str, usize)>,
}

impl Neighbours {
    /// Maps a page before and a page after the `len` bytes at `start`, and fills them.
    pub fn of(start: *const u8, len: usize) -> Neighbours {
        let page = page_size();
        let end = (start.addr() + len).next_multiple_of(page);
        let around = [("before", start.addr() - page), ("after", end)];
        let map = |(side, address)| map_at(address).then_some((side, address));
        Neighbours {
            pages: around.into_iter().filter_map(map).collect(),
        }
    }

    /// Fails the case if a neighbour was unmapped or overwritten. `what` describes the operation.
    pub fn expect_untouched(&self, what: &str) {
        for (side, address) in &self.pages {
            let page: *const u8 = without_provenance_mut(*address);
            if mapped_pages(page, 1) == 0 {
                judge::fail(format!(
                    "{what} also unmapped the page {side} it, which belongs to another mapping. Pass munmap the start \
                     and length of the answer's own mapping."
                ));
            }
            // SAFETY: the page is mapped, readable, and changed by nobody while the slice lives.
            let bytes = unsafe { slice::from_raw_parts(page, page_size()) };
            if bytes.iter().any(|byte| *byte != FILL) {
                judge::fail(format!(
                    "{what} also changed the page {side} it, which belongs to another mapping."
                ));
            }
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for (_, address) in &self.pages {
            // SAFETY: `map_at` mapped this page, and no reference to it exists.
            unsafe { libc::munmap(without_provenance_mut(*address), page_size()) };
        }
    }
}

const FILL: u8 = 0xC3;

/// Maps a page at `address` and fills it. Returns false if something is mapped there.
fn map_at(address: usize) -> bool {
    let wanted = without_provenance_mut(address);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces no mapping.
    let mapped = unsafe { libc::mmap(wanted, page_size(), protection, flags, -1, 0) };
    if mapped != wanted {
        return false;
    }
    // SAFETY: the page was mapped just now, writable.
    unsafe { mapped.cast::<u8>().write_bytes(FILL, page_size()) };
    true
}
